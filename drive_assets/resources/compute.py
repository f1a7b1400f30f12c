"""Where GPU work runs. An op describes the work; the resource decides on the process, the worker module does it.

The protocol is Dagster Pipes: the worker gets a task and a list of jobs, and reports one result or error a job.
"""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dagster as dg
import psutil

from drive_assets.batches import ended_when_terminated
from drive_assets.worker import Job, JobResult, Work

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

    def results(self) -> dict[int, JobResult]:
        """Results by the job's number."""
        messages = self.handler.get_custom_messages() if self.handler else []
        return {message["job"]: message["result"] for message in messages}


class LocalCompute(dg.ConfigurableResource):
    """A child process on this machine. It dies with the run that started it."""

    threads: int = 0
    """Threads of torch and OpenMP in the worker; 0: OMP_NUM_THREADS if that is set, else one a core.

    It is always set for the worker: ultralytics would take one thread.
    """

    def run(
        self, context: dg.AssetExecutionContext, task: str, jobs: Sequence[Job], env: Mapping[str, str] | None = None
    ) -> list[JobResult]:
        """Do `jobs` one after the other in one worker process.

        Args:
            env: environment of the worker besides this process's own; the place for addresses that hold secrets.

        Returns:
            One result a job, in their order. If the worker died, those that it had not finished have an error.

        Raises:
            dagster.Failure: the worker died before it finished any job, or the run was terminated.
        """
        work: Work = {"task": task, "jobs": list(jobs)}
        reader = _KeepingReader()
        command = [sys.executable, "-u", "-m", "drive_assets.worker"]
        with ended_when_terminated(), _session(context, work, reader) as session:
            settings = {**os.environ, **_thread_limits(self.threads), **(env or {}), **session.get_bootstrap_env_vars()}
            with _ended_with_block(command, settings) as worker:
                # Not wait(): where another thread gets a signal, it would go on waiting.
                while (status := worker.poll()) is None:
                    time.sleep(POLL_S)
        how = "ended" if status == 0 else f"died (exit status {status})"
        results = reader.results()
        died = (
            f"The worker for {task} {how} before this was done; its log tells why. Run it again: it goes on from there."
        )
        if not results:
            raise dg.Failure(died)
        return [results.get(number, {"error": died}) for number in range(len(jobs))]


def _session(
    context: dg.AssetExecutionContext, work: Work, reader: _KeepingReader
) -> AbstractContextManager[dg.PipesSession]:
    # The worker asks the kernel to be killed with its parent; it needs to know who that is.
    extras = {**work, "parent": os.getpid()}
    return dg.open_pipes_session(context.op_execution_context, dg.PipesTempFileContextInjector(), reader, extras)


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


def _thread_limits(threads: int) -> dict[str, str]:
    number = str(threads or os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    return {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
