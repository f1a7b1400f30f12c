"""What a team is told of runs that failed: by a receiver on loopback, one message for a burst."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import dagster as dg
import pytest

from drive_assets.recordings import arrivals
from drive_assets.running.notifications import QUIET_S, URLS, failure_notifications
from model.common.errors import DataError, PassingError


class Receiver(HTTPServer):
    """Keeps the messages that it is sent, and answers with `status`."""

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
    """What the tick says, and the next cursor."""
    with dg.build_sensor_context(instance, cursor=cursor) as context:
        result = failure_notifications(context)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message), cursor
    assert isinstance(result, dg.SensorResult) and result.skip_reason is not None
    return str(result.skip_reason.skip_message), result.cursor


def test_a_burst_is_one_message(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.instance_for_test() as instance:
        fail(instance)  # before anybody listened
        _, cursor = tick(instance, None)
        assert tick(instance, cursor) == ("No run failed.", cursor)
        for day in range(1, 13):
            fail(instance, {"dagster/partition": f"2024-05-{day:02}_10-00-00"})
        fail(instance, {"drive_assets/process": "host/1/2"})  # a command's, whose user sees it
        said, cursor = tick(instance, cursor)
        assert said == "Told: drive-assets: 12 runs failed"
        (message,) = receiver.messages
        assert message["title"] == "drive-assets: 12 runs failed"
        assert "broken 2024-05-01_10-00-00 (run " in message["message"]
        assert "telemetry.csv, row 3: expected a number" in message["message"]
        assert "and 2 more" in message["message"]
        assert tick(instance, cursor) == ("No run failed.", cursor)

        fail(instance)
        said, cursor = tick(instance, cursor)
        assert said.startswith("1 failed: told with what else") and len(receiver.messages) == 1
        later = arrivals.now() + QUIET_S
        monkeypatch.setattr(arrivals, "now", lambda: later)
        said, _ = tick(instance, cursor)
        assert said == "Told: drive-assets: 1 run failed" and len(receiver.messages) == 2


def test_a_message_that_is_not_taken_is_sent_by_the_next_tick_and_no_secret_is_told(receiver: Receiver) -> None:
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance, None)
        fail(instance)
        receiver.status = 500
        with pytest.raises(PassingError, match="was not taken") as refused:
            tick(instance, cursor)
        assert "secret" not in str(refused.value)
        receiver.status = 200
        assert tick(instance, cursor)[0] == "Told: drive-assets: 1 run failed"


def test_an_address_that_is_none_is_named_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS, "json://127.0.0.1/ nonsense:secret")
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance, None)
        fail(instance)
        with pytest.raises(DataError, match=r"address 2 of 2 is none that apprise knows\.$"):
            tick(instance, cursor)
