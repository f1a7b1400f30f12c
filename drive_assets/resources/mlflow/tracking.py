"""MLflow runs as the worker writes them: opened when training begins, closed when it ends, each epoch logged once.

Imports neither Dagster nor torch, and MLflow only when there is something to log.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model.common.progress import GAP, Log, Progress

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Errors are reported in one sentence; MLflow would log a traceback as well.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
TRAINING_KEY = "dagster.training_key"
DAGSTER_RUN = "dagster.run_id"
GROUP = "mlflow.parentRunId"
"""Tag by which MLflow shows a run below another: the run of one recipe on one data version, which groups trainings."""
LOSSES = {"loss": ("train_loss", "val_loss"), "box loss": ("train/box_loss", "val/box_loss")}
RISING = {"PR-AUC": "val_pr_auc_mean", "mAP50": "metrics/mAP50"}
"""Metrics of networks and detectors in an epoch's line of progress."""
DECIDING = RISING["PR-AUC"]
"""The metric by which epochs, and the trainings of a group, are compared."""
JOB_LOCK = "DRIVE_ASSETS_JOB_LOCK"
"""Environment variable of a cluster's worker: the lock file that it holds as long as it lives."""
LOCK_TAG = "drive_assets.job_lock"
"""The same path as a tag of the MLflow run."""
PARAMETER_LIMIT = 500
EPOCH = "epoch"
"""The metric that every epoch has: its number, from 0 in files. MLflow has it from 1, also as the step of metrics."""
Epoch = Mapping[str, float | int | None]


@dataclass(frozen=True)
class UsedData:
    """The data set of a run."""

    name: str
    version: str
    location: str
    profile: dict[str, Any]


@dataclass(frozen=True)
class TrackedRun:
    """An MLflow run to open when and where its work begins."""

    experiment: str
    """The experiment's id"""
    key: str
    """Identifies what is trained on what; the run is found again by it"""
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    """Among them the Dagster run that works on it"""
    data: UsedData | None = None


def find_run(client: "MlflowClient", experiment: str, key: str) -> "Run | None":
    """The newest run of a training."""
    found = client.search_runs([experiment], f"tags.`{TRAINING_KEY}` = '{key}'", max_results=1)
    return found[0] if found else None


def open_run(client: "MlflowClient", run: TrackedRun, epochs_done: int, started: float) -> "Run":
    """The existing run of a training, or a new one, with its parameters and data.

    Args:
        epochs_done: by earlier runs of the training. A training that starts over gets a new run.
        started: seconds since 1970.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    found = find_run(client, run.experiment, run.key)
    ours = found is not None and found.data.tags.get(DAGSTER_RUN) == run.tags.get(DAGSTER_RUN)
    if found is None or not (ours or epochs_done or EPOCH not in found.data.metrics):
        tags = {TRAINING_KEY: run.key, **run.tags}
        found = client.create_run(run.experiment, round(started * 1000), tags, run.name)
    elif not ours:
        for name, value in run.tags.items():
            client.set_tag(found.info.run_id, name, value)
    # Again for an existing run, which MLflow ignores: the process that created it may have been killed before.
    run_id = found.info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)[:PARAMETER_LIMIT]) for key, value in run.parameters.items()])
    if run.data is not None:
        source, profile = json.dumps({"location": run.data.location}), json.dumps(run.data.profile)
        data = Dataset(run.data.name, run.data.version[:36], "local", source, profile=profile)
        client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    return found


def close_run(client: "MlflowClient", run: TrackedRun, run_id: str, status: str) -> None:
    """End a run; the run that groups its trainings lasts until the last of them has finished."""
    end = round(time.time() * 1000)
    client.set_terminated(run_id, status, end)
    if status == "FINISHED" and GROUP in run.tags:
        client.set_terminated(run.tags[GROUP], status, end)


def logged_epochs(client: "MlflowClient", run_id: str) -> set[int]:
    """Numbers of the epochs that a run has."""
    return {metric.step - 1 for metric in client.get_metric_history(run_id, EPOCH)}


def log_metrics(client: "MlflowClient", run_id: str, values: Epoch) -> None:
    """Log the values that are defined, those of an epoch at its number."""
    from mlflow.entities import Metric

    now, step = round(time.time() * 1000), 0
    if EPOCH in values:
        step = int(values[EPOCH] or 0) + 1
        values = {**values, EPOCH: step}
    metrics = [Metric(key, float(value), now, step) for key, value in values.items() if value is not None]
    client.log_batch(run_id, metrics=metrics)


class EpochLog:
    """Reports a training: its progress after each epoch to the log, and its metrics to the MLflow run, if there is one.

    If MLflow fails, training continues, and the op logs the missing metrics at the end.
    """

    def __init__(self, run: TrackedRun | None, max_epochs: int, log: Log, name: str = "") -> None:
        self.run, self.max_epochs, self.log, self.name = run, max_epochs, log, name
        self.started, self.first, self.best = time.time(), -1, 0.0
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._logged: set[int] = set()

    def begin(self, history: Sequence[Epoch]) -> None:
        """The training starts, or resumes after these epochs."""
        self.first = len(history)
        self.best = max((metrics.get(DECIDING) or 0.0 for metrics in history), default=0.0)
        if history:
            self.log(f"{self.name} resumes after epoch {self.first} of {self.max_epochs}".strip())
        self._track(lambda client, run: self._open(client, run, self.first))

    def __call__(self, metrics: Epoch) -> None:
        """An epoch has ended."""
        number = int(metrics[EPOCH] or 0)
        if self.first < 0:
            self.begin([{}] * number)  # a detector does not report earlier epochs
        seconds = (time.time() - self.started) / max(number + 1 - self.first, 1)
        left = f"{duration(seconds * (self.max_epochs - number - 1))} left"
        heading = f"{self.name} epoch {number + 1}/{self.max_epochs}".strip()
        self.log(Progress(GAP.join([heading, *self._figures(metrics), left])))
        if number not in self._logged:
            self._track(lambda client, _: self._log(client, metrics))

    def _figures(self, metrics: Epoch) -> Iterator[str]:
        for word, names in LOSSES.items():
            losses = [f"{value:.3g}" for name in names if (value := metrics.get(name)) is not None]
            if losses:
                yield f"{word} {'/'.join(losses)}"
        for word, name in RISING.items():
            if (value := metrics.get(name)) is not None:
                is_best = name == DECIDING and value > self.best
                self.best = value if is_best else self.best
                yield f"{word} {f'{value:.3f}'.removeprefix('0')}{' best' * is_best}"

    @contextmanager
    def closed(self) -> Iterator["EpochLog"]:
        """Close the run after the block: FINISHED, or FAILED if it raises an exception.

        If this process is terminated, the run stays open for the process that resumes the training, or for the op.
        """
        try:
            yield self
        except Exception:
            self._close("FAILED")
            raise
        self._close("FINISHED")

    def _open(self, client: "MlflowClient", run: TrackedRun, epochs_done: int) -> None:
        self._run_id = open_run(client, run, epochs_done, self.started).info.run_id
        client.update_run(self._run_id, status="RUNNING")
        if lock := os.environ.get(JOB_LOCK):
            client.set_tag(self._run_id, LOCK_TAG, lock)
        self._logged = logged_epochs(client, self._run_id)

    def _log(self, client: "MlflowClient", metrics: Epoch) -> None:
        if JOB_LOCK in os.environ:  # a Dagster run that ended in the meantime may have closed the run
            client.update_run(self._run_id, status="RUNNING")
        log_metrics(client, self._run_id, metrics)

    def _close(self, status: str) -> None:
        if self._run_id:
            self._track(lambda client, run: close_run(client, run, self._run_id, status))

    def _track(self, action: "Callable[[MlflowClient, TrackedRun], object]") -> None:
        if self.run is None:
            return
        try:
            if self._client is None:
                from mlflow import MlflowClient

                self._client = MlflowClient()
            action(self._client, self.run)
        except Exception as error:  # no error of a tracking server may end hours of training
            kind = type(error).__name__
            self.log(f"MLflow failed ({kind}); training continues, and its metrics are logged when the run ends.")
            self.run = None


def duration(seconds: float) -> str:
    """Seconds as text: 40 s, 7 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
