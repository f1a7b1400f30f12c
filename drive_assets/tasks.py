"""The worker's tasks: the fields of a job, the function that does it, and its result.

Ops import this module, so it imports neither torch nor ultralytics: the functions do, when the worker calls them.
"""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from drive_assets.resources.mlflow.tracking import EpochLog, TrackedRun
from model.annotation.config import AnnotationConfig
from model.annotation.report import AnnotationReport
from model.bundle.config import DESCRIPTION, BundleConfig
from model.common.errors import DataError
from model.common.progress import Log
from model.dataset.review import QUEUE, Review
from model.detection.detector_config import DetectorConfig, DetectorResult
from model.evaluation.config import EvaluationConfig, PredictionConfig, ReviewGainConfig, ReviewQueueConfig
from model.evaluation.forecast import FORECAST
from model.evaluation.results import COMPARISON, EVALUATION, REVIEW_GAIN
from model.recording.folder import ANNOTATIONS, TELEMETRY
from model.training.published import TrainingResult
from model.training.recipes import TrainingConfig

STOP_REQUESTED = threading.Event()
"""Set when the cluster's time limit for this process is near."""
RESUME_STATUS = 75
"""Exit status of a worker that saved its state and ended early, to be started again (EX_TEMPFAIL)."""
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
    """The data set's dataset.yaml."""
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
    """Train even if the same training is already published."""


@dataclass(frozen=True)
class EvaluateJob:
    """Evaluate a checkpoint."""

    architecture: str
    checkpoint: Path
    splits: Path
    output: Path
    config: EvaluationConfig
    other_data: bool = False
    """Also accept splits that it was not trained on."""
    recordings: Path | None = None
    """Recording folders, for the frames in the report."""
    data_version: str = ""
    """That the splits must have; by default the one that it was trained on."""


@dataclass(frozen=True)
class PredictJob:
    """Predict one annotated recording; the predictions are written beside its annotations."""

    recording: Path
    evaluations: Path
    checkpoints: Path
    config: PredictionConfig
    split: str = ""
    """That holds the recording; empty if none does"""
    windows: dict[str, int] = field(default_factory=dict)
    """Frames of a window, by data version"""


@dataclass(frozen=True)
class BundleJob:
    """Make a bundle for the car."""

    checkpoint: Path
    evaluation: Path
    test: Path
    recordings: Path
    weights: Path
    output: Path
    cache: Path
    config: BundleConfig


@dataclass(frozen=True)
class ReviewJob:
    """Find the moments of train and val that people should look at."""

    splits: Path
    output: Path
    work: Path
    config: ReviewQueueConfig
    data_version: str
    checkpoint: Path
    """Of the predictor, if that is an architecture"""
    recordings: Path


@dataclass(frozen=True)
class GainJob:
    """Train on train as it was, as reviewed and changed at random, and compare."""

    splits: Path
    output: Path
    work: Path
    config: ReviewGainConfig
    data_version: str
    checkpoint: Path
    recordings: Path
    members: list[str]
    """The recordings of train"""
    review: Review


def exit_if_requested() -> None:
    """Exit once STOP_REQUESTED is set; called where everything is saved. No error handler catches the SystemExit."""
    if STOP_REQUESTED.is_set():
        sys.exit(RESUME_STATUS)


_annotators: dict[tuple[Path, str], Any] = {}
"""The last job's annotator, so that a run over many recordings loads the network once."""


def annotate(job: AnnotateJob, tell: Log) -> AnnotationReport:
    from model.annotation.pipeline import Annotator

    key = (job.weights, repr(job.config))
    if key not in _annotators:
        _annotators.clear()
        _annotators[key] = Annotator(job.weights, job.config, job.cache)
        loaded = _annotators[key]
        tell(f"Loaded the detector {loaded.weights} for all recordings of this run: {loaded.mapping}")
    report: AnnotationReport = _annotators[key].annotate(job.recording, tell)
    return report


def train_detector(job: TrainDetectorJob, tell: Log) -> DetectorResult:
    from model.detection.detector_training import train_detector as fine_tune

    with EpochLog(job.run, job.config.epochs, tell).closed() as epochs:
        return fine_tune(job.dataset, job.output, job.config, _then_exit(epochs), job.work)


def train(job: TrainJob, tell: Log) -> TrainingResult:
    from model.training.loop import train as train_architecture

    with EpochLog(job.run, job.config.epochs, tell, job.architecture).closed() as epochs:
        return train_architecture(
            job.architecture,
            job.splits,
            job.output,
            job.config,
            job.data_version,
            _then_exit(epochs),
            job.force,
            epochs.begin,
        )


def _then_exit(epochs: EpochLog) -> Callable[[dict[str, float | int]], None]:
    """Logs an epoch, and exits if that was requested."""

    def epoch_ended(metrics: dict[str, float | int]) -> None:
        epochs(metrics)
        exit_if_requested()

    return epoch_ended


def evaluate(job: EvaluateJob, tell: Log) -> Path:
    """Evaluate; returns the path of metrics.json. Pipes' reader fails on a long message that is still being written."""
    from model.evaluation.evaluate import evaluate_checkpoint

    evaluate_checkpoint(
        job.checkpoint,
        job.splits,
        job.output,
        job.config,
        job.architecture,
        job.data_version,
        job.other_data,
        job.recordings,
    )
    tell(f"Evaluated {job.architecture}")
    return job.output / EVALUATION


def predict(job: PredictJob, tell: Log) -> Path:
    """Predict; returns the path of predictions.json."""
    from model.evaluation.forecasting import choose_network, write_forecast

    network = choose_network(job.evaluations, job.checkpoints, job.config.architecture)
    budget = job.config.false_alarms_per_hour
    done = write_forecast(job.recording, network, budget, job.split, job.windows)
    tell(f"{job.recording.name}: {done.predicted:,} of {done.rows:,} rows predicted. {done.chosen}")
    return job.recording / FORECAST


def bundle(job: BundleJob, tell: Log) -> Path:
    """Make a bundle; returns the path of its description."""
    try:
        import onnxscript  # noqa: F401

        from model.bundle.export import make_bundle
    except ImportError as error:
        raise DataError(
            f"{error.name} is not installed, which bundles need: pip install 'drive-assets[car]'."
        ) from error
    make_bundle(
        job.checkpoint,
        job.evaluation,
        job.test,
        job.recordings,
        job.weights,
        job.output,
        job.config,
        job.cache,
        tell,
    )
    return job.output / DESCRIPTION


def review(job: ReviewJob, tell: Log) -> Path:
    """Find the moments; returns the path of the queue."""
    from model.evaluation.review_queue import write_queue

    write_queue(job.splits, job.output, job.work, job.config, job.data_version, job.checkpoint, job.recordings, tell)
    return job.output / QUEUE


def gain(job: GainJob, tell: Log) -> Path:
    """Prove the gain of a review; returns the path of the figures."""
    from model.evaluation.review_gain import prove

    how = (job.work, job.config, job.data_version, job.checkpoint, tell)
    prove(job.splits, job.recordings, job.members, job.review, *how).write(job.output / REVIEW_GAIN)
    return job.output / REVIEW_GAIN


@dataclass(frozen=True)
class Task(Generic[J, R_co]):
    """A kind of work: its name, the classes of its jobs and results, and the function that does a job."""

    name: str
    job: type[J]
    result: type[R_co]
    do: Callable[[J, Log], R_co]
    inputs: Callable[[J], list[Path]]
    """Files whose content determines the result, besides the job itself."""
    output: Callable[[J], Path]
    """The file or folder that a job writes."""


def _splits(job: TrainJob | EvaluateJob | ReviewJob | GainJob) -> list[Path]:
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
    Path,
    evaluate,
    lambda job: [job.checkpoint, *_splits(job)],
    lambda job: job.output,
)
PREDICT = Task(
    "predict",
    PredictJob,
    Path,
    predict,
    lambda job: [job.recording / ANNOTATIONS, job.evaluations / COMPARISON],
    lambda job: job.recording / FORECAST,
)
BUNDLE = Task(
    "bundle",
    BundleJob,
    Path,
    bundle,
    lambda job: [job.checkpoint, job.evaluation / EVALUATION, job.test, job.weights],
    lambda job: job.output,
)
REVIEW = Task("review", ReviewJob, Path, review, _splits, lambda job: job.output)
GAIN = Task("gain", GainJob, Path, gain, _splits, lambda job: job.output / REVIEW_GAIN)
TASKS: dict[str, Task[Any, Any]] = {
    task.name: task for task in (ANNOTATE, TRAIN_DETECTOR, TRAIN, EVALUATE, PREDICT, BUNDLE, REVIEW, GAIN)
}
