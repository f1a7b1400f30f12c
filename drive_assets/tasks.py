"""The tasks of the worker: what a job says, what is done for it, and what comes of it.

Ops import this module for its jobs and its table. It brings in neither torch nor ultralytics: the functions do, in the
worker, when they run.
"""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from drive_assets.resources.mlflow.tracking import EpochLog, TrackedRun
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
    run: TrackedRun | None = None
    """MLflow run to log each epoch to."""


@dataclass(frozen=True)
class TrainJob:
    """Train one architecture."""

    architecture: str
    splits: Path
    output: Path
    config: TrainingConfig
    data_version: str
    run: TrackedRun | None = None
    """MLflow run to log each epoch to."""
    force: bool = False
    """Train even if the same training is published."""


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
        tell(f"The detector {_annotators[key].weights} is loaded, for all recordings of this run")
    report: AnnotationReport = _annotators[key].annotate(job.recording, tell)
    return report


def train_detector(job: TrainDetectorJob, tell: Tell) -> DetectorResult:
    from model.detection.detector_training import train_detector as fine_tune

    with EpochLog(job.run, job.config.epochs, tell).closed() as epochs:
        return fine_tune(job.dataset, job.output, job.config, _ending(epochs), job.work)


def train(job: TrainJob, tell: Tell) -> TrainingResult:
    from model.training.loop import train as train_architecture

    with EpochLog(job.run, job.config.epochs, tell, job.architecture).closed() as epochs:
        return train_architecture(
            job.architecture,
            job.splits,
            job.output,
            job.config,
            job.data_version,
            _ending(epochs),
            job.force,
            tell,
            epochs.begin,
        )


def _ending(on_epoch: EpochLog) -> Callable[[dict[str, float | int]], None]:
    """Calls `on_epoch`, and ends this process then if its time is up."""

    def ended(metrics: dict[str, float | int]) -> None:
        on_epoch(metrics)
        end_if_time_is_up()

    return ended


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
