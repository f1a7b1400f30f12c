"""Where GPU work runs. An op describes the work; the resource decides on the process, the worker module does it.

The protocol is Dagster Pipes: the worker gets a task and a list of jobs, and reports one result or error a job.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from drive_assets.batches import ended_when_terminated
from drive_assets.worker import Job, JobResult, Work


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
        client = dg.PipesSubprocessClient(
            env={**_thread_limits(self.threads), **(env or {})}, message_reader=reader, forward_termination=True
        )
        # The worker asks the kernel to be killed with its parent; it needs to know who that is.
        extra: dict[str, Any] = {**work, "parent": os.getpid()}
        command = [sys.executable, "-u", "-m", "drive_assets.worker"]
        how = "ended"
        if threading.current_thread() is threading.main_thread():
            # A library may have had interrupted system calls go on: then Ctrl-C is only heard when the worker ends.
            signal.siginterrupt(signal.SIGINT, True)
        try:
            with ended_when_terminated():
                client.run(context=context.op_execution_context, command=command, extras=extra)
        except DagsterPipesExecutionError as error:
            how = f"died ({error})"
        results = reader.results()
        died = (
            f"The worker for {task} {how} before this was done; its log tells why. Run it again: it goes on from there."
        )
        if not results:
            raise dg.Failure(died)
        return [results.get(number, {"error": died}) for number in range(len(jobs))]


def _thread_limits(threads: int) -> dict[str, str]:
    number = str(threads or os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    return {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
