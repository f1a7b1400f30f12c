"""The process that GPU work runs in: Dagster Pipes on one side, `model` on the other.

`python -m drive_assets.worker` gets a task and its jobs through Pipes, does one job after the other, and reports a
result or an error for each.
"""

import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import psutil
from dagster_pipes import PipesContext, open_dagster_pipes

from drive_assets.resources.mlflow.tracking import JOB_LOCK
from drive_assets.tasks import RESUME_STATUS, STOP_REQUESTED, TASKS, Task, exit_if_requested
from drive_assets.wire import Messages, Report, Work, from_wire, reports_of, to_wire, version
from model.common.errors import DataError, PassingError
from model.common.files import locked
from model.common.processes import die_with_parent, hide_from_others
from model.common.progress import TERMINAL, Log, Terminal

_terminal = Terminal(os.environ.get(TERMINAL))


def main() -> None:
    hide_from_others()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _end_with_children)
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(RESUME_STATUS))  # there is nothing to save yet
    with open_dagster_pipes() as pipes, contextlib.ExitStack() as stack:
        work, log = from_wire(Work, pipes.extras), _log(pipes)
        done: dict[int, Report] = {}
        if work.parent:
            die_with_parent(work.parent)
        if work.reports:  # a job of a cluster
            messages = Path(work.reports)
            lock = messages.with_name(".lock")
            waiting = "Waiting for another process that does the same work: {holder}; its node may be lost"
            stack.enter_context(locked(lock, 0.0, waiting, log))
            os.environ[JOB_LOCK] = str(lock)
            done = reports_of(Messages(messages).read())
        signal.signal(signal.SIGUSR1, lambda *_: STOP_REQUESTED.set())
        for number, job in enumerate(work.jobs):
            if number in done:
                continue
            exit_if_requested()
            report = _version_error(work, number) or _do(pipes, TASKS[work.task], number, job)
            _terminal.end()
            pipes.report_custom_message(to_wire(report))


def _version_error(work: Work, number: int) -> Report | None:
    """A report that refuses the job if op and worker have different versions of this package."""
    if work.version in ("", version()):
        return None
    here = f"{os.uname().nodename} has {version()} of drive-assets in {sys.prefix}"
    text = f"{here}, the Dagster side has {work.version}: install the same version on both, or share one installation."
    return Report(number, text)


def _log(pipes: PipesContext) -> Log:
    """Lines go to the run's log, which the UI shows, and to the terminal."""

    def log(line: str) -> None:
        _terminal(line)
        pipes.log.info(line)

    return log


def _do(pipes: PipesContext, task: Task[Any, Any], number: int, job: Any) -> Report:
    try:
        return Report(number, value=to_wire(task.do(from_wire(task.job, job), _log(pipes))))
    except DataError as error:
        pipes.log.error(str(error))
        return Report(number, str(error), isinstance(error, PassingError))
    except Exception as error:  # the other jobs continue; the op fails at the end and names this one
        pipes.log.error(traceback.format_exc())
        return Report(number, f"{type(error).__name__}: {error}")


def _end_with_children(number: int, _: object) -> None:
    """End this process and all that it started: torch's launcher for several GPUs gives each process its own session.

    This handler must not import anything, as the signal may arrive during an import, nor raise anything, as the code
    that it interrupts might catch it.
    """
    try:
        _terminal.end()
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
