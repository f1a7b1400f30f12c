"""The event log with kept connections: it writes what Dagster's own reads, and keeps few files open."""

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from drive_assets.partitions import RECORDINGS, register_recordings
from drive_assets.running.event_log import MOST_OPEN, KeptEventLog
from drive_assets.running.instance import open_instance
from drive_assets.running.materialize import RANGE_END, RANGE_START

KEY = dg.AssetKey("recording")


@pytest.fixture
def instance(data_root: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance() as instance:
        assert isinstance(instance.event_log_storage, KeptEventLog)
        yield instance


def test_its_files_are_those_of_dagsters_own(instance: dg.DagsterInstance, data_root: Path) -> None:
    @dg.asset
    def recording() -> None: ...

    assert dg.materialize([recording], instance=instance).success
    (run,) = instance.get_runs()
    own = SqliteEventLogStorage(str(data_root / "dagster" / "history" / "runs"))
    assert [entry.message for entry in own.get_logs_for_run(run.run_id)] == [
        entry.message for entry in instance.all_logs(run.run_id)
    ]
    instance.report_runless_asset_event(dg.AssetMaterialization("recording"))
    assert len(own.fetch_materializations(KEY, limit=5).records) == 2


def test_few_databases_stay_open_however_many_runs_are_read(instance: dg.DagsterInstance, data_root: Path) -> None:
    for number in range(MOST_OPEN + 10):
        assert instance.all_logs(f"00000000-0000-0000-0000-{number:012}") == []
    opened = {file.path for file in psutil.Process().open_files() if str(data_root) in file.path}
    assert len([path for path in opened if path.endswith(".db")]) <= MOST_OPEN + 3  # with those of runs and schedules


def test_a_batch_is_stored_as_a_whole_or_one_by_one(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what a run announces, when it is created."""
    names = [f"2024-05-0{day}_10-00-00" for day in range(1, 6)]
    register_recordings(instance, names)
    tags = {RANGE_START: names[0], RANGE_END: names[-1]}

    @dg.asset(partitions_def=RECORDINGS, backfill_policy=dg.BackfillPolicy.single_run())
    def recording() -> None: ...

    log = instance.event_log_storage
    assert isinstance(log, KeptEventLog)
    batches, store = list[int](), log.store_event_batch
    monkeypatch.setattr(log, "store_event_batch", lambda events: (batches.append(len(events)), store(events)))
    job = dg.Definitions([recording]).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, tags=tags).success
    (run,) = instance.get_runs()
    planned = instance.all_logs(run.run_id, of_type={dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED})
    assert len(planned) == 5 and 5 in batches
    assert instance.get_materialized_partitions(KEY) == set(names)

    one = instance.all_logs(run.run_id)[0]
    with pytest.raises(Exception, match="no event"):
        store([one, "no event"])  # type: ignore[list-item]
    assert len(instance.all_logs(run.run_id, of_type={dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED})) == 5


def test_threads_share_it(instance: dg.DagsterInstance) -> None:
    def report() -> None:
        for _ in range(20):
            instance.report_runless_asset_event(dg.AssetMaterialization("recording"))
            instance.get_latest_materialization_event(KEY)

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(instance.fetch_materializations(KEY, limit=100).records) == 80
