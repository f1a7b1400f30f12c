"""Dagster's instance, which the UI, the daemon and the command line share, and the runs that commands execute."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
from filelock import FileLock, Timeout

from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.running.home import POSTGRES, prepare_home
from model.common.errors import DataError
from model.common.progress import Tell

PROCESS_TAG = "drive_assets/process"
UNFINISHED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
POLL_S = 1.0
_leases: dict[Path, FileLock] = {}


def open_instance() -> dg.DagsterInstance:
    """The instance, rid of runs that a killed command left.

    Raises:
        DataError: it cannot be opened, say because a database in DAGSTER_HOME is damaged.
    """
    home = prepare_home()
    try:
        instance = dg.DagsterInstance.get()
        end_lost_runs(instance)
    except Exception as error:  # of sqlalchemy, alembic, yaml and Dagster itself
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if os.environ.get(POSTGRES):
            raise DataError(
                f"Dagster's PostgreSQL cannot be used ({reason}): start it, or put its address right in {POSTGRES}."
            ) from None  # the error's own cause may show the address
        raise DataError(
            f"Dagster's files in {home} cannot be used ({reason}): move the folder aside. Recordings, models and the "
            "rest of the data root stay; only the list of what ran is lost, and `drive-assets ingest` and `run` make "
            "it anew."
        ) from error
    return instance


def process_tag() -> dict[str, str]:
    """Tag of a run that this process executes itself: the daemon does not watch over such runs."""
    return {PROCESS_TAG: f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.0f}"}


def hold_lease(instance: dg.DagsterInstance) -> None:
    """Show that this process lives, to commands on this host and others: it holds a lock until it ends, however.

    Raises:
        DataError: the file system of DAGSTER_HOME has no locks.
    """
    path = _lease(instance, process_tag()[PROCESS_TAG])
    if path not in _leases:
        path.parent.mkdir(parents=True, exist_ok=True)
        _leases[path] = FileLock(path)
        try:
            _leases[path].acquire()
        except (OSError, NotImplementedError) as error:
            raise DataError(
                f"{path} cannot be locked ({error}): choose a DAGSTER_HOME on a file system with locks."
            ) from error


def end_lost_runs(instance: dg.DagsterInstance) -> None:
    """A run whose process was killed seems to go on, and its place in a pool stays taken: end it and free the place."""
    lost = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        process = run.tags.get(PROCESS_TAG, "")
        if process and process not in process_tag().values() and not _is_alive(instance, process):
            instance.report_run_failed(run, "The command that executed this run was killed. Run it again.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            lost.add(run.run_id)
    for path in _lease(instance, "").parent.glob("*.lock"):
        if not _is_alive(instance, "/".join(path.stem.rsplit("_", 2))):
            path.unlink(missing_ok=True)
    if lost:
        with contextlib.suppress(DataError):  # a store that fails now is told of when it is needed
            Mlflow.from_environment().end(lost)


def end_interrupted_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """A run that the user ended is canceled: Dagster, which was not asked to end it, takes it for failed."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED):
        instance.report_run_canceled(run, message="The user ended the command that executed this run.")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def wait_for_pools(instance: dg.DagsterInstance, pools: Collection[str], tell: Tell) -> None:
    """Until each pool has a free place; says what it waits for. Dagster would wait in silence, deaf to signals."""
    told: set[str] = set()
    while full := {run for pool in pools for run in _holders(instance, pool)}:
        if full != told:
            runs = ", ".join(sorted(run[:8] for run in full))
            tell(f"  Waits for pool {', '.join(pools)}, which run {runs} holds; Ctrl-C ends the waiting.")
            told = full
        time.sleep(POLL_S)
        end_lost_runs(instance)


def _holders(instance: dg.DagsterInstance, pool: str) -> set[str]:
    """The runs that hold a pool that is full; places of runs that have ended are freed."""
    info = instance.event_log_storage.get_concurrency_info(pool)
    for run_id in info.active_run_ids:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
            return _holders(instance, pool)
    limit = info.limit if info.limit is not None else info.slot_count
    return info.active_run_ids if limit and info.active_slot_count >= limit else set()


@contextmanager
def interrupts_heard() -> Iterator[None]:
    """SIGINT and SIGTERM in the block are not lost, though Dagster drops those that come between two of its steps.

    Raises:
        KeyboardInterrupt: at the end of the block, if one came and the block did not end by it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
        with contextlib.suppress(BlockingIOError):
            if {signal.SIGINT, signal.SIGTERM} & set(os.read(reader, 4096)):
                raise KeyboardInterrupt
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _lease(instance: dg.DagsterInstance, process: str) -> Path:
    return Path(instance.root_directory) / "processes" / f"{process.replace('/', '_')}.lock"


def _is_alive(instance: dg.DagsterInstance, process: str) -> bool:
    """Whether the process `host/pid/start` still runs. One of another host is known by its lease."""
    host, pid, start = process.split("/")
    if host == socket.gethostname():
        try:
            if f"{psutil.Process(int(pid)).create_time():.0f}" == start:
                return True
        except psutil.NoSuchProcess:
            pass
    path = _lease(instance, process)
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
