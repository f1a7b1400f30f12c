"""Where GPU work runs. An op describes the work; the resource decides on the process, the worker module does it.

The protocol is Dagster Pipes: the worker gets a task and a list of jobs, and reports one result or error a job.
"""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self, TypeVar

import dagster as dg
import psutil
from pydantic import BaseModel, Field

from drive_assets.running.batches import ended_when_terminated
from drive_assets.tasks import Task
from drive_assets.wire import Report, Work, from_wire, to_wire
from model.common.errors import DataError, PassingError

J = TypeVar("J")
R = TypeVar("R")

POLL_S = 0.1
MARK = "DRIVE_ASSETS_WORKER"
"""Environment variable that tells a worker's processes from others."""
ENDING_S = 10.0
"""What a worker gets to end by itself."""


class _KeepingReader(dg.PipesTempFileMessageReader):
    """Keeps what a worker has reported, also where it died afterwards."""

    handler: dg.PipesMessageHandler | None = None

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[Any]:
        self.handler = handler
        with super().read_messages(handler) as parameters:
            yield parameters

    def reports(self) -> dict[int, Report]:
        """Reports by the job's number."""
        messages = self.handler.get_custom_messages() if self.handler else []
        return {report.job: report for report in (from_wire(Report, message) for message in messages)}


class Compute(dg.ConfigurableResource, ABC):
    """Where the jobs of an op are done."""

    @property
    def pool_limit(self) -> int:
        """How many ops may have work here at a time, where nobody sets another limit of pool `gpu`."""
        return 1

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From a file's settings. DataError names one that it does not have, pydantic's error a wrong value."""
        check_names(settings, cls)
        return cls(**settings)

    def run(
        self,
        context: dg.AssetExecutionContext,
        task: Task[J, R],
        jobs: Sequence[J],
        env: Mapping[str, str] | None = None,
    ) -> list[R | DataError]:
        """Do `jobs`; returns what `run_each` yields, in the order of the jobs, once all are done."""
        results = dict(self.run_each(context, task, jobs, env))
        return [results[number] for number in range(len(jobs))]

    @abstractmethod
    def run_each(
        self,
        context: dg.AssetExecutionContext,
        task: Task[J, R],
        jobs: Sequence[J],
        env: Mapping[str, str] | None = None,
    ) -> Generator[tuple[int, R | DataError]]:
        """Do `jobs`.

        Args:
            env: environment of the workers besides this process's own; the place for addresses that hold secrets.

        Yields:
            The number of each job with its result or error, as soon as it is there. Those that a worker's death kept
            from a result have an error that may pass.

        Raises:
            dagster.Failure: no job could be done, or the run was terminated.
        """


def check_names(settings: Mapping[str, Any], cls: type[BaseModel]) -> None:
    """Raises DataError if a setting is none of `cls`: Dagster's resources leave it out without a word."""
    if unknown := sorted(set(settings) - set(cls.model_fields)):
        raise DataError(f"{', '.join(unknown)}: {cls.__name__} has only {', '.join(cls.model_fields)}.")


def outcome(task: Task[J, R], report: Report) -> R | DataError:
    """A worker's report as the result or the error that it holds."""
    if report.failed is None:
        return from_wire(task.result, report.value)
    return (PassingError if report.failed.passing else DataError)(report.failed.error)


class LocalCompute(Compute):
    """Child processes on this machine. They die with the run that started them."""

    threads: int = 0
    """Threads of torch and OpenMP in a worker; 0: its share of OMP_NUM_THREADS if that is set, else of the cores.

    It is always set for a worker: ultralytics would take one thread.
    """
    processes: int = Field(1, ge=1)
    """Workers that share the jobs of a step, such as trainings of several variants: two of one thread each do more
    than one of two threads, and small networks do not fill a GPU."""

    def run_each(
        self,
        context: dg.AssetExecutionContext,
        task: Task[J, R],
        jobs: Sequence[J],
        env: Mapping[str, str] | None = None,
    ) -> Generator[tuple[int, R | DataError]]:
        """Do `jobs` one after the other in each worker process."""
        shares = [_Share(numbers) for numbers in _dealt(len(jobs), self.processes)]
        own = {**_thread_limits(self.threads, len(shares)), **(env or {})}
        terminated: dg.Failure | None = None
        try:
            with ended_when_terminated(), contextlib.ExitStack() as workers:
                for share in shares:
                    workers.enter_context(share.working(context, task, jobs, own))
                while any(share.worker.poll() is None for share in shares):
                    # Not wait(): where another thread gets a signal, it would go on waiting.
                    for share in shares:
                        yield from share.new(task)
                    time.sleep(POLL_S)
        except dg.Failure as failure:
            terminated = failure
        for share in shares:  # also what was done just before the run was terminated
            yield from share.new(task)
        if terminated is not None:
            raise terminated
        if all(not share.done and share.numbers for share in shares):
            raise dg.Failure(shares[0].death(task))
        for share in shares:
            for number in share.numbers:
                if number not in share.done:
                    yield number, PassingError(share.death(task))


class _Share:
    """The jobs of one worker."""

    worker: "subprocess.Popen[bytes]"

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers
        self.reader = _KeepingReader()
        self.done: set[int] = set()

    @contextmanager
    def working(
        self, context: dg.AssetExecutionContext, task: Task[J, R], jobs: Sequence[J], env: Mapping[str, str]
    ) -> Iterator[None]:
        """Have a worker do them, which ends with the block."""
        # The worker asks the kernel to be killed with its parent; it needs to know who that is.
        work = Work(task.name, [to_wire(jobs[number]) for number in self.numbers], os.getpid())
        command = [sys.executable, "-u", "-m", "drive_assets.worker"]
        with (
            _session(context, work, self.reader) as session,
            _ended_with_block(command, {**os.environ, **env, **session.get_bootstrap_env_vars()}) as self.worker,
        ):
            yield

    def new(self, task: Task[J, R]) -> Iterator[tuple[int, R | DataError]]:
        """What the worker has reported since the last call."""
        for index, report in sorted(self.reader.reports().items()):
            if (number := self.numbers[index]) not in self.done:
                self.done.add(number)
                yield number, outcome(task, report)

    def death(self, task: Task[J, R]) -> str:
        status = self.worker.returncode
        how = "ended" if status == 0 else f"died (exit status {status})"
        return (
            f"The worker for {task.name} {how} before this was done; its log tells why. Run it again: it resumes there."
        )


def _dealt(jobs: int, workers: int) -> list[list[int]]:
    """Numbers of jobs for each of at most `workers`, there and back, so that neither gets each second kind of job."""
    count = max(1, min(jobs, workers))
    turns = [[*range(count)], [*reversed(range(count))]]
    of = [turns[job // count % 2][job % count] for job in range(jobs)]
    return [[job for job in range(jobs) if of[job] == worker] for worker in range(count)]


def _session(
    context: dg.AssetExecutionContext, work: Work, reader: _KeepingReader
) -> AbstractContextManager[dg.PipesSession]:
    injector = dg.PipesTempFileContextInjector()
    return dg.open_pipes_session(context.op_execution_context, injector, reader, to_wire(work))


@contextmanager
def _ended_with_block(command: Sequence[str], env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker that ends with the block if not before, however that comes. Its files bear it.

    Nothing that it started outlives it, also where it was killed: a training on several GPUs has processes with
    sessions of their own, known by the environment that they inherit.
    """
    mark = uuid.uuid4().hex
    worker = subprocess.Popen(command, env={**env, MARK: mark})
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(ENDING_S)
        if worker.returncode != 0:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get(MARK) == mark:
                        process.kill()
            worker.wait()


def _thread_limits(threads: int, workers: int) -> dict[str, str]:
    every = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    number = str(threads or max(1, every // workers))
    return {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
