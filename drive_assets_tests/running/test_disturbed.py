"""Disturbed runs: two of the same partition, a cancelled backfill, a terminated command, a daemon that dies."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from drive_assets.partitions import register_recordings
from drive_assets.recordings.assets import recording
from drive_assets.recordings.ingest import lock_of
from drive_assets.recordings.local import find_all
from drive_assets.recordings.sources import register
from drive_assets.resources.storage import Storage
from drive_assets.running.home import SETTINGS, prepare_home
from drive_assets.running.instance import PROCESS_TAG, open_instance
from drive_assets.running.run_launcher import LOST
from drive_assets_tests.drives import write_drive
from drive_assets_tests.running.daemon import backfill_status, daemon, kill, launch_backfill
from drive_assets_tests.waiting import until
from model.common.errors import DataError
from model.common.files import locked

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 4)]
RECORDING = dg.AssetKey("recording")
HELD = "is being ingested by process"

defs = dg.Definitions([recording], executor=dg.in_process_executor, resources={"storage": Storage.from_environment()})
DEFS = ("-m", __name__, "-a", "defs")
"""The daemon's definitions. Its process reads the data root from its own environment."""


@pytest.fixture
def storage(data_root: Path) -> Storage:
    return Storage.from_environment()


@pytest.fixture
def instance(data_root: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance() as instance:
        yield instance


def log(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    return "\n".join(entry.message for entry in instance.all_logs(run.run_id))


def ingested(instance: dg.DagsterInstance) -> set[str]:
    return instance.get_materialized_partitions(RECORDING)


def backfill(instance: dg.DagsterInstance, names: Sequence[str], name: str) -> Callable[[], BulkActionStatus]:
    """Launch a backfill; returns a function that returns its status."""
    launch_backfill(instance, defs.resolve_asset_graph(), "recording", names, name)
    return lambda: backfill_status(instance, name)


@pytest.mark.timeout(600)
def test_two_commands_that_ingest_the_same_recording_wait_for_each_other_and_report_it(
    instance: dg.DagsterInstance, storage: Storage, tmp_path: Path
) -> None:
    drive = write_drive(tmp_path / NAMES[0], rows=8)
    command = [sys.executable, "-m", "drive_assets.cli", "ingest", str(drive)]
    with locked(lock_of(storage, NAMES[0])):
        both = [subprocess.Popen(command) for _ in range(2)]
        until(lambda: sum(HELD in log(instance, run) for run in instance.get_runs()) == 2, "both commands wait", 240)
        assert ingested(instance) == set()
    assert [process.wait(240) for process in both] == [0, 0]
    changes = [
        record.asset_materialization.metadata["change"].value
        for record in instance.fetch_materializations(RECORDING, limit=5).records
        if record.asset_materialization is not None
    ]
    assert sorted(map(str, changes)) == ["new", "unchanged"]
    assert [run.status.value for run in instance.get_runs()] == ["SUCCESS"] * 2
    assert len(list(storage.recording(NAMES[0]).glob("*.jpg"))) == 8


@pytest.mark.timeout(600)
def test_the_ui_terminates_a_run_of_a_command(instance: dg.DagsterInstance, storage: Storage, tmp_path: Path) -> None:
    drive = write_drive(tmp_path / NAMES[0], rows=8)
    with locked(lock_of(storage, NAMES[0])):
        process = subprocess.Popen([sys.executable, "-m", "drive_assets.cli", "ingest", str(drive)])
        until(lambda: any(HELD in log(instance, run) for run in instance.get_runs()), "the command waits", 240)
        (run,) = instance.get_runs()
        assert instance.run_coordinator.cancel_run(run.run_id)  # as the UI's Terminate does
        assert process.wait(60) == 130
    assert [run.status.value for run in instance.get_runs()] == ["CANCELED"]
    assert ingested(instance) == set()


def test_a_run_of_a_command_on_another_machine_is_terminated_there(instance: dg.DagsterInstance) -> None:
    run = dg.DagsterRun(job_name="job", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: "another-host/7/a1b2"})
    instance.add_run(run)
    with pytest.raises(DataError, match="Process 7 on another-host executes this run"):
        instance.run_launcher.terminate(run.run_id)
    assert [run.status.value for run in instance.get_runs()] == ["STARTED"]


def held_at(instance: dg.DagsterInstance, name: str, backfill: str) -> bool:
    """Whether a run of a backfill waits for a recording that this process holds."""
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
    return any(f"{name} {HELD}" in log(instance, run) for run in runs)


def cancel(instance: dg.DagsterInstance, name: str) -> None:
    found = instance.get_backfill(name)
    assert found is not None
    instance.update_backfill(found.with_status(BulkActionStatus.CANCELING))


@pytest.mark.timeout(900)
def test_backfills_resume_after_a_cancellation_a_power_failure_and_a_killed_daemon(
    data_root: Path, tmp_path: Path
) -> None:
    settings = prepare_home() / SETTINGS
    settings.write_text(settings.read_text().replace("poll_interval_seconds: 30", "poll_interval_seconds: 2"))
    storage, log_file = Storage.from_environment(), tmp_path / "daemon.log"
    drives = [write_drive(tmp_path / name, rows=8, seed=seed) for seed, name in enumerate(NAMES)]
    register(storage, find_all(drives)[0])
    with open_instance() as instance:
        register_recordings(instance, NAMES)
        with daemon(log_file, *DEFS) as first:
            with locked(lock_of(storage, NAMES[1])):
                cancelled = backfill(instance, NAMES, "cancelled")
                until(lambda: held_at(instance, NAMES[1], "cancelled"), "the backfill waits", 240)
                cancel(instance, "cancelled")
                until(lambda: cancelled() == BulkActionStatus.CANCELED, "the backfill is cancelled", 240)
            assert ingested(instance) == {NAMES[0]}
            with locked(lock_of(storage, NAMES[2])):
                lost = backfill(instance, NAMES[1:], "lost")  # what is missing
                until(lambda: held_at(instance, NAMES[2], "lost"), "the backfill waits", 240)
                for process in [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]:
                    kill(process)
        with daemon(log_file, *DEFS) as second:
            until(lambda: lost() == BulkActionStatus.COMPLETED_FAILED, "the lost backfill ends", 240)
            assert ingested(instance) == set(NAMES[:2])
            with locked(lock_of(storage, NAMES[2])):
                finished = backfill(instance, NAMES[2:], "finished")
                until(lambda: held_at(instance, NAMES[2], "finished"), "the backfill waits", 240)
                left = psutil.Process(second.pid).children(recursive=True)
                second.kill()
                second.wait()
        with daemon(log_file, *DEFS):
            until(lambda: finished() == BulkActionStatus.COMPLETED_SUCCESS, "the backfill succeeds", 240)
        for process in left:  # a code server waits some time for its daemon
            kill(process)
        assert ingested(instance) == set(NAMES)
        made = instance.fetch_materializations(RECORDING, limit=9).records
        assert sorted(str(record.partition_key) for record in made) == NAMES  # each once
        last, failed, canceled = instance.get_runs()
        assert [run.status.value for run in (last, failed, canceled)] == ["SUCCESS", "FAILURE", "CANCELED"]
        assert LOST in log(instance, failed)
