"""Imports from Dagster's private modules, each with its reason. `event_log` has one more. A release may break them."""

from pathlib import Path

# Raised while run config is processed, it refuses a value at launch in one sentence. Any other exception there becomes
# a traceback, and a range that pydantic checks is otherwise checked only when the run has started.
from dagster._config.errors import PostProcessingError

# Asks for the latest check of one partition. Dagster has no public query for that.
from dagster._core.event_api import PartitionKeyFilter

# The path of a script that Dagster starts with each step. Ours is the same without a traceback at Ctrl-C.
from dagster._core.execution.scripts import watch_orphans

# What run monitoring expects of `check_run_worker_health`. Dagster's own launcher has none, so a run that was killed
# together with its code server would stay in progress forever.
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

# Asks a code server whether it still runs a run.
from dagster._grpc.types import CanCancelExecutionRequest

__all__ = [
    "CanCancelExecutionRequest",
    "CheckRunHealthResult",
    "PartitionKeyFilter",
    "PostProcessingError",
    "WorkerStatus",
]

watch_orphans.__file__ = str(Path(__file__).with_name("output_watcher.py"))
