"""Missing, outdated and failed partitions in the status and its checks, and forgotten recordings."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drive_assets import upkeep
from drive_assets.labels.assets import future_labels_asset
from drive_assets.partitions import NO_NAME, RECORDINGS, register_recordings
from drive_assets.recordings import arrivals
from drive_assets.recordings.assets import recording
from drive_assets.recordings.forget import forget
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets.running.materialize import materialize
from drive_assets.status import AssetStatus, lines, read_status
from drive_assets.upkeep import status_sensor
from drive_assets_tests.drives import write_drive
from model.common.errors import DataError

TAKEN, BROKEN, UNKNOWN, MADE_UP = "2024-05-01_10-00-00", "2024-05-02_10-00-00", "2024-05-03_10-00-00", "my drive"


@pytest.fixture
def storage(data_root: Path) -> Storage:
    return Storage.from_environment()


@pytest.fixture
def instance(data_root: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance() as instance:
        yield instance


def definitions() -> dg.Definitions:
    return dg.Definitions([recording, future_labels_asset], resources={"storage": Storage.from_environment()})


def run(instance: dg.DagsterInstance, selection: str, *recordings: str) -> bool:
    return materialize(definitions().get_repository_def(), instance, selection, recordings=recordings)


def status(instance: dg.DagsterInstance, storage: Storage) -> dict[str, AssetStatus]:
    return {each.asset: each for each in read_status(instance, definitions().resolve_asset_graph(), storage)}


def tick(instance: dg.DagsterInstance, storage: Storage, cursor: str | None) -> tuple[dict[str, bool], str | None]:
    """The checks that the sensor evaluates anew, and its next cursor."""
    repository = definitions().get_repository_def()
    with dg.build_sensor_context(instance, cursor, repository_def=repository, resources={"storage": storage}) as given:
        result = status_sensor(given)
    assert isinstance(result, dg.SensorResult)
    events = [event for event in result.asset_events or () if isinstance(event, dg.AssetCheckEvaluation)]
    return {f"{event.asset_key.to_user_string()}:{event.check_name}": event.passed for event in events}, result.cursor


def test_it_tells_what_is_there_what_was_refused_and_what_is_out_of_date(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    write_drive(storage.inbox / TAKEN, rows=4)
    write_drive(storage.inbox / BROKEN, rows=4)
    (storage.inbox / BROKEN / "telemetry.csv").write_text("Time\n")
    register_recordings(instance, [TAKEN, BROKEN, UNKNOWN])
    instance.add_dynamic_partitions(str(RECORDINGS.name), [MADE_UP])  # as the UI's "Add a partition" does
    assert not run(instance, "recording", TAKEN, BROKEN)
    assert run(instance, "future_labels", TAKEN)
    found = status(instance, storage)
    taken = found["recording"]
    assert (taken.materialised, taken.missing) == ([TAKEN], [BROKEN, UNKNOWN, MADE_UP])
    assert taken.failed[BROKEN].startswith(str(storage.inbox / BROKEN / "telemetry.csv"))
    assert "has no source" in taken.failed[UNKNOWN]
    assert taken.failed[MADE_UP] == NO_NAME
    assert (found["future_labels"].materialised, found["future_labels"].outdated) == ([TAKEN], {})

    # The recording arrives with other content: the labels of the earlier one are moved aside with it.
    (storage.inbox / TAKEN / "telemetry.csv").write_text(
        (storage.inbox / TAKEN / "telemetry.csv").read_text().replace(",2000,", ",2100,")
    )
    assert run(instance, "recording", TAKEN)
    found = status(instance, storage)
    assert found["future_labels"].outdated == {TAKEN: f"{storage.future_labels(TAKEN)} is gone"}
    told, cursor = tick(instance, storage, None)
    assert told == {"recording:all_are_taken": False, "recording:is_current": True, "future_labels:is_current": False}
    assert tick(instance, storage, cursor) == ({}, cursor)
    text = "\n".join(lines(list(found.values())))
    assert "1 of 4 materialised, 3 failed" in text and "forget NAME" in text
    lines_told: list[str] = []
    given = definitions().get_repository_def()
    assert materialize(given, instance, "future_labels", tell=lines_told.append, lacking_in=storage)
    assert "future_labels for 1 partition" in " ".join(lines_told)
    assert materialize(given, instance, "future_labels", tell=lines_told.append, lacking_in=storage)
    assert " ".join(lines_told).count("for 1 partition") == 1  # nothing lacks any more
    assert status(instance, storage)["future_labels"].outdated == {}
    assert tick(instance, storage, cursor)[0] == {"future_labels:is_current": True}
    storage.recording(TAKEN).rename(storage.root / "elsewhere")
    assert status(instance, storage)["recording"].outdated == {TAKEN: f"{storage.recording(TAKEN)} is gone"}
    assert tick(instance, storage, cursor)[0] == {"recording:is_current": False}


def test_a_partition_under_a_name_that_no_recording_can_have_is_removed_with_a_word(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    register_recordings(instance, [TAKEN])
    instance.add_dynamic_partitions(str(RECORDINGS.name), [MADE_UP])
    repository = definitions().get_repository_def()
    with dg.build_sensor_context(instance, repository_def=repository, resources={"storage": storage}) as given:
        result = status_sensor(given)
    assert isinstance(result, dg.SensorResult)
    (request,) = result.dynamic_partitions_requests or ()
    assert (type(request), request.partition_keys) == (dg.DeleteDynamicPartitionsRequest, [MADE_UP])
    assert str(result.skip_reason.skip_message).startswith(f"Removed, {NO_NAME}: '{MADE_UP}'.")
    assert [event.partition for event in result.asset_events if isinstance(event, dg.AssetObservation)] == [MADE_UP]


def test_what_a_run_works_on_is_not_forgotten(instance: dg.DagsterInstance, storage: Storage) -> None:
    """The run would write its result into a folder that has moved."""
    write_drive(storage.inbox / TAKEN, rows=4)
    register_recordings(instance, [TAKEN])
    refused: list[str] = []

    @dg.asset(name="annotations", partitions_def=RECORDINGS, deps=["recording"])
    def annotate() -> None:
        with pytest.raises(DataError) as error:
            forget(instance, storage, TAKEN)
        refused.append(str(error.value))

    assert run(instance, "recording", TAKEN)
    assert dg.materialize([annotate], instance=instance, partition_key=TAKEN).success
    assert refused[0].startswith(f"{TAKEN} is in use: run ") and "makes its annotations" in refused[0]
    assert storage.recording(TAKEN).is_dir()
    assert forget(instance, storage, TAKEN) is not None  # once that has ended


def test_what_is_forgotten_is_no_partition_and_its_files_and_history_stay(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    write_drive(storage.inbox / TAKEN, rows=4)
    register_recordings(instance, [TAKEN])
    assert run(instance, "recording,future_labels", TAKEN)
    aside = forget(instance, storage, TAKEN, "of another car")
    assert aside is not None and aside.parent == storage.recordings / ".removed" / TAKEN
    assert (aside / TAKEN / "future_labels.csv").is_file() and not storage.recording(TAKEN).exists()
    assert instance.get_dynamic_partitions(str(RECORDINGS.name)) == []
    history = instance.fetch_observations(dg.AssetKey("recording"), limit=1).records
    assert history[0].asset_observation is not None
    assert history[0].asset_observation.metadata["forgotten"].value == "of another car"
    assert status(instance, storage)["recording"].materialised == []
    with pytest.raises(DataError, match="does not exist"):
        forget(instance, storage, TAKEN)

    register_recordings(instance, [TAKEN])  # it may come back
    assert run(instance, "recording,future_labels", TAKEN)
    instance.add_dynamic_partitions(str(RECORDINGS.name), [MADE_UP])
    assert forget(instance, storage, MADE_UP) is None
    assert instance.get_dynamic_partitions(str(RECORDINGS.name)) == [TAKEN]


def test_a_look_that_takes_long_is_followed_by_rest(
    instance: dg.DagsterInstance, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 4.0])
    monkeypatch.setattr(upkeep.time, "thread_time", lambda: next(clock))
    monkeypatch.setattr(arrivals, "now", lambda: 1000.0)
    repository = definitions().get_repository_def()

    def tick(cursor: str | None) -> dg.SensorResult | dg.SkipReason:
        with dg.build_sensor_context(
            instance, cursor, repository_def=repository, resources={"storage": storage}
        ) as given:
            result = status_sensor(given)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    first = tick(None)
    assert isinstance(first, dg.SensorResult)
    assert isinstance(tick(first.cursor), dg.SkipReason)
    monkeypatch.setattr(arrivals, "now", lambda: 1121.0)
    monkeypatch.setattr(upkeep.time, "thread_time", lambda: 0.0)
    assert isinstance(tick(first.cursor), dg.SensorResult)
