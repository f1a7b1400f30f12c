"""Dagster's instance, which the UI, the daemon and the command line share, and the runs that commands execute."""

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.running.database_errors import explain
from drive_assets.running.home import POSTGRES, prepare_home
from model.common.errors import DataError
from model.common.files import explained_errors
from model.common.progress import Log

PROCESS_TAG = "drive_assets/process"
"""Tag of a run that a command executes, not Dagster's daemon: `host/process id/unique name`."""
UNFINISHED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
POLL_S = 1.0
GPU_POOL = "gpu"
_DEFAULT = "drive_assets/default of pool gpu"
"""Key in Dagster's store of the limit that was set here last."""


def open_instance() -> dg.DagsterInstance:
    """The instance, after runs of killed commands are ended.

    Raises:
        DataError: it cannot be opened, for example because a database in DAGSTER_HOME is damaged.
    """
    home = prepare_home()
    try:
        instance = dg.DagsterInstance.get()
        end_lost_runs(instance)
    except Exception as error:  # of sqlalchemy, alembic, yaml and Dagster itself
        # An error of PostgreSQL may show the address, with its password.
        raise DataError(explain(error, home)) from (None if os.environ.get(POSTGRES) else error)
    return instance


@contextmanager
def lease(instance: dg.DagsterInstance) -> Iterator[dict[str, str]]:
    """The tag of runs that this process executes in the block.

    A file is locked until the block or this process ends, however it ends: to other commands, on any host, its runs are
    in progress.

    Raises:
        DataError: the file system has no locks, or cannot be written to.
    """
    process = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    path = _lease(instance, process)
    lock = FileLock(path.with_suffix(".new"))
    with explained_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        Path(lock.lock_file).rename(path)  # nobody ever sees it unlocked, and removes it
    try:
        yield {PROCESS_TAG: process}
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def end_lost_runs(instance: dg.DagsterInstance) -> None:
    """End the runs of killed commands, which would stay in progress and keep their places in pools."""
    lost = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        process = run.tags.get(PROCESS_TAG)
        if process and not _is_locked(_lease(instance, process)):
            instance.report_run_failed(run, "The command that executed this run was killed. Run it again.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            lost.add(run.run_id)
    for path in _folder(instance).glob("*.lock"):
        if not _is_locked(path):
            path.unlink(missing_ok=True)
    if lost:
        with contextlib.suppress(DataError):  # an MLflow store that fails is reported where it is needed
            Mlflow.from_environment().end(lambda run_id: run_id in lost)


def end_interrupted_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Mark a run as canceled that the user ended: Dagster, which was not asked to end it, marks it as failed."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED):
        instance.report_run_canceled(run, message="The command that executed this run was interrupted.")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def wait_for_pools(instance: dg.DagsterInstance, pools: Collection[str], tell: Log) -> None:
    """Wait until each pool has a free place. Dagster would wait without a word, and without reacting to Ctrl-C."""
    reported: set[str] = set()
    while holders := {run for pool in pools for run in _holders(instance, pool)}:
        if holders != reported:
            runs = ", ".join(sorted(run[:8] for run in holders))
            tell(f"  Waiting for pool {', '.join(pools)}, held by run {runs}. Press Ctrl-C to stop.")
            reported = holders
        time.sleep(POLL_S)
        end_lost_runs(instance)


def set_default_limit(instance: dg.DagsterInstance, limit: int) -> None:
    """Set how many ops do GPU work at the same time, unless somebody has set another limit in the UI."""
    events, store = instance.event_log_storage, instance.daemon_cursor_storage
    current = {pool.name: pool.limit for pool in events.get_pool_limits() if not pool.from_default}.get(GPU_POOL)
    if current != limit and (current is None or str(current) == store.get_cursor_values({_DEFAULT}).get(_DEFAULT)):
        events.set_concurrency_slots(GPU_POOL, limit)
        store.set_cursor_values({_DEFAULT: str(limit)})


def local_pid(instance: dg.DagsterInstance, process: str) -> int | None:
    """Process id of a run's tag; None if the process has ended, or runs on another host."""
    host, pid, _ = process.split("/")
    return int(pid) if host == socket.gethostname() and _is_locked(_lease(instance, process)) else None


def _holders(instance: dg.DagsterInstance, pool: str) -> set[str]:
    """The runs that hold a full pool. Places of runs that have ended are freed."""
    info = instance.event_log_storage.get_concurrency_info(pool)
    for run_id in info.active_run_ids:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
            return _holders(instance, pool)
    limit = info.limit if info.limit is not None else info.slot_count
    return info.active_run_ids if limit and info.active_slot_count >= limit else set()


def _folder(instance: dg.DagsterInstance) -> Path:
    return Path(instance.root_directory) / "processes"


def _lease(instance: dg.DagsterInstance, process: str) -> Path:
    return _folder(instance) / f"{process.replace('/', '_')}.lock"


def _is_locked(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
