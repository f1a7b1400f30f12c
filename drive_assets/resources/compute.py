"""Where GPU work runs. An op describes the work; the resource decides on the process, the worker module does it.

The protocol is Dagster Pipes: the worker gets a task and a list of jobs, and reports one result or error a job.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from drive_assets.worker import Job, JobResult, Work


class LocalCompute(dg.ConfigurableResource):
    """A child process on this machine. It dies with the run that started it."""

    threads: int = 0
    """Threads of torch and OpenMP in the worker; 0 leaves the choice to them."""

    def run(
        self, context: dg.AssetExecutionContext, task: str, jobs: Sequence[Job], env: Mapping[str, str] | None = None
    ) -> list[JobResult]:
        """Do `jobs` one after the other in one worker process.

        Args:
            env: environment of the worker besides this process's own; the place for addresses that hold secrets.

        Returns:
            One result a job, in their order.

        Raises:
            dagster.Failure: the worker died; jobs that it had finished have their files.
        """
        work: Work = {"task": task, "jobs": list(jobs)}
        client = dg.PipesSubprocessClient(env={**_thread_limits(self.threads), **(env or {})}, forward_termination=True)
        # The worker asks the kernel to be killed with its parent; it needs to know who that is.
        extra: dict[str, Any] = {**work, "parent": os.getpid()}
        command = [sys.executable, "-u", "-m", "drive_assets.worker"]
        completed = client.run(context=context.op_execution_context, command=command, extras=extra)
        results = {message["job"]: message for message in completed.get_custom_messages()}
        if set(results) != set(range(len(jobs))):
            raise dg.Failure(f"The worker for {task} ended without a result of each job; its log tells why.")
        return [results[number]["result"] for number in range(len(jobs))]


def _thread_limits(threads: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} if threads else {}
