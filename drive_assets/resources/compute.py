"""Where GPU work runs: an asset describes jobs, and the compute resource runs them in worker processes.

Op and worker speak Dagster Pipes: the worker gets a task and a list of jobs, and reports one result or error per job.
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
from typing import Any, Self, TypeVar

import dagster as dg
import psutil
from pydantic import BaseModel, Field

from drive_assets.running.interrupts import fail_when_terminated
from drive_assets.tasks import Task
from drive_assets.wire import Report, Work, from_wire, reports_in, to_wire
from model.common.errors import DataError, PassingError

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

    @property
    def pool_limit(self) -> int:
        """Default limit of pool `gpu`: how many ops may have work here at a time."""
        return 1

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From the settings of a file. Unknown settings raise DataError; wrong values raise pydantic's error."""
        check_names(settings, cls)
        return cls(**settings)

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
            dagster.Failure: no job could run, or the run was terminated.
        """


def check_names(settings: Mapping[str, Any], cls: type[BaseModel]) -> None:
    """Raises DataError for a setting that `cls` does not have, which a Dagster resource would ignore."""
    if unknown := sorted(set(settings) - set(cls.model_fields)):
        raise DataError(f"{', '.join(unknown)}: {cls.__name__} has only {', '.join(cls.model_fields)}.")


@dataclass
class Group:
    """Jobs that one worker process does, one after the other."""

    numbers: list[int]
    """Their numbers among the jobs of the run."""
    reports: dict[int, Report] = field(default_factory=dict)
    """By place in `numbers`."""
    error: DataError | None = None
    """Why the jobs without a report have no result; None while the worker may still report."""
    delivered: set[int] = field(default_factory=set)
    """Places whose result or error was yielded."""

    def new_results(self, task: Task[Any, R]) -> Iterator[tuple[int, R | DataError]]:
        """Results and errors that were not yielded yet, each with the job's number."""
        for place, number in enumerate(self.numbers):
            if place in self.delivered:
                continue
            if (report := self.reports.get(place)) is not None:
                self.delivered.add(place)
                yield number, _result(task, report)
            elif self.error is not None:
                self.delivered.add(place)
                yield number, self.error


def _result(task: Task[Any, R], report: Report) -> R | DataError:
    if report.failed is None:
        return from_wire(task.result, report.value)
    return (PassingError if report.failed.passing else DataError)(report.failed.error)


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
        shares = [_Share(numbers) for numbers in _deal(len(jobs), self.processes)]
        environment = {**_thread_limits(self.threads, len(shares)), **(env or {})}
        try:
            with fail_when_terminated(), contextlib.ExitStack() as stack:
                for share in shares:
                    stack.enter_context(share.start(context, task, jobs, environment))
                while any(share.worker.poll() is None for share in shares):
                    for share in shares:
                        yield from share.new_results(task)
                    time.sleep(POLL_S)  # wait() would block on when another thread receives the signal
        except dg.Failure:
            for share in shares:  # jobs that were done just before the run was terminated
                yield from share.new_results(task)
            raise
        for share in shares:
            share.close(task)
        if jobs and not any(share.reports for share in shares):
            raise dg.Failure(str(shares[0].error))
        for share in shares:
            yield from share.new_results(task)


class _Share(Group):
    """The jobs of one local worker."""

    worker: "subprocess.Popen[bytes]"
    session: dg.PipesSession

    @contextmanager
    def start(self, context: Context, task: Task[J, R], jobs: Sequence[J], env: Mapping[str, str]) -> Iterator[None]:
        """Run a worker for the block."""
        # The worker asks the kernel to kill it when its parent dies, and needs to know which process that is.
        work = Work(task.name, [to_wire(jobs[number]) for number in self.numbers], os.getpid())
        injector, reader = dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
        with (
            dg.open_pipes_session(context.op_execution_context, injector, reader, to_wire(work)) as self.session,
            _worker(COMMAND, {**os.environ, **env, **self.session.get_bootstrap_env_vars()}) as self.worker,
        ):
            yield

    def new_results(self, task: Task[Any, R]) -> Iterator[tuple[int, R | DataError]]:
        self.reports = reports_in(self.session.get_custom_messages())
        yield from super().new_results(task)

    def close(self, task: Task[Any, Any]) -> None:
        """The worker has ended: the jobs without a report have failed."""
        self.reports = reports_in(self.session.get_custom_messages())
        status = self.worker.returncode
        how = "ended" if status == 0 else f"died (exit status {status})"
        self.error = PassingError(
            f"The worker for {task.name} {how} before this job was done; its log shows why. A new run resumes."
        )


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


def _thread_limits(threads: int, workers: int) -> dict[str, str]:
    available = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    number = str(threads or max(1, available // workers))
    return {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
