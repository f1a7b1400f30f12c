"""The process that a GPU step runs in: Dagster Pipes on one side, `model` on the other.

`python -m drive_assets.worker` takes a task and its jobs from Pipes, does one job after the other, and reports a result
or an error for each. Importing this module brings in neither torch nor ultralytics: the tasks do, when they run.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import psutil
from dagster_pipes import PipesContext, open_dagster_pipes

from model.common.config import from_dict, to_dict
from model.common.errors import DataError

Job = dict[str, Any]
"""JSON-ready arguments of a task function below."""


class JobResult(TypedDict, total=False):
    """What came of a job: `value`, or `error`, the text for the user."""

    value: dict[str, Any]
    error: str


class Work(TypedDict):
    """What Pipes hands to the worker."""

    task: str
    jobs: list[Job]


Log = Callable[[str], None]


def main() -> None:
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _end_with_children)
    with open_dagster_pipes() as pipes:
        _die_with_parent(pipes.get_extra("parent"))
        task = TASKS[pipes.get_extra("task")]
        for number, job in enumerate(pipes.get_extra("jobs")):
            pipes.report_custom_message({"job": number, "result": _result(pipes, task, job)})


def _log(pipes: PipesContext) -> Log:
    """Lines go to the run's log, which the UI shows, and to the terminal."""

    def log(line: str) -> None:
        print(line, flush=True)
        pipes.log.info(line)

    return log


def _result(pipes: PipesContext, task: Callable[[Job, Log], dict[str, Any]], job: Job) -> JobResult:
    try:
        return {"value": task(job, _log(pipes))}
    except DataError as error:
        pipes.log.error(str(error))
        return {"error": str(error)}
    except Exception as error:  # the other jobs go on; the op fails in the end, and names this one
        pipes.log.error(traceback.format_exc())
        return {"error": f"{type(error).__name__}: {error}"}


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when the run that started it ends, however it ends (Linux only)."""
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("The run that started this worker has ended already.")


def _end_with_children(number: int, _: object) -> None:
    """End this process and all that it started: torch's launcher of several GPUs gives each a session of its own.

    Nothing may be imported here, since the signal may come in the midst of an import, nor anything raised: whatever is
    running might catch it.
    """
    try:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    finally:
        os._exit(128 + number)


_annotators: dict[tuple[str, str], Any] = {}
"""The network that the last job used, so that a backfill over recordings loads it once."""


def annotate(job: Job, log: Log) -> dict[str, Any]:
    """Annotate one recording: {recording, output, weights, cache, config} -> the annotation's report."""
    from model.annotation.config import AnnotationConfig
    from model.annotation.pipeline import Annotator

    key = (job["weights"], str(job["config"]))
    if key not in _annotators:
        _annotators.clear()
        _annotators[key] = Annotator(
            Path(job["weights"]), from_dict(AnnotationConfig, job["config"]), Path(job["cache"])
        )
    report = _annotators[key].annotate(Path(job["recording"]), Path(job["output"]), log)
    return to_dict(report)


def train_detector(job: Job, log: Log) -> dict[str, Any]:
    """Fine-tune a detector: {dataset, output, work, config, run_id} -> its figures and the pictures made."""
    from model.detection.detector import DetectorConfig
    from model.detection.detector import train_detector as train

    track = EpochLog(job.get("run_id"), log)
    config = from_dict(DetectorConfig, job["config"])
    result = train(Path(job["dataset"]), Path(job["output"]), config, track, Path(job["work"]))
    return to_dict_of_paths(result)


def train(job: Job, log: Log) -> dict[str, Any]:
    """Train one architecture: {architecture, splits, output, config, data_version, run_id} -> its result."""
    from model.training.loop import TrainingConfig
    from model.training.loop import train as train_architecture

    track = EpochLog(job.get("run_id"), log, job["architecture"])
    config = from_dict(TrainingConfig, job["config"])
    result = train_architecture(
        job["architecture"], Path(job["splits"]), Path(job["output"]), config, job["data_version"], track
    )
    return to_dict_of_paths(result)


def evaluate(job: Job, log: Log) -> dict[str, Any]:
    """Evaluate a checkpoint: {architecture, checkpoint, splits, output, config} -> the content of metrics.json."""
    from model.evaluation.config import EvaluationConfig
    from model.evaluation.evaluate import evaluate_checkpoint

    config = from_dict(EvaluationConfig, job["config"])
    metrics = evaluate_checkpoint(
        Path(job["checkpoint"]), Path(job["splits"]), Path(job["output"]), config, job["architecture"]
    )
    log(f"{metrics['architecture']} is evaluated")
    return metrics


TASKS: dict[str, Callable[[Job, Log], dict[str, Any]]] = {
    "annotate": annotate,
    "train_detector": train_detector,
    "train": train,
    "evaluate": evaluate,
}


class EpochLog:
    """Called with each epoch's figures: a line in the log, and into the MLflow run where there is one.

    Training goes on without MLflow: the op logs the history file in the end.
    """

    def __init__(self, run_id: str | None, log: Log, name: str = "") -> None:
        self.run_id, self.log, self.name = run_id, log, name
        self.client: Any = None

    def __call__(self, metrics: dict[str, float | int]) -> None:
        figures = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if key != "epoch")
        self.log(f"{self.name} epoch {metrics['epoch']}: {figures}".strip())
        if self.run_id is None:
            return
        try:
            self._log_to_mlflow(metrics)
        except Exception as error:  # whatever a tracking server throws must not end hours of training
            self.log(
                f"MLflow cannot be reached ({type(error).__name__}); training goes on, the figures follow at its end."
            )
            self.run_id = None

    def _log_to_mlflow(self, metrics: dict[str, float | int]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        self.client = self.client or MlflowClient()
        now, epoch = int(time.time() * 1000), int(metrics["epoch"])
        batch = [Metric(key, float(value), now, epoch) for key, value in metrics.items() if key != "epoch"]
        self.client.log_batch(self.run_id, metrics=batch)


def to_dict_of_paths(result: Any) -> dict[str, Any]:
    """A result dataclass as JSON-ready values, its paths as text."""
    import dataclasses
    import json

    content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(result), default=str))
    return content


if __name__ == "__main__":
    main()
