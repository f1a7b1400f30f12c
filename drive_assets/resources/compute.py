"""Where GPU work runs: an asset describes jobs, and the compute resource runs them in worker processes.

The worker gets a task and a list of jobs by Dagster Pipes, and reports one result or error per job.
"""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import dagster as dg
import psutil
from pydantic import ConfigDict, Field

from drive_assets.running.interrupts import fail_when_terminated
from drive_assets.tasks import Task
from drive_assets.wire import Messages, Report, Work, from_wire, hand_over, reports_of, to_wire
from model.common.errors import DataError, PassingError
from model.common.processes import usable_cores

J = TypeVar("J")
R = TypeVar("R")
Context = dg.AssetExecutionContext
Env = Mapping[str, str] | None
Results = Generator[tuple[int, R | DataError]]
"""Numbers of jobs, each with its result or error."""

POLL_S = 0.1
MARK = "DRIVE_ASSETS_WORKER"
"""Environment variable that marks the processes of one worker."""
COMMAND = (sys.executable, "-P", "-u", "-m", "drive_assets.worker")
"""-P: modules in the working folder, such as a user's model.py, are not imported."""
GRACE_S = 10.0
"""Time that a worker gets to end by itself."""


class JobsContinue(dg.Failure):
    """The run ends but its cluster jobs do not. The next run of the same work adopts them."""


class Compute(dg.ConfigurableResource, ABC):
    """Where the jobs of an op run."""

    model_config = ConfigDict(extra="forbid")

    @property
    def pool_limit(self) -> int:
        """Default limit of pool `gpu`: how many ops may have work here at a time."""
        return 1

    def run(self, context: Context, task: Task[J, R], jobs: Sequence[J], env: Env = None) -> list[R | DataError]:
        """Run `jobs` as `run_each` does, and return their results in the order of the jobs once all are done."""
        results = dict(self.run_each(context, task, jobs, env))
        return [results[number] for number in range(len(jobs))]

    @abstractmethod
    def run_each(self, context: Context, task: Task[J, R], jobs: Sequence[J], env: Env = None) -> Results[R]:
        """Run `jobs`.

        Args:
            env: environment of the workers besides this process's own. Addresses that hold secrets belong here.

        Yields:
            The number of each job with its result or error, as soon as it is known. A job that has no result because
            its worker died has a PassingError.

        Raises:
            dagster.Failure: the run was terminated, or no job could be submitted.
        """


@dataclass(kw_only=True)
class Group:
    """Jobs that one worker process does, one after the other."""

    numbers: list[int]
    """Their numbers among the jobs of the run."""
    messages: Messages
    reports: dict[int, Report] = field(default_factory=dict)
    """By place in `numbers`."""
    error: DataError | None = None
    """Why the jobs without a report have no result; None while the worker may still report."""
    delivered: set[int] = field(default_factory=set)
    """Places whose result or error was yielded."""

    @property
    def is_open(self) -> bool:
        return len(self.reports) < len(self.numbers) and self.error is None

    def read(self, log: dg.DagsterLogManager) -> None:
        """Read the new messages: store their reports, and forward their log lines to the run's log."""
        new = self.messages.read()
        self.reports |= reports_of(new)
        for message in new:
            if message["method"] == "log":
                log.log(message["params"]["level"], message["params"]["message"])

    def new_results(self, task: Task[Any, R], log: dg.DagsterLogManager) -> Iterator[tuple[int, R | DataError]]:
        """Read, and yield the results and errors that were not yielded yet, each with the job's number."""
        self.read(log)
        for place, number in enumerate(self.numbers):
            report = self.reports.get(place)
            if place in self.delivered or (report is None and self.error is None):
                continue
            self.delivered.add(place)
            yield number, _result(task, report) if report is not None else self.error  # type: ignore[misc]


def _result(task: Task[Any, R], report: Report) -> R | DataError:
    if not report.error:
        return from_wire(task.result, report.value)
    return (PassingError if report.passing else DataError)(report.error)


class LocalCompute(Compute):
    """Child processes on this machine. They end with the run that started them."""

    threads: int = 0
    """Threads of torch and OpenMP in a worker; 0: its share of OMP_NUM_THREADS, or of the cores if that is not set.

    Workers always have a limit, as ultralytics would otherwise use one thread.
    """
    processes: int = Field(1, ge=1)
    """Workers that share the jobs of a step, such as trainings of several variants: two workers of one thread are
    faster than one of two threads, and small networks do not fill a GPU."""

    def run_each(self, context: Context, task: Task[J, R], jobs: Sequence[J], env: Env = None) -> Results[R]:
        """As Compute.run_each: each worker process does its share of the jobs one after the other."""
        shares = _deal(len(jobs), self.processes)
        cores = int(os.environ.get("OMP_NUM_THREADS") or usable_cores())
        threads = self.threads or max(1, cores // len(shares))
        environment = {**os.environ, **thread_limits(threads), **(env or {})}
        groups, workers = list[Group](), list[subprocess.Popen[bytes]]()
        with TemporaryDirectory(prefix="drive-assets-") as folder:
            try:
                with fail_when_terminated(), contextlib.ExitStack() as stack:
                    for index, numbers in enumerate(shares):
                        # The worker asks the kernel to kill it when its parent, this process, dies.
                        work = Work(task.name, [to_wire(jobs[number]) for number in numbers], os.getpid())
                        messages = Path(folder) / f"{index}.messages"
                        paths = hand_over(work, messages.with_suffix(".context"), messages)
                        groups.append(Group(numbers=numbers, messages=Messages(messages)))
                        workers.append(stack.enter_context(_worker(COMMAND, environment | paths)))
                    while any(worker.poll() is None for worker in workers):
                        for group in groups:
                            yield from group.new_results(task, context.log)
                        time.sleep(POLL_S)  # wait() would block on when another thread receives the signal
            except dg.Failure:
                for group in groups:  # jobs that were done just before the run was terminated
                    yield from group.new_results(task, context.log)
                raise
            for group, worker in zip(groups, workers, strict=True):
                how = "ended" if worker.returncode == 0 else f"died (exit status {worker.returncode})"
                text = (
                    f"The worker for {task.name} {how} before this job was done; its log shows why. A new run resumes."
                )
                group.error = PassingError(text)
                yield from group.new_results(task, context.log)


def _deal(jobs: int, workers: int) -> list[list[int]]:
    """Job numbers for at most `workers` workers, dealt back and forth so that no worker gets every second job."""
    count = max(1, min(jobs, workers))
    order = [*range(count), *reversed(range(count))]
    return [[job for job in range(jobs) if order[job % len(order)] == worker] for worker in range(count)]


@contextmanager
def _worker(command: Sequence[str], env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker that ends with the block, and with it all processes that it started.

    A training on several GPUs starts processes with sessions of their own. They inherit the environment variable MARK.
    """
    mark = uuid.uuid4().hex
    worker = subprocess.Popen(command, env={**env, MARK: mark})
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(GRACE_S)
        if worker.returncode != 0:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get(MARK) == mark:
                        process.kill()
            worker.wait()


def thread_limits(number: int) -> dict[str, str]:
    """Environment variables that limit the threads of torch and OpenMP."""
    return {"OMP_NUM_THREADS": str(number), "MKL_NUM_THREADS": str(number)}
