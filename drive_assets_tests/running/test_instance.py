"""The instance, its settings, and runs that commands execute: lost runs, full pools, signals, advice on errors."""

import errno
import os
import signal
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import dagster as dg
import pytest
from dagster._utils.interrupts import capture_interrupts  # what Dagster does between steps
from filelock import FileLock

from drive_assets.resources.storage import Storage
from drive_assets.running import instance as instances
from drive_assets.running.database_errors import explain
from drive_assets.running.home import SETTINGS, _stamped, prepare_home
from drive_assets.running.instance import (
    GPU_POOL,
    PROCESS_TAG,
    end_lost_runs,
    lease,
    open_instance,
    set_default_limit,
    wait_for_pools,
)
from drive_assets.running.interrupts import raise_missed_interrupts
from drive_assets.running.ui import LOGS
from model.common.errors import DataError

ELSEWHERE = "another-host/7/1700000000"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def add_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, process: str) -> str:
    run_id = str(uuid.uuid4())
    tags = {PROCESS_TAG: process} if process else {}
    instance.add_run(dg.DagsterRun(job_name="job", run_id=run_id, status=status, tags=tags))
    return run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


@pytest.mark.parametrize("status", instances.UNFINISHED)
@pytest.mark.parametrize("process", [ELSEWHERE, f"{os.uname().nodename}/99999999/1700000000"])
def test_runs_of_dead_processes_end_in_any_state_and_on_any_host(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, process: str
) -> None:
    lost = add_run(instance, status, process)
    of_the_daemon = add_run(instance, status, "")
    end_lost_runs(instance)
    assert status_of(instance, lost) == "FAILURE"
    assert status_of(instance, of_the_daemon) == status.value


@pytest.mark.parametrize("host", ["another-host", os.uname().nodename])
def test_a_run_stays_while_its_process_holds_its_lease(instance: dg.DagsterInstance, host: str) -> None:
    run_id = add_run(instance, dg.DagsterRunStatus.STARTED, f"{host}/{os.getpid()}/1700000000")
    lease = Path(instance.root_directory) / "processes" / f"{host}_{os.getpid()}_1700000000.lock"
    lease.parent.mkdir()
    with FileLock(lease):
        end_lost_runs(instance)
        assert status_of(instance, run_id) == "STARTED"
    lease.touch()
    end_lost_runs(instance)
    assert status_of(instance, run_id) == "FAILURE"
    assert not lease.exists()


def test_the_lease_of_a_command_ends_with_it_and_those_of_killed_ones_are_removed(instance: dg.DagsterInstance) -> None:
    folder = Path(instance.root_directory) / "processes"
    with lease(instance) as tag:
        run_id = add_run(instance, dg.DagsterRunStatus.STARTED, tag[PROCESS_TAG])
        (own,) = folder.iterdir()
        (folder / f"{os.uname().nodename}_99999999_1700000000.lock").touch()
        end_lost_runs(instance)
        assert (list(folder.iterdir()), status_of(instance, run_id)) == ([own], "STARTED")
    assert list(folder.iterdir()) == []


def test_a_file_system_without_locks_is_named(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with (
        pytest.raises(DataError, match=r"No locks available\. Choose a data root on a file system with locks"),
        lease(instance),
    ):
        pass


def test_a_full_pool_is_reported_and_waited_for(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, reported, waits = instance.event_log_storage, list[str](), list[float]()
    storage.set_concurrency_slots("gpu", 1)
    holder = add_run(instance, dg.DagsterRunStatus.STARTED, "")
    assert storage.claim_concurrency_slot("gpu", holder, "step").is_claimed

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            run = instance.get_run_by_id(holder)
            assert run is not None
            instance.report_run_failed(run)

    monkeypatch.setattr(instances, "time", SimpleNamespace(sleep=sleep))
    wait_for_pools(instance, {"gpu"}, reported.append)
    assert reported == [f"  Waiting for pool gpu, held by run {holder[:8]}. Press Ctrl-C to stop."]
    assert len(waits) == 3
    assert storage.get_concurrency_info("gpu").active_slot_count == 0


def test_the_limit_of_the_gpu_pool_is_the_computes_until_somebody_sets_one(instance: dg.DagsterInstance) -> None:
    events = instance.event_log_storage
    for wanted, expected in ((30, 30), (1, 1), (30, 30)):
        set_default_limit(instance, wanted)
        assert [pool.limit for pool in events.get_pool_limits() if pool.name == GPU_POOL] == [expected]
    events.set_concurrency_slots(GPU_POOL, 5)  # as the UI does
    set_default_limit(instance, 1)
    assert [pool.limit for pool in events.get_pool_limits() if pool.name == GPU_POOL] == [5]


@pytest.fixture
def handlers_kept() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_steps_is_not_lost(number: signal.Signals, handlers_kept: None) -> None:
    with pytest.raises(KeyboardInterrupt), raise_missed_interrupts(), capture_interrupts():
        os.kill(os.getpid(), number)  # Dagster's block notes it, and forgets it at its end
    with raise_missed_interrupts():
        pass


def test_a_damaged_database_is_named_with_what_to_do(data_root: Path) -> None:
    open_instance().dispose()
    for path in (data_root / "dagster").rglob("*.db"):
        path.write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match=f"records in {data_root / 'dagster'} cannot be used .*move the folder aside"):
        open_instance()


@pytest.mark.parametrize(
    ("slip", "reason"),
    [("run_cordinator: {}\n", "run_cordinator"), ("telemetry: [\n", "parsing")],
)
def test_a_slip_in_the_settings_names_the_file_and_discards_nothing(data_root: Path, slip: str, reason: str) -> None:
    path = prepare_home() / SETTINGS
    path.write_text(slip)
    with pytest.raises(DataError, match=f"{path} .*{reason}.*: correct the file, or delete it"):
        open_instance()


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("database is locked", "Another process uses it"),
        ("attempt to write a readonly database", "Allow this user to write"),
        ("unable to open database file", "Check that the folder exists"),
        ("disk I/O error", "Either memory ran out (also a limit of memory, see `ulimit -v`)"),
        ("disk I/O error", "check the disk"),
        ("database or disk is full", "MB are free: free some"),
        ("database disk image is malformed", "move the folder aside"),
    ],
)
def test_the_reason_decides_the_advice(tmp_path: Path, reason: str, advice: str) -> None:
    text = explain(sqlite3.OperationalError(reason), tmp_path)
    assert reason in text and advice in text
    assert ("move the folder aside" in text) == ("malformed" in reason)


def test_a_full_disk_and_exhausted_inodes_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite reports either as an I/O error."""
    for free, inodes, advice in ((100, 100, "0 MB are free"), (10**6, 0, "no inodes are free")):
        disk = SimpleNamespace(f_bavail=free, f_frsize=4096, f_favail=inodes)
        monkeypatch.setattr(os, "statvfs", lambda path, disk=disk: disk)
        assert advice in explain(sqlite3.OperationalError("disk I/O error"), tmp_path)


def test_dagsters_servers_upload_no_logs(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would every hour, despite dagster.yaml, if there is a folder called `logs`."""
    monkeypatch.delenv("DAGSTER_DISABLE_TELEMETRY", raising=False)
    prepare_home()
    assert os.environ["DAGSTER_DISABLE_TELEMETRY"] == "1" and LOGS != "logs"


def test_unedited_settings_follow_the_version_and_edited_ones_stay(data_root: Path) -> None:
    path = prepare_home() / SETTINGS
    current = path.read_text()
    path.write_text(_stamped("telemetry: {enabled: false}\n"))  # as an earlier version wrote it
    prepare_home()
    assert path.read_text() == current
    for edited in (
        current.replace("max_concurrent_runs: 4", "max_concurrent_runs: 8"),
        "telemetry: {enabled: false}\n",
    ):
        path.write_text(edited)
        prepare_home()
        assert path.read_text() == edited


@pytest.mark.parametrize(
    "name", ["../../../outside", "2024-05-01_10-00-00/..", "", "2024-13-01_10-00-00", "２０２４-05-01_10-00-00"]
)
def test_invalid_keys_make_no_paths(name: str) -> None:
    storage = Storage(data_root="/data", inbox_root="/inbox")
    for path in (storage.recording, storage.annotations, storage.future_labels):
        with pytest.raises(DataError, match="expected the drive's start"):
            path(name)
    for path in (storage.split, storage.checkpoint, storage.evaluation):
        with pytest.raises(DataError, match="Unknown "):
            path(name)
