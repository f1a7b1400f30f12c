"""Notifications of failed runs, sent to a receiver on loopback: one message per burst."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import dagster as dg
import pytest

from drive_assets.recordings import arrivals
from drive_assets.running import notifications
from drive_assets.running.notifications import QUIET_S, URLS, failure_notifications
from model.common.errors import DataError, PassingError


class Receiver(HTTPServer):
    """Stores the messages that it receives, and answers with `status`."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.messages.append(json.loads(content))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *given: object) -> None: ...


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    server = Receiver()
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(URLS, f"json://user:secret@127.0.0.1:{server.server_port}/")
    yield server
    server.shutdown()
    server.server_close()


@dg.op
def fails() -> None:
    raise dg.Failure("telemetry.csv, row 3: expected a number")


@dg.job
def broken() -> None:
    fails()


def fail(instance: dg.DagsterInstance, tags: dict[str, str] | None = None) -> None:
    assert not broken.execute_in_process(instance=instance, tags=tags, raise_on_error=False).success


def tick(instance: dg.DagsterInstance, cursor: str | None) -> tuple[str, str | None]:
    """The message of a tick, and the next cursor."""
    with dg.build_sensor_context(instance, cursor=cursor) as context:
        result = failure_notifications(context)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message), cursor
    assert isinstance(result, dg.SensorResult) and result.skip_reason is not None
    return str(result.skip_reason.skip_message), result.cursor


def test_one_message_per_burst(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.instance_for_test() as instance:
        fail(instance)  # before the sensor was switched on
        _, cursor = tick(instance, None)
        assert tick(instance, cursor)[0] == "No run failed."
        for day in range(1, 13):
            fail(instance, {"dagster/partition": f"2024-05-{day:02}_10-00-00"})
        fail(instance, {"drive_assets/process": "host/1/2"})  # of a command, whose user sees it
        shown, cursor = tick(instance, cursor)
        assert shown == "Sent: drive-assets: 12 runs failed"
        (message,) = receiver.messages
        assert message["title"] == "drive-assets: 12 runs failed"
        assert "broken 2024-05-01_10-00-00 (run " in message["message"]
        assert "telemetry.csv, row 3: expected a number" in message["message"]
        assert "and 2 more" in message["message"]
        assert tick(instance, cursor)[0] == "No run failed."

        fail(instance)
        shown, cursor = tick(instance, cursor)
        assert shown.startswith("1 failed: the next message") and len(receiver.messages) == 1
        later = arrivals.now() + QUIET_S
        monkeypatch.setattr(arrivals, "now", lambda: later)
        assert tick(instance, cursor)[0] == "Sent: drive-assets: 1 run failed" and len(receiver.messages) == 2


def test_a_tick_with_a_wrong_clock_does_not_silence_later_ones(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_2040 = datetime(2040, 1, 1, tzinfo=UTC).timestamp()
    with dg.instance_for_test() as instance:
        with monkeypatch.context() as wrong:
            wrong.setattr(time, "time", lambda: in_2040)
            _, cursor = tick(instance, None)
            fail(instance)
            shown, cursor = tick(instance, cursor)
            assert shown == "Sent: drive-assets: 1 run failed"
        fail(instance)
        shown, cursor = tick(instance, cursor)
        assert shown == "Sent: drive-assets: 1 run failed"
        assert tick(instance, cursor)[0] == "No run failed."
    assert len(receiver.messages) == 2


def test_failures_of_commands_do_not_hide_later_ones(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "MAX_FAILURES", 1)
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance, None)
        fail(instance, {"drive_assets/process": "host/1/2"})
        fail(instance)
        shown, cursor = tick(instance, cursor)
        assert shown == "No run failed."
        assert tick(instance, cursor)[0] == "Sent: drive-assets: 1 run failed"


def test_a_rejected_message_is_sent_by_the_next_tick_without_showing_a_secret(receiver: Receiver) -> None:
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance, None)
        fail(instance)
        receiver.status = 500
        with pytest.raises(PassingError, match="was rejected") as refused:
            tick(instance, cursor)
        assert "secret" not in str(refused.value)
        receiver.status = 200
        assert tick(instance, cursor)[0] == "Sent: drive-assets: 1 run failed"


def test_an_invalid_address_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS, "json://127.0.0.1/ nonsense:secret")
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance, None)
        fail(instance)
        with pytest.raises(DataError, match=r"address 2 of 2 is not an apprise address\.$"):
            tick(instance, cursor)
