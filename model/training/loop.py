"""Training one architecture: the recipe, the loop, checkpoints from which a killed run goes on exactly.

One figure decides what is best, when the rate falls and when to stop: the mean over tasks of the PR-AUC on val, since
that is what the comparison ranks by. Tasks without a positive on val have no PR-AUC and are left out of the mean; if
that is every task, val loss decides.

Each epoch draws its order and its dropout from (seed, epoch), so a resumed run needs no generator's state: on a CPU it
ends bit for bit where an uninterrupted one ends. On a GPU, kernels that add in varying order leave last-digit noise.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.common.code import code_version
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import locked, sha256
from model.common.progress import Tell
from model.dataset.window_data import Batch, WindowData
from model.factory import architecture_of, create_model_variant
from model.network.hazard import with_transitions
from model.recording.schema import BINARY_LABELS, used_schema
from model.training.checkpoint import SCHEMA_VERSION, load_checkpoint, read_checkpoint, save_checkpoint
from model.training.epoch import evaluate, train_one_epoch
from model.training.loss import UnifiedFocalLoss
from model.training.precision import choose_device, choose_precision
from model.training.published import (
    BEST,
    HISTORY,
    LATEST,
    LEARNT_BY,
    WORK,
    complete_publishing,
    publish,
    read_published,
    write_history,
)
from model.training.recipes import TrainingConfig
from model.training.result import Metrics, TrainingResult
from model.training.schedule import Schedule
from model.training.step import Step

__all__ = ["Schedule", "TrainingConfig", "TrainingResult", "evaluate", "load_checkpoint", "train", "train_one_epoch"]

BAD_BATCH = "bad_batch.pt"
LOCK_WAIT_S = 10.0
"""A killed run may take a moment to die while its successor starts already."""


def score(metrics: Mapping[str, float | int | None]) -> float:
    """What a run maximises: mean val PR-AUC, or minus val loss where no task has a positive on val."""
    mean = metrics["val_pr_auc_mean"]
    return mean if mean is not None else -float(metrics["val_loss"] or 0.0)


def load_split(
    path: Path, config: TrainingConfig, device: torch.device | str, tasks: Sequence[str] | None = None
) -> WindowData:
    """A split as the networks of `config` take it, with labels of `tasks`, or of those that `config` asks for."""
    return WindowData.load(path, device, tasks or config.tasks, config.gear, config.detection_classes)


def load_train(path: Path, config: TrainingConfig, device: torch.device | str) -> WindowData:
    """Train's split with what the networks of `config` are taught: labels, or the hazards' transitions."""
    if config.head == "labels":
        return load_split(path, config, device, config.trained_tasks)
    return with_transitions(load_split(path, config, device, BINARY_LABELS))


def training_loss(config: TrainingConfig, tasks: Sequence[str], known: Tensor | None = None) -> UnifiedFocalLoss:
    """The loss of `tasks`, labels or hazards; those that `config` does not ask for have the auxiliary weight.

    With `known` (W,tasks), where those of train are known, hazards add up to the likelihood of a window's course:
    one that is seldom met counts as seldom.
    """
    weights = config.weights
    if config.head == "hazard" and known is not None:
        shares = known.float().mean(dim=0).tolist()
        weights |= {task: weights[task] * share for task, share in zip(tasks, shares, strict=True)}
    if config.loss == "bce":  # the focal loss that weighs everything alike is half the cross-entropy
        alpha, gamma = dict.fromkeys(tasks, 0.5), dict.fromkeys(tasks, 0.0)
        return UnifiedFocalLoss(tasks, alpha, gamma, {task: 2 * weights[task] for task in tasks})
    return UnifiedFocalLoss(tasks, config.focal_alpha, config.focal_gamma, weights)


def model_config(architecture: str, config: TrainingConfig, data: WindowData) -> dict[str, Any]:
    """The keys of `create_model_variant` for an architecture, sized by `config` and fed by `data`."""
    return {
        **architecture_of(architecture),
        "telemetry_inputs": list(data.inputs),
        "telemetry_input_dim": data.telemetry_dim,
        "detection_input_dim_per_box": data.detection_dim,
        "prediction_tasks": config.trained_tasks,
        **config.network,
    }


def train(
    architecture: str,
    splits: Path,
    output: Path,
    config: TrainingConfig,
    data_version: str = "",
    on_epoch: Callable[[dict[str, float | int]], None] = lambda metrics: None,
    anew: bool = False,
    tell: Tell = print,
    on_start: Callable[[int], None] = lambda epochs_done: None,
) -> TrainingResult:
    """Train one architecture on `splits`/train.h5, watch `splits`/val.h5, publish into folder `output`.

    Working files live in `output`/.work/<fingerprint of architecture, data version, config and code>; a run that was
    killed resumes from them. When training ends they replace best_model.pt, latest_checkpoint.pt and
    training_history.json.
    Where these are of the same fingerprint already, they are taken over: nothing is trained.

    Args:
        data_version: what the splits hold, so that a run on other data is never resumed; if empty, the files' hashes.
        on_epoch: called with each epoch's figures once its checkpoint is written; figures that a split without
            positives leaves undefined are absent.
        anew: train though the same is published; a run that was killed in that is resumed all the same.
        tell: told if a batch does not fit into the device's memory and is done in parts.
        on_start: called with the number of epochs that a killed run had done, unless there is nothing to train.

    Raises:
        DataError: unknown architecture, wrong config or splits, `output` in use by another process, out of GPU memory.
        FloatingPointError: a loss was not finite. Files published earlier stay.
    """
    architecture_of(architecture)
    files = [splits / "train.h5", splits / "val.h5"]
    for path in files:
        if not path.is_file():
            raise DataError(f"{path} is missing: expected a split; build the splits first.")
    data_version = data_version or fingerprint([sha256(path) for path in files])
    options = config.model_dump(mode="json")
    work = output / WORK / fingerprint(architecture, data_version, options, code_version(*LEARNT_BY))
    in_use = f"{output} is in use: {{holder}} trains into it. Wait until that ends, or choose another output."
    with locked(output / WORK / "lock", LOCK_WAIT_S, in_use):
        complete_publishing(output)
        resumes = (work / LATEST).is_file()
        if not anew and not resumes and (published := read_published(output, work.name)) is not None:
            return published
        return _train(architecture, splits, work, config, data_version, on_epoch, tell, on_start)


def _train(
    architecture: str,
    splits: Path,
    work: Path,
    config: TrainingConfig,
    data_version: str,
    on_epoch: Callable[[dict[str, float | int]], None],
    tell: Tell,
    on_start: Callable[[int], None],
) -> TrainingResult:
    """Train to the end, or as far as it comes, in folder `work`, and publish."""
    started, output = time.perf_counter(), work.parents[1]
    device = choose_device(config.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        work.mkdir(exist_ok=True)
        try:
            run = _Run(architecture, splits, work, config, data_version, device, tell)
            resumed_from = len(run.history)
            on_start(resumed_from)
            run.to_the_end(on_epoch)
        except torch.OutOfMemoryError as error:
            raise DataError(
                f"{architecture} does not fit into the memory of {device} with batch_size {config.batch_size}, nor in "
                f"parts of it: use a smaller batch_size or network, or a device that nothing else uses ({error})."
            ) from error
    publish(work, output)
    result = read_published(output, work.name)
    if result is None:
        raise DataError(f"{output} was changed by someone else while the training was published: train again.")
    seconds = time.perf_counter() - started
    return dataclasses.replace(result, resumed_from=resumed_from, duration_s=seconds, taken_over=False)


class _Run:
    """State of one training; every epoch leaves it, and the working folder, ready for the next."""

    def __init__(
        self,
        architecture: str,
        splits: Path,
        work: Path,
        config: TrainingConfig,
        data_version: str,
        device: torch.device,
        tell: Tell,
    ) -> None:
        self.work, self.config = work, config
        self.train_data = load_train(splits / "train.h5", config, device)
        self.val_data = load_split(splits / "val.h5", config, device)
        _check_same_inputs(self.train_data, self.val_data)
        sizes = model_config(architecture, config, self.train_data)
        torch.manual_seed(config.seed)
        model = create_model_variant(sizes).to(device)
        self.train_data, self.val_data = model.prepare(self.train_data, self.val_data, config.batch_size)
        loss, precision = (
            training_loss(config, self.train_data.tasks, self.train_data.label_mask).to(device),
            choose_precision(config.precision, device),
        )
        self.step = Step(model, self.train_data, loss, precision, config, tell)
        self.val_loss = training_loss(config, config.tasks).to(device)
        self.schedule = Schedule(config)
        self.history: list[Metrics] = []
        self.bad_steps = 0
        self.identity: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "architecture": architecture,
            "model_config": sizes,
            "training_config": config.model_dump(mode="json"),
            "data_version": data_version,
            "class_names": list(self.train_data.class_names),
            "inputs": list(self.train_data.inputs),
            "scaling": (schema := used_schema(self.train_data.inputs))["scaling"],
            "schema": schema["fingerprint"],
        }
        self._resume()

    def _resume(self) -> None:
        latest = self.work / LATEST
        if not (latest.is_file() and (self.work / BEST).is_file()):
            return
        state = read_checkpoint(latest)
        if state["inputs"] != self.identity["inputs"]:
            raise DataError(
                f"{latest} was trained on {', '.join(state['inputs'])}, {self.train_data.path} holds "
                f"{', '.join(self.identity['inputs'])}: remove the folder to train anew."
            )
        self.step.load_state_dict(state)
        self.history = state["history"]
        self.bad_steps = sum(int(metrics.get("bad_steps") or 0) for metrics in self.history)
        for metrics in self.history:
            self.schedule.step(score(metrics))

    def to_the_end(self, on_epoch: Callable[[dict[str, float | int]], None]) -> None:
        while not self.schedule.ended:
            metrics = self._epoch()
            on_epoch({name: value for name, value in metrics.items() if value is not None})
        self._write_history()

    def _epoch(self) -> Metrics:
        config, epoch, started = self.config, self.schedule.epoch, time.perf_counter()
        rate = self.schedule.rate
        self.step.set_rate(rate)
        seed = config.seed * 1_000_003 + epoch
        torch.manual_seed(seed)
        trained = train_one_epoch(self.step, torch.Generator().manual_seed(seed), self._bad_step)
        size = max(1, config.batch_size // self.step.parts)
        watched = evaluate(self.step.final_model, self.val_data, self.val_loss, self.step.precision, size)
        metrics: Metrics = {"epoch": epoch, "lr": rate, **trained, **watched}
        metrics["epoch_seconds"] = time.perf_counter() - started
        self.history.append(metrics)
        self.schedule.step(score(metrics))
        self._write()
        return metrics

    def _bad_step(self, step: int, batch: Batch, loss: float) -> None:
        """Count a step that was left out; past the limit keep its batch and raise FloatingPointError."""
        self.bad_steps += 1
        if self.bad_steps <= self.config.most_bad_steps:
            return
        path = self.work / BAD_BATCH
        save_checkpoint(path, {**batch._asdict(), "epoch": self.schedule.epoch, "step": step})
        raise FloatingPointError(
            f"Training loss is {loss} or its gradient not finite at step {step} of epoch {self.schedule.epoch} "
            f"({self.train_data.path}), and {self.bad_steps - 1} steps before were left out for that: lower "
            f"learning_rate or use precision fp32, and look for wrong values in the split. The batch is in {path}."
        )

    def _write(self) -> None:
        """The best first: if the run dies before the latest is written, this epoch is done again, and equal."""
        metrics = self.history[-1]
        content = {**self.identity, "epoch": metrics["epoch"], "val_metrics": metrics}
        if self.schedule.best_epoch == metrics["epoch"]:
            save_checkpoint(self.work / BEST, {**content, "state_dict": self.step.final_model.state_dict()})
        save_checkpoint(self.work / LATEST, {**content, **self.step.state_dict(), "history": self.history})
        self._write_history()

    def _write_history(self) -> None:
        seconds = sum(float(metrics["epoch_seconds"] or 0) for metrics in self.history)
        made = {
            "weights": sha256(self.work / BEST),
            "parameters": sum(parameter.numel() for parameter in self.step.model.parameters()),
            "windows_per_s": len(self.train_data) * len(self.history) / seconds,
            "device": str(self.step.precision.device),
            "precision": self.step.precision.name,
        }
        best = {"best_epoch": self.schedule.best_epoch, "fingerprint": self.work.name}
        write_history(self.work / HISTORY, {**self.identity, **best, "made": made, "epochs": self.history})


def _check_same_inputs(train_data: WindowData, val_data: WindowData) -> None:
    for name in ("class_names", "length", "inputs"):
        ours, theirs = getattr(train_data, name), getattr(val_data, name)
        if ours != theirs:
            raise DataError(
                f"{name} differs: {ours} in {train_data.path}, {theirs} in {val_data.path}; make both splits again."
            )
