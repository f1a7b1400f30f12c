"""Dagster's launcher of runs, which notices runs that were killed with their code server. Named in dagster.yaml."""

from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

LOST = "the process of the run was killed, with the code server that had started it"


class WatchedRunLauncher(DefaultRunLauncher):
    """A code server notices that a run's process died. If it died too, the run would seem to go on for ever."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that started the run. Runs of commands have none: commands watch over those."""
        if GRPC_INFO_TAG not in run.tags:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:  # it has ended just now
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
            is_there = deserialize_value(answer, CanCancelExecutionResult).can_cancel
        except DagsterUserCodeUnreachableError as error:
            is_there = "UNAVAILABLE" not in str(error)  # a code of gRPC; others may pass, such as a deadline
        return CheckRunHealthResult(WorkerStatus.RUNNING if is_there else WorkerStatus.NOT_FOUND, LOST)
