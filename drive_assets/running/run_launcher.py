"""Dagster's launcher of runs, which also knows runs that died with their code server. Named in dagster.yaml."""

import json
import os
import signal

from dagster import DagsterRun, DefaultRunLauncher

from drive_assets.running.dagster_private import CanCancelExecutionRequest, CheckRunHealthResult, WorkerStatus
from drive_assets.running.instance import PROCESS_TAG, local_pid
from model.common.errors import DataError

LOST = "the process of the run was killed, with the code server that had started it"


class WatchedRunLauncher(DefaultRunLauncher):
    """A code server notices that a run's process died; this launcher also notices that the code server died with it.

    It terminates runs of the command line, too, which no code server has started.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that started the run. A lost run of the command line is ended by the next command."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:  # a run of the command line, or one that has just ended
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
            is_running = json.loads(answer)["can_cancel"]
        except Exception as error:
            is_running = "UNAVAILABLE" not in str(error)  # gRPC's status; others, such as a deadline, may pass
        return CheckRunHealthResult(WorkerStatus.RUNNING if is_running else WorkerStatus.NOT_FOUND, LOST)

    def terminate(self, run_id: str) -> bool:
        """End a run, as Dagster's UI asks for; one of a command on another machine is refused."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or PROCESS_TAG not in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        pid = local_pid(self._instance, run.tags[PROCESS_TAG])
        if pid is None:
            host, process, _ = run.tags[PROCESS_TAG].split("/")
            raise DataError(f"Process {process} on {host} executes this run. Stop it there, with Ctrl-C or `kill`.")
        self._instance.report_run_canceling(run)
        os.kill(pid, signal.SIGTERM)
        return True
