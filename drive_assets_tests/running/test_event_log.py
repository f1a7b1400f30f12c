"""The event log with kept connections: it writes what Dagster's own reads, and keeps few files open."""

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from drive_assets.running.event_log import MAX_OPEN, KeptEventLog
from drive_assets.running.instance import open_instance

KEY = dg.AssetKey("recording")


@pytest.fixture
def instance(data_root: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance() as instance:
        assert isinstance(instance.event_log_storage, KeptEventLog)
        yield instance


def test_it_writes_the_files_of_dagsters_own_log(instance: dg.DagsterInstance, data_root: Path) -> None:
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
    for number in range(MAX_OPEN + 10):
        assert instance.all_logs(f"00000000-0000-0000-0000-{number:012}") == []
    opened = {file.path for file in psutil.Process().open_files() if str(data_root) in file.path}
    assert len([path for path in opened if path.endswith(".db")]) <= MAX_OPEN + 3  # with those of runs and schedules


def test_threads_can_share_it(instance: dg.DagsterInstance) -> None:
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
