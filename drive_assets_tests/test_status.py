"""The status of assets, the checks that the sensor derives from it, and forgotten recordings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import dagster as dg
import pytest

from drive_assets.labels.assets import future_labels_asset
from drive_assets.partitions import RECORDINGS, register_recordings
from drive_assets.recordings.assets import recording
from drive_assets.recordings.forget import forget
from drive_assets.reports.records import failed_checks
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets.running.materialize import materialize
from drive_assets.splits.assets import h5_split, split_manifest
from drive_assets.status import AssetStatus, lines, read_status
from drive_assets.upkeep import status_sensor
from drive_assets_tests.drives import write_drive
from model.common.errors import DataError

DRIVE, BROKEN, UNKNOWN, MISNAMED = "2024-05-01_10-00-00", "2024-05-02_10-00-00", "2024-05-03_10-00-00", "my drive"


@pytest.fixture
def storage(data_root: Path) -> Storage:
    """A data root with a recording in its inbox."""
    storage = Storage.from_environment()
    write_drive(storage.inbox / DRIVE, rows=4)
    return storage


@pytest.fixture
def instance(storage: Storage) -> Iterator[dg.DagsterInstance]:
    with open_instance() as instance:
        register_recordings(instance, [DRIVE])
        yield instance


def definitions() -> dg.Definitions:
    return dg.Definitions([recording, future_labels_asset], resources={"storage": Storage.from_environment()})


def run(instance: dg.DagsterInstance, selection: str, *recordings: str, **options: Any) -> bool:
    return materialize(definitions().get_repository_def(), instance, selection, recordings=recordings, **options)


def status(instance: dg.DagsterInstance, storage: Storage) -> dict[str, AssetStatus]:
    return {each.asset: each for each in read_status(instance, definitions().resolve_asset_graph(), storage)}


def tick(instance: dg.DagsterInstance, storage: Storage, cursor: str | None = None) -> dg.SensorResult:
    repository = definitions().get_repository_def()
    with dg.build_sensor_context(instance, cursor, repository_def=repository, resources={"storage": storage}) as given:
        result = status_sensor(given)
    assert isinstance(result, dg.SensorResult)
    return result


def evaluations(result: dg.SensorResult) -> dict[str, bool]:
    """The checks that the sensor evaluates."""
    events = [event for event in result.asset_events or () if isinstance(event, dg.AssetCheckEvaluation)]
    return {f"{event.asset_key.to_user_string()}:{event.check_name}": event.passed for event in events}


def test_failed_outdated_and_missing_partitions(instance: dg.DagsterInstance, storage: Storage) -> None:
    write_drive(storage.inbox / BROKEN, rows=4)
    (storage.inbox / BROKEN / "telemetry.csv").write_text("Time\n")
    register_recordings(instance, [BROKEN, UNKNOWN])
    assert not run(instance, "recording", DRIVE, BROKEN)
    assert run(instance, "future_labels", DRIVE)
    statuses = status(instance, storage)
    drives = statuses["recording"]
    assert (drives.materialised, drives.missing) == ([DRIVE], [BROKEN, UNKNOWN])
    assert drives.failed[BROKEN].startswith(str(storage.inbox / BROKEN / "telemetry.csv"))
    assert UNKNOWN not in drives.failed
    assert (statuses["future_labels"].materialised, statuses["future_labels"].outdated) == ([DRIVE], {})

    # The recording arrives with other content: the labels of the earlier one are moved aside with it.
    telemetry = storage.inbox / DRIVE / "telemetry.csv"
    telemetry.write_text(telemetry.read_text().replace(",2000,", ",2100,"))
    assert run(instance, "recording", DRIVE)
    statuses = status(instance, storage)
    gone = f"{storage.future_labels(DRIVE)} is gone"
    assert statuses["future_labels"].outdated == {DRIVE: gone}
    text = "\n".join(lines(list(statuses.values())))
    doubt = "4 rows are less than a window of 20"
    assert statuses["recording"].doubtful[DRIVE].endswith(f"; {doubt}")
    assert f"recording, doubtful:\n  {DRIVE}: the lowest accelerator position" in text
    (event,) = instance.fetch_materializations(dg.AssetKey("recording"), limit=1).records
    assert (
        event.asset_materialization
        and event.asset_materialization.metadata["doubtful"].value == statuses["recording"].doubtful[DRIVE]
    )
    assert f"1 of 3 materialised, 1 failed, 1 doubtful; missing: {UNKNOWN}" in text and "forget NAME" in text
    first = tick(instance, storage)
    assert evaluations(first) == {
        "recording:all_are_taken": False,
        "recording:none_is_doubtful": False,
        "recording:is_current": True,
        "future_labels:is_current": False,
    }
    assert evaluations(tick(instance, storage, first.cursor)) == {}
    log: list[str] = []
    assert run(instance, "*", tell=log.append, dry_run_in=storage)
    assert log[0] == "[1/2] recording: 1 up to date, 1 failed, 1 missing" and BROKEN in log[1]
    assert log[2:] == ["[2/2] future_labels: 2 missing, 1 out of date", f"  {DRIVE}: {gone}"]
    log.clear()
    for _ in range(2):
        assert run(instance, "future_labels", tell=log.append, needed_in=storage)
    assert " ".join(log).count("future_labels for 1 partition") == 1  # the second time nothing is missing
    assert evaluations(tick(instance, storage, first.cursor)) == {"future_labels:is_current": True}
    storage.recording(DRIVE).rename(storage.root / "elsewhere")
    assert status(instance, storage)["recording"].outdated == {DRIVE: f"{storage.recording(DRIVE)} is gone"}


def test_keys_and_doubts_of_many_recordings_take_few_queries(instance: dg.DagsterInstance) -> None:
    names = [f"2024-06-01_{n // 60 % 24:02}-{n % 60:02}-{n // 1440:02}" for n in range(2500)]
    added = Mock(wraps=instance.add_dynamic_partitions)
    with patch.object(instance, "add_dynamic_partitions", added):
        register_recordings(instance, names)
    assert [len(call.args[1]) for call in added.call_args_list] == [1000, 1000, 500]
    key = dg.AssetCheckKey(dg.AssetKey("recording"), "few_faults")
    for name in names[:6]:
        doubt = {"passed": name == names[0], "description": f"{name}: lost 30 %", "metadata": {}}
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, partition=name, **doubt)
        )
    asked = Mock(wraps=instance.event_log_storage.get_asset_check_execution_history)
    single = Mock(side_effect=AssertionError)
    with (
        patch("drive_assets.reports.records.PER_QUERY", 4),
        patch.object(instance.event_log_storage, "get_asset_check_execution_history", asked),
        patch.object(instance.event_log_storage, "get_latest_asset_check_execution_by_key", single),
    ):
        doubts = failed_checks(instance, [key])
    assert (doubts, asked.call_count) == ({name: ["lost 30 %"] for name in names[5:0:-1]}, 2)


def test_damaged_outputs_are_out_of_date(instance: dg.DagsterInstance, storage: Storage) -> None:
    graph = dg.Definitions([split_manifest, h5_split], resources={"storage": storage}).resolve_asset_graph()
    storage.splits.mkdir(parents=True)
    for path in (storage.manifest, storage.split("train")):
        path.write_text("damaged")
    for asset, partition in (("split_manifest", None), ("h5_split", "train"), ("h5_split", "val")):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))
    statuses = {each.asset: each.outdated for each in read_status(instance, graph, storage)}
    assert f"{storage.manifest} is not valid JSON" in statuses["split_manifest"][""]
    assert f"{storage.split('train')} cannot be read" in statuses["h5_split"]["train"]
    assert statuses["h5_split"]["val"] == f"{storage.split('val')} is gone"


def test_a_recording_in_use_is_not_forgotten(instance: dg.DagsterInstance, storage: Storage) -> None:
    """The run would write its result into a folder that has moved."""
    refusals: list[str] = []

    @dg.asset(name="annotations", partitions_def=RECORDINGS, deps=["recording"])
    def annotate() -> None:
        with pytest.raises(DataError) as error:
            forget(instance, storage, DRIVE)
        refusals.append(str(error.value))

    assert run(instance, "recording", DRIVE)
    assert dg.materialize([annotate], instance=instance, partition_key=DRIVE).success
    assert refusals[0].startswith(f"{DRIVE} is in use: run ") and "makes its annotations" in refusals[0]
    assert storage.recording(DRIVE).is_dir()
    assert forget(instance, storage, DRIVE) is not None  # once the run has ended


def test_a_forgotten_recording_keeps_its_files_and_history(instance: dg.DagsterInstance, storage: Storage) -> None:
    assert run(instance, "recording,future_labels", DRIVE)
    aside = forget(instance, storage, DRIVE, "of another car")
    assert aside is not None and aside.parent == storage.recordings / ".removed" / DRIVE
    assert (aside / DRIVE / "future_labels.csv").is_file() and not storage.recording(DRIVE).exists()
    assert instance.get_dynamic_partitions(str(RECORDINGS.name)) == []
    observation = instance.fetch_observations(dg.AssetKey("recording"), limit=1).records[0].asset_observation
    assert observation is not None and observation.metadata["forgotten"].value == "of another car"
    assert status(instance, storage)["recording"].materialised == []
    with pytest.raises(DataError, match="does not exist"):
        forget(instance, storage, DRIVE)

    register_recordings(instance, [DRIVE])  # it may come back
    assert run(instance, "recording,future_labels", DRIVE)
    instance.add_dynamic_partitions(str(RECORDINGS.name), [MISNAMED])
    assert forget(instance, storage, MISNAMED) is None
    assert instance.get_dynamic_partitions(str(RECORDINGS.name)) == [DRIVE]
