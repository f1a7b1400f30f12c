"""Notifications of failed runs: one message per burst."""

import time
from datetime import UTC, datetime

import apprise
import dagster as dg
import pytest

from drive_assets.recordings import arrivals
from drive_assets.running import notifications
from drive_assets.running.notifications import QUIET_S, URLS, failure_notifications
from model.common.errors import DataError, PassingError


class Channel:
    """Receives messages, and refuses them while `is_up` is false."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.is_up = True

    def notify(self, title: str, body: str) -> bool:
        if self.is_up:
            self.messages.append((title, body))
        return self.is_up


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    """All messages go there, whatever their address."""
    channel = Channel()
    monkeypatch.setattr(apprise.Apprise, "notify", lambda self, title, body: channel.notify(title, body))
    monkeypatch.setenv(URLS, "json://user:secret@127.0.0.1/")
    return channel


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


def test_one_message_per_burst(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.instance_for_test() as instance:
        fail(instance)  # before the sensor was switched on
        _, cursor = tick(instance, None)
        assert tick(instance, cursor)[0] == "No run failed."
        for day in range(1, 13):
            fail(instance, {"dagster/partition": f"2024-05-{day:02}_10-00-00"})
        fail(instance, {"drive_assets/process": "host/1/2"})  # of a command, whose user sees it
        shown, cursor = tick(instance, cursor)
        assert shown == "Sent: drive-assets: 12 runs failed"
        ((title, body),) = channel.messages
        assert title == "drive-assets: 12 runs failed"
        assert "broken 2024-05-01_10-00-00 (run " in body and "and 2 more" in body
        assert "telemetry.csv, row 3: expected a number" in body
        assert tick(instance, cursor)[0] == "No run failed."

        fail(instance)
        shown, cursor = tick(instance, cursor)
        assert shown.startswith("1 failed: the next message") and len(channel.messages) == 1
        later = arrivals.now() + QUIET_S
        monkeypatch.setattr(arrivals, "now", lambda: later)
        assert tick(instance, cursor)[0] == "Sent: drive-assets: 1 run failed" and len(channel.messages) == 2


def test_a_tick_with_a_wrong_clock_does_not_silence_later_ones(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
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
    assert len(channel.messages) == 2


def test_failures_of_commands_do_not_hide_later_ones(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "MAX_FAILURES", 1)
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance, None)
        fail(instance, {"drive_assets/process": "host/1/2"})
        fail(instance)
        shown, cursor = tick(instance, cursor)
        assert shown == "No run failed."
        assert tick(instance, cursor)[0] == "Sent: drive-assets: 1 run failed"


def test_a_rejected_message_is_sent_by_the_next_tick_without_showing_a_secret(channel: Channel) -> None:
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance, None)
        fail(instance)
        channel.is_up = False
        with pytest.raises(PassingError, match="was rejected") as refused:
            tick(instance, cursor)
        assert "secret" not in str(refused.value)
        channel.is_up = True
        assert tick(instance, cursor)[0] == "Sent: drive-assets: 1 run failed"


def test_an_invalid_address_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS, "json://127.0.0.1/ nonsense:secret")
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance, None)
        fail(instance)
        with pytest.raises(DataError, match=r"address 2 of 2 is not an apprise address\.$"):
            tick(instance, cursor)
