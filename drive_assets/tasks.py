"""The tasks of the worker: what a job says, what is done for it, and what comes of it.

Ops import this module for its jobs and its table. It brings in neither torch nor ultralytics: the functions do, in the
worker, when they run.
"""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from model.annotation.config import AnnotationConfig
from model.annotation.report import AnnotationReport
from model.common.progress import Tell
from model.detection.detector_training import DetectorConfig, DetectorResult
from model.evaluation.config import EvaluationConfig
from model.evaluation.results import Evaluation
from model.recording.folder import ANNOTATIONS, TELEMETRY
from model.training.recipes import TrainingConfig
from model.training.result import TrainingResult

ENDING = threading.Event()
"""Set when the time that a cluster gives this process is nearly up."""
RESUME_STATUS = 75
"""Exit status of a worker that ended by itself to be started again: what it has done is saved (EX_TEMPFAIL)."""
J = TypeVar("J")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class AnnotateJob:
    """Annotate one recording."""

    recording: Path
    weights: Path
    cache: Path
    config: AnnotationConfig


@dataclass(frozen=True)
class TrainDetectorJob:
    """Fine-tune a detector on a data set."""

    dataset: Path
    """Its dataset.yaml."""
    output: Path
    work: Path
    config: DetectorConfig
    run_id: str | None = None
    """MLflow run to log each epoch to."""


@dataclass(frozen=True)
class TrainJob:
    """Train one architecture."""

    architecture: str
    splits: Path
    output: Path
    config: TrainingConfig
    data_version: str
    run_id: str | None = None
    """MLflow run to log each epoch to."""
    anew: bool = False
    """Train though the same is published."""


@dataclass(frozen=True)
class EvaluateJob:
    """Evaluate a checkpoint."""

    architecture: str
    checkpoint: Path
    splits: Path
    output: Path
    config: EvaluationConfig
    other_data: bool = False
    """Score it on splits that it was not trained on too."""
    recordings: Path | None = None
    """For the frames that the report shows."""


def end_if_time_is_up() -> None:
    """End this process where all is saved, once ENDING is set. SystemExit, which no handler of errors takes."""
    if ENDING.is_set():
        sys.exit(RESUME_STATUS)


_annotators: dict[tuple[Path, str], Any] = {}
"""The network that the last job used, so that a backfill over recordings loads it once."""


def annotate(job: AnnotateJob, tell: Tell) -> AnnotationReport:
    from model.annotation.pipeline import Annotator

    key = (job.weights, repr(job.config))
    if key not in _annotators:
        _annotators.clear()
        _annotators[key] = Annotator(job.weights, job.config, job.cache)
    report: AnnotationReport = _annotators[key].annotate(job.recording, tell)
    return report


def train_detector(job: TrainDetectorJob, tell: Tell) -> DetectorResult:
    from model.detection.detector_training import train_detector as fine_tune

    return fine_tune(job.dataset, job.output, job.config, EpochLog(job.run_id, tell), job.work)


def train(job: TrainJob, tell: Tell) -> TrainingResult:
    from model.training.loop import train as train_architecture

    epochs = EpochLog(job.run_id, tell, job.architecture)
    return train_architecture(
        job.architecture, job.splits, job.output, job.config, job.data_version, epochs, job.anew, tell
    )


def evaluate(job: EvaluateJob, tell: Tell) -> Evaluation:
    from model.evaluation.evaluate import evaluate_checkpoint

    evaluation = evaluate_checkpoint(
        job.checkpoint, job.splits, job.output, job.config, job.architecture, job.other_data, job.recordings
    )
    tell(f"{job.architecture} is evaluated")
    return evaluation


@dataclass(frozen=True)
class Task(Generic[J, R_co]):
    """A kind of work: its name on the wire, its job's class, its result's class, and the function that does it."""

    name: str
    job: type[J]
    result: type[R_co]
    do: Callable[[J, Tell], R_co]
    inputs: Callable[[J], list[Path]]
    """Files whose content decides on the result, besides the job itself."""
    output: Callable[[J], Path]
    """The file or folder that it makes."""


def _splits(job: TrainJob | EvaluateJob) -> list[Path]:
    return [job.splits / f"{name}.h5" for name in ("train", "val", "test")]


ANNOTATE = Task(
    "annotate",
    AnnotateJob,
    AnnotationReport,
    annotate,
    lambda job: [job.weights, job.recording / TELEMETRY],
    lambda job: job.recording / ANNOTATIONS,
)
TRAIN_DETECTOR = Task(
    "train_detector",
    TrainDetectorJob,
    DetectorResult,
    train_detector,
    lambda job: [job.dataset],
    lambda job: job.output,
)
TRAIN = Task("train", TrainJob, TrainingResult, train, _splits, lambda job: job.output)
EVALUATE = Task(
    "evaluate",
    EvaluateJob,
    Evaluation,
    evaluate,
    lambda job: [job.checkpoint, *_splits(job)],
    lambda job: job.output,
)
TASKS: dict[str, Task[Any, Any]] = {task.name: task for task in (ANNOTATE, TRAIN_DETECTOR, TRAIN, EVALUATE)}


class EpochLog:
    """Called with each epoch's figures: a line in the log, and into the MLflow run where there is one.

    Training continues without MLflow: the op logs the history file in the end.
    """

    def __init__(self, run_id: str | None, tell: Tell, name: str = "") -> None:
        self.run_id, self.tell, self.name = run_id, tell, name
        self.client: Any = None

    def __call__(self, metrics: dict[str, float | int]) -> None:
        figures = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if key != "epoch")
        self.tell(f"{self.name} epoch {metrics['epoch']}: {figures}".strip())
        self._track(metrics)
        end_if_time_is_up()

    def _track(self, metrics: dict[str, float | int]) -> None:
        if self.run_id is None:
            return
        try:
            self._log_to_mlflow(metrics)
        except Exception as error:  # whatever a tracking server throws must not end hours of training
            self.tell(
                f"MLflow cannot be reached ({type(error).__name__}); training continues, the figures follow at its end."
            )
            self.run_id = None

    def _log_to_mlflow(self, metrics: dict[str, float | int]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        self.client = self.client or MlflowClient()
        now, epoch = int(time.time() * 1000), int(metrics["epoch"])
        batch = [Metric(key, float(value), now, epoch) for key, value in metrics.items() if key != "epoch"]
        self.client.log_batch(self.run_id, metrics=batch)
