"""The inbox sensor on a real instance: what is settled and complete is requested once."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.recordings.sensors import SETTLING_S, inbox_sensor
from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive

NAME = "2024-05-01_10-00-00"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(data_root=str(tmp_path / "data"), inbox_root=str(tmp_path / "inbox"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def settle(folder: Path) -> None:
    then = time.time() - SETTLING_S - 60
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


def tick(instance: dg.DagsterInstance, storage: Storage, cursor: str | None) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"storage": storage}) as context:
        result = inbox_sensor(context)
    assert isinstance(result, (dg.SensorResult, dg.SkipReason))
    return result


def test_a_settled_recording_is_requested_once_and_again_when_it_changed(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    assert "does not exist" in str(tick(instance, storage, None).skip_message)  # type: ignore[union-attr]
    drive = write_drive(storage.inbox / NAME, rows=4)
    assert isinstance(tick(instance, storage, None), dg.SkipReason)  # not settled yet
    settle(drive)
    result = tick(instance, storage, None)
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests or []] == [NAME]
    assert [list(add.partition_keys) for add in result.dynamic_partitions_requests or []] == [[NAME]]
    assert isinstance(tick(instance, storage, result.cursor), dg.SkipReason)
    (drive / "telemetry.csv").write_text((drive / "telemetry.csv").read_text() + "\n")
    settle(drive)
    changed = tick(instance, storage, result.cursor)
    assert isinstance(changed, dg.SensorResult)
    assert (changed.run_requests or [])[0].run_key != (result.run_requests or [])[0].run_key


def test_what_is_no_recording_does_not_stop_the_others(instance: dg.DagsterInstance, storage: Storage) -> None:
    settle(write_drive(storage.inbox / NAME, rows=4))
    (storage.inbox / "notes").mkdir()
    (storage.inbox / "broken.zip").write_bytes(b"PK")
    for path in storage.inbox.iterdir():
        settle(path)
    result = tick(instance, storage, None)
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests or []] == [NAME]
