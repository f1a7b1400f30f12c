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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import locked, sha256, write_json
from model.dataset.window_data import Batch, WindowData
from model.evaluation.measures import average_precision, roc_auc
from model.factory import architecture_of, create_model_variant
from model.recording.schema import used_schema
from model.training.checkpoint import SCHEMA_VERSION, load_checkpoint, read_checkpoint, save_checkpoint
from model.training.loss import UnifiedFocalLoss
from model.training.published import BEST, HISTORY, LATEST, WORK, complete_publishing, publish, read_published
from model.training.recipes import OTHER_WEIGHT, TrainingConfig
from model.training.result import Metrics, TrainingResult
from model.training.schedule import Schedule

__all__ = ["Schedule", "TrainingConfig", "TrainingResult", "evaluate", "load_checkpoint", "train", "train_one_epoch"]

BAD_BATCH = "bad_batch.pt"
LOOK_EVERY = 50
LOCK_WAIT_S = 10.0
"""A killed run may take a moment to die while its successor starts already."""


@dataclass
class Precision:
    """How a step computes: autocast's type, and the scaler that fp16 needs."""

    device: torch.device
    name: str

    def __post_init__(self) -> None:
        if self.name == "fp16" and self.device.type != "cuda":
            raise DataError(f"precision fp16 on {self.device}: expected a CUDA device; use bf16 or fp32.")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")

    def autocast(self) -> torch.autocast:
        kind = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=kind, enabled=self.name != "fp32")

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, model: nn.Module, gradient_norm: float) -> Tensor:
        """Backward, clip, and step unless something is not finite -> whether that was so, a bool on the device.

        fp16's gradients overflow now and then while its scaler finds its scale: there only the loss counts as bad.
        """
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), gradient_norm)
        bad = ~torch.isfinite(loss.detach())
        if self.scaler.is_enabled():
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            bad = bad | ~torch.isfinite(norm)
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # fused AdamW leaves the step out on the device
            optimizer.step()
        return bad


def choose_device(name: str) -> torch.device:
    """The device that a config names. DataError if this machine has none such."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device {name!r} cannot be used here ({error}): expected auto, cpu or cuda:N.") from error


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision that a config names; auto is bf16 on CUDA from Ampere on, fp16 on older CUDA, else fp32."""
    if name == "auto" and device.type == "cuda":
        name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return Precision(device, "fp32" if name == "auto" else name)


def score(metrics: Mapping[str, float | int | None]) -> float:
    """What a run maximises: mean val PR-AUC, or minus val loss where no task has a positive on val."""
    mean = metrics["val_pr_auc_mean"]
    return mean if mean is not None else -float(metrics["val_loss"] or 0.0)


def train_one_epoch(
    model: nn.Module,
    data: WindowData,
    loss: UnifiedFocalLoss,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    config: TrainingConfig,
    generator: torch.Generator,
    on_bad_step: Callable[[int, Batch, float], None],
    average: AveragedModel | None = None,
) -> Metrics:
    """One pass over the windows in random order -> {"train_loss": mean over windows, "bad_steps": steps left out}.

    A step with a loss or a gradient that is not finite changes no weight. What happened stays on the device and is
    looked at after each step on a CPU, and every LOOK_EVERY steps on a GPU, so that no step waits for one.

    Args:
        on_bad_step: called with the step's number, its batch and its loss; what it raises ends the pass.
        average: takes the weights after each step.
    """
    model.train()
    values, bad, seen = [], [], 0
    every = 1 if precision.device.type == "cpu" else LOOK_EVERY
    chosen = torch.split(data.order(generator), config.batch_size)
    for step, windows in enumerate(chosen):
        batch = data.gather(windows)
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            logits = model(*batch[:3])
        value = loss(logits, batch.labels, batch.label_mask, _onset_weight(batch, config.onset_weight))
        values.append(value.detach())
        bad.append(precision.step(value, optimizer, model, config.gradient_norm))
        if average is not None:
            average.update_parameters(model)
        if (step + 1) % every == 0 or step + 1 == len(chosen):
            for found in (torch.stack(bad[seen:]).nonzero()[:, 0] + seen).tolist():
                on_bad_step(found, data.gather(chosen[found]), values[found].item())
            seen = step + 1
    good = ~torch.stack(bad)
    weights = torch.tensor([len(windows) for windows in chosen], dtype=torch.float64, device=good.device)[good]
    losses = torch.stack(values)[good].double()
    mean = float((losses @ weights / weights.sum()).item()) if len(losses) else None
    return {"train_loss": mean, "bad_steps": len(bad) - len(losses)}


def _onset_weight(batch: Batch, weight: float) -> Tensor | None:
    return None if weight == 1.0 else torch.where(batch.going_on, 1.0, weight)


@torch.no_grad()
def evaluate(
    model: nn.Module, data: WindowData, loss: UnifiedFocalLoss, precision: Precision, batch_size: int
) -> Metrics:
    """Loss, and each task's PR-AUC (None without a positive) and ROC-AUC (None without both classes), on a split.

    Returns:
        {"val_loss", "val_pr_auc_mean", "val_pr_auc_{task}", "val_roc_auc_{task}"}; the loss is that of all windows as
        one batch.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    model.eval()
    outputs: list[Tensor] = []
    for batch in data.batches(batch_size):
        with precision.autocast():
            logits = model(*batch[:3])
        outputs.append(torch.stack([logits[task] for task in data.tasks], dim=1).float())
    stacked = torch.cat(outputs)
    value = loss(dict(zip(data.tasks, stacked.T, strict=True)), data.labels, data.label_mask).item()
    if not abs(value) < float("inf"):
        raise FloatingPointError(
            f"Validation loss is {value} ({data.path}): lower learning_rate or use precision fp32."
        )
    scores = stacked.sigmoid().double().cpu().numpy()
    labels, known = data.labels.cpu().numpy() > 0.5, data.label_mask.cpu().numpy()
    metrics: Metrics = {"val_loss": value, "val_pr_auc_mean": None}
    areas: list[float] = []
    for column, task in enumerate(data.tasks):
        y, p = labels[known[:, column], column], scores[known[:, column], column]
        area = average_precision(y, p)
        metrics |= {f"val_pr_auc_{task}": area, f"val_roc_auc_{task}": roc_auc(y, p)}
        areas += [] if area is None else [area]
    if areas:
        metrics["val_pr_auc_mean"] = sum(areas) / len(areas)
    return metrics


def load_split(
    path: Path, config: TrainingConfig, device: torch.device | str, tasks: Sequence[str] | None = None
) -> WindowData:
    """A split as the networks of `config` take it, with labels of `tasks`, or of those that `config` asks for."""
    return WindowData.load(path, device, tasks or config.tasks, config.gear, config.detection_classes)


def training_loss(config: TrainingConfig, tasks: Sequence[str]) -> UnifiedFocalLoss:
    """The loss of `tasks`; those that `config` does not ask for have the auxiliary weight."""
    weights = {**config.task_weights, **{task: config.auxiliary_weight for task in tasks if task not in config.tasks}}
    if config.loss == "bce":  # the focal loss that weighs everything alike is half the cross-entropy
        alpha, gamma = dict.fromkeys(tasks, 0.5), dict.fromkeys(tasks, 0.0)
        return UnifiedFocalLoss(tasks, alpha, gamma, {task: 2 * weights.get(task, OTHER_WEIGHT) for task in tasks})
    return UnifiedFocalLoss(tasks, config.focal_alpha, config.focal_gamma, weights)


def model_config(architecture: str, config: TrainingConfig, data: WindowData) -> dict[str, Any]:
    """The keys of `create_model_variant` for an architecture, sized by `config` and fed by `data`."""
    return {
        **architecture_of(architecture),
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
) -> TrainingResult:
    """Train one architecture on `splits`/train.h5, watch `splits`/val.h5, publish into folder `output`.

    Working files live in `output`/.work/<fingerprint of architecture, data version and config>; a run that was killed
    resumes from them. When training ends they replace best_model.pt, latest_checkpoint.pt and training_history.json.
    Where these are of the same fingerprint already, they are taken over: nothing is trained.

    Args:
        data_version: what the splits hold, so that a run on other data is never resumed; if empty, the files' hashes.
        on_epoch: called with each epoch's figures once its checkpoint is written; figures that a split without
            positives leaves undefined are absent.
        anew: train though the same is published; a run that was killed in that is resumed all the same.

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
    work = output / WORK / fingerprint(architecture, data_version, config.model_dump(mode="json"))
    in_use = f"{output} is in use: {{holder}} trains into it. Wait until that ends, or choose another output."
    with locked(output / WORK / "lock", LOCK_WAIT_S, in_use):
        complete_publishing(output)
        resumes = (work / LATEST).is_file()
        if not anew and not resumes and (published := read_published(output, work.name)) is not None:
            return published
        return _train(architecture, splits, work, config, data_version, on_epoch)


def _train(
    architecture: str,
    splits: Path,
    work: Path,
    config: TrainingConfig,
    data_version: str,
    on_epoch: Callable[[dict[str, float | int]], None],
) -> TrainingResult:
    """Train to the end, or as far as it comes, in folder `work`, and publish."""
    started, output = time.perf_counter(), work.parents[1]
    device = choose_device(config.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        work.mkdir(exist_ok=True)
        try:
            resumed_from = _Run(architecture, splits, work, config, data_version, device).to_the_end(on_epoch)
        except torch.cuda.OutOfMemoryError as error:
            raise DataError(
                f"{architecture} does not fit into the memory of {device} with batch_size {config.batch_size}: use a "
                f"smaller batch_size, or a device that nothing else uses ({error})."
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
    ) -> None:
        self.work, self.config, self.precision = work, config, choose_precision(config.precision, device)
        self.train_data = load_split(splits / "train.h5", config, device, config.trained_tasks)
        self.val_data = load_split(splits / "val.h5", config, device)
        _check_same_inputs(self.train_data, self.val_data)
        sizes = model_config(architecture, config, self.train_data)
        torch.manual_seed(config.seed)
        self.model = create_model_variant(sizes).to(device)
        self.average = _average(self.model, config.ema_decay) if config.ema_decay > 0 else None
        self.loss = training_loss(config, config.trained_tasks).to(device)
        self.val_loss = training_loss(config, config.tasks).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay_ratio * config.learning_rate,
            fused=device.type in ("cpu", "cuda"),
        )
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
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if state["scaler"]:  # empty where it was not needed: the run may have begun on another kind of device
            self.precision.scaler.load_state_dict(state["scaler"])
        self.history = state["history"]
        self.bad_steps = sum(int(metrics.get("bad_steps") or 0) for metrics in self.history)
        for metrics in self.history:
            self.schedule.step(score(metrics))

    @property
    def final_model(self) -> nn.Module:
        """What is scored and published: the average of the weights, if one is kept."""
        return self.model if self.average is None else self.average.module

    def to_the_end(self, on_epoch: Callable[[dict[str, float | int]], None]) -> int:
        """Train all epochs that are left; returns how many an earlier run had done."""
        resumed_from = len(self.history)
        while not self.schedule.ended:
            metrics = self._epoch()
            on_epoch({name: value for name, value in metrics.items() if value is not None})
        self._write_history()
        return resumed_from

    def _epoch(self) -> Metrics:
        config, epoch, started = self.config, self.schedule.epoch, time.perf_counter()
        rate = self.schedule.rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed = config.seed * 1_000_003 + epoch
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        trained = train_one_epoch(
            self.model,
            self.train_data,
            self.loss,
            self.optimizer,
            self.precision,
            config,
            generator,
            self._bad_step,
            self.average,
        )
        watched = evaluate(self.final_model, self.val_data, self.val_loss, self.precision, config.batch_size)
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
            save_checkpoint(self.work / BEST, {**content, "state_dict": self.final_model.state_dict()})
        content |= {"state_dict": self.model.state_dict(), "history": self.history}
        if self.average is not None:
            content["average"] = self.average.state_dict()
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.precision.scaler.state_dict()}
        save_checkpoint(self.work / LATEST, {**content, **state})
        self._write_history()

    def _write_history(self) -> None:
        seconds = sum(float(metrics["epoch_seconds"] or 0) for metrics in self.history)
        made = {
            "weights": sha256(self.work / BEST),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "windows_per_s": len(self.train_data) * len(self.history) / seconds,
            "device": str(self.precision.device),
            "precision": self.precision.name,
        }
        best = {"best_epoch": self.schedule.best_epoch, "fingerprint": self.work.name}
        write_json(self.work / HISTORY, {**self.identity, **best, "made": made, "epochs": self.history})


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """The mean of the weights over steps, which forgets by `decay`, sooner at the beginning; buffers are copied."""

    def update(averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
        share = 1 - ((1 + steps) / (10 + steps)).clamp(max=decay)
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, share.to(average.dtype))

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(update))  # type: ignore[arg-type]  # never a number of steps


def _check_same_inputs(train_data: WindowData, val_data: WindowData) -> None:
    for name in ("class_names", "length", "inputs"):
        ours, theirs = getattr(train_data, name), getattr(val_data, name)
        if ours != theirs:
            raise DataError(
                f"{name} differs: {ours} in {train_data.path}, {theirs} in {val_data.path}; make both splits again."
            )
