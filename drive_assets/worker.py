"""The process that a GPU step runs in: Dagster Pipes on one side, `model` on the other.

`python -m drive_assets.worker` takes a task and its jobs from Pipes, does one job after the other, and reports a result
or an error for each.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
from dagster_pipes import PipesContext, open_dagster_pipes
from filelock import FileLock, Timeout

from drive_assets.resources.cluster.job_folder import read_messages
from drive_assets.resources.mlflow.tracking import JOB_LOCK
from drive_assets.tasks import ENDING, TASKS, Task, end_if_time_is_up
from drive_assets.wire import Failed, Report, Work, from_wire, reports_of, to_wire, version
from model.common.errors import DataError, PassingError
from model.common.processes import die_with_parent
from model.common.progress import Tell

LOCK_S = 5.0
MEMORY_S = 0.25


def main() -> None:
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _end_with_children)
    signal.signal(signal.SIGUSR1, lambda *_: ENDING.set())
    with open_dagster_pipes() as pipes:
        work = from_wire(Work, pipes.extras)
        if work.parent:
            die_with_parent(work.parent)
        if work.reports:
            _watch_memory(Path(work.reports))
        lock = _alone(work, pipes)
        done = reports_of(read_messages(Path(work.reports))) if work.reports else {}
        for number, job in enumerate(work.jobs):
            if number in done:
                continue
            end_if_time_is_up()
            report = _refusal(work, number) or _report(pipes, TASKS[work.task], number, job)
            pipes.report_custom_message(to_wire(report))
        if lock is not None:
            lock.release()


def _watch_memory(messages: Path) -> None:
    """Have a process beside this one note the most memory that this one and its children hold, as it grows.

    Who is killed for memory cannot tell of it afterwards, and not each cluster can. A thread would wait for this one.
    """
    worker, path = psutil.Process(), messages.with_name(messages.name.replace(".messages.jsonl", ".memory"))
    if os.fork():
        return
    die_with_parent(worker.pid)
    most = 0
    while True:
        held = 0
        for process in (worker, *worker.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                held += process.memory_info().rss if process.pid != os.getpid() else 0
        if held > 1.01 * most:
            most = held
            with contextlib.suppress(OSError):
                path.write_text(str(most))
        time.sleep(MEMORY_S)


def _alone(work: Work, pipes: PipesContext) -> FileLock | None:
    """The lock of a cluster's job, once no other process has it: one that the cluster takes for lost may still run."""
    if not work.reports:
        return None
    lock, told = FileLock(Path(work.reports).with_name(".lock")), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=LOCK_S)
        except Timeout:
            end_if_time_is_up()
            if not told:
                _log(pipes)("Waiting for another process that does the same work: the cluster may have lost its node.")
                told = True
    os.environ[JOB_LOCK] = str(lock.lock_file)
    return lock


def _refusal(work: Work, number: int) -> Report | None:
    """The report that says that op and worker are not of the same version, if so."""
    if work.version in ("", version()):
        return None
    here = f"{os.uname().nodename} has {version()} of drive-assets in {sys.prefix}"
    text = f"{here}, the Dagster side has {work.version}: install the same version on both, or let them share one."
    return Report(number, Failed(text))


def _log(pipes: PipesContext) -> Tell:
    """Lines go to the run's log, which the UI shows, and to the terminal."""

    def tell(line: str) -> None:
        print(line, flush=True)
        pipes.log.info(line)

    return tell


def _report(pipes: PipesContext, task: Task[Any, Any], number: int, job: Any) -> Report:
    try:
        return Report(number, value=to_wire(task.do(from_wire(task.job, job), _log(pipes))))
    except DataError as error:
        pipes.log.error(str(error))
        return Report(number, Failed(str(error), isinstance(error, PassingError)))
    except Exception as error:  # the other jobs go on; the op fails in the end, and names this one
        pipes.log.error(traceback.format_exc())
        return Report(number, Failed(f"{type(error).__name__}: {error}"))


def _end_with_children(number: int, _: object) -> None:
    """End this process and all that it started: torch's launcher of several GPUs gives each a session of its own.

    Nothing may be imported here, since the signal may come in the midst of an import, nor anything raised: whatever is
    running might catch it.
    """
    try:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
