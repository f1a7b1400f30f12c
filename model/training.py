"""Training one architecture: the recipe, the loop, checkpoints from which a killed run goes on exactly.

One figure decides what is best, when the rate falls and when to stop: the mean over tasks of the PR-AUC on val, since
that is what the comparison ranks by. Tasks without a positive on val have no PR-AUC and are left out of the mean; if
that is every task, val loss decides.

Each epoch draws its order and its dropout from (seed, epoch), so a resumed run needs no generator's state: on a CPU it
ends bit for bit where an uninterrupted one ends. On a GPU, kernels that add in varying order leave last-digit noise.
"""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from model.config import fingerprint, option, to_dict
from model.dataset import WindowData
from model.errors import DataError
from model.factory import ModelConfig, MultimodalModel, architecture_of, check_tasks, create_model_variant
from model.features import GEAR_CODINGS
from model.files import atomic_path, write_json
from model.labels import DEFAULT_TASKS
from model.loss import FOCAL_ALPHA, FOCAL_GAMMA, TASK_WEIGHTS, UnifiedFocalLoss
from model.metrics import average_precision, roc_auc

SCHEMA_VERSION = 1
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
BEST, LATEST, HISTORY = "best_model.pt", "latest_checkpoint.pt", "training_history.json"
Metrics = dict[str, float | int | None]


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe. Defaults are the reference recipe."""

    tasks: tuple[str, ...] = option(DEFAULT_TASKS, "Labels to predict, any of the ten")
    epochs: int = option(100, "Most epochs")
    batch_size: int = option(256, "Windows a step")
    learning_rate: float = option(5e-5, "Learning rate of AdamW after warm-up")
    weight_decay_ratio: float = option(0.225, "Weight decay of AdamW as a multiple of the learning rate")
    warmup_epochs: int = option(8, "Epochs over which the rate rises linearly to the learning rate")
    warmup_start: float = option(0.05, "Rate of the first warm-up epoch as a share of the learning rate")
    plateau_factor: float = option(0.85, "Factor on the rate when mean val PR-AUC stops rising")
    plateau_patience: int = option(6, "Epochs without a better mean val PR-AUC, after warm-up, before the rate falls")
    rate_floor: float = option(0.01, "Lowest rate as a share of the learning rate")
    early_stop_patience: int = option(20, "Epochs without a better mean val PR-AUC, after warm-up, that end the run")
    gradient_norm: float = option(1.0, "Gradients are clipped to this norm")
    precision: str = option("auto", "auto | fp32 | bf16 | fp16; auto: bf16 where CUDA has it, else fp16, fp32 on CPU")
    device: str = option("auto", "auto (CUDA if there is one, else CPU) or a torch device such as cuda:1")
    seed: int = option(0, "Seed of weights, order and dropout")
    focal_alpha: dict[str, float] = option(FOCAL_ALPHA, "Focal loss: weight of positives by task; others 0.25")
    focal_gamma: dict[str, float] = option(FOCAL_GAMMA, "Focal loss: focus on hard windows by task; others 2.0")
    task_weights: dict[str, float] = option(TASK_WEIGHTS, "Weight of a task's loss; others 1.0")
    gear: str = option("onehot", "GEAR as onehot (6 features) or continuous (1 feature)")
    detection_classes: bool = option(False, "Give the networks the detections' classes, one-hot")
    embedding_dim: int = option(ModelConfig.embedding_dim, "Width of the encoders and of the fusion")
    hidden_dim: int = option(ModelConfig.hidden_dim, "Width of the decoder")
    attention_num_heads: int = option(ModelConfig.attention_num_heads, "Heads of every attention")
    decoder_num_layers: int = option(ModelConfig.decoder_num_layers, "Layers of the LSTM or of the transformer")
    dropout_prob: float = option(ModelConfig.dropout_prob, "Dropout in training")

    def __post_init__(self) -> None:
        check_tasks(self.tasks, "tasks")
        limits = (
            (("epochs", "batch_size", "plateau_patience", "early_stop_patience"), 1, None),
            (("warmup_epochs", "seed", "weight_decay_ratio"), 0, None),
            (("warmup_start", "plateau_factor", "rate_floor"), 0, 1),
        )
        for names, low, high in limits:
            for name in names:
                value = getattr(self, name)
                if not value >= low or (high is not None and value > high):
                    raise DataError(f"{name} {value}: expected {low} to {high if high is not None else 'any'}.")
        for name in ("learning_rate", "gradient_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise DataError(f"{name} {getattr(self, name)}: expected a positive number.")
        for name, allowed in (("precision", PRECISIONS), ("gear", GEAR_CODINGS)):
            if getattr(self, name) not in allowed:
                raise DataError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(allowed)}.")


@dataclass(frozen=True)
class TrainingResult:
    """What a training made."""

    architecture: str
    fingerprint: str
    best_epoch: int
    best_metrics: Metrics
    history: list[Metrics]
    resumed_from: int
    """Epochs that an earlier, killed run had done."""
    best_model: Path
    latest_checkpoint: Path
    training_history: Path
    parameters: int
    duration_s: float
    """Of this run, without the epochs of an earlier one."""
    windows_per_s: float
    """Training windows a second over the history's epochs, validation included."""
    device: str
    precision: str


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


def choose_device(name: str) -> torch.device:
    """The device that a config names. DataError if this machine has none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device {name!r} cannot be used here ({error}): expected auto, cpu or cuda:N.") from error


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision that a config names; auto is bf16 on CUDA from Ampere on, fp16 on older CUDA, else fp32."""
    if name == "auto" and device.type == "cuda":
        name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return Precision(device, "fp32" if name == "auto" else name)


class Schedule:
    """Rate, best epoch and end of a run as a function of the scores seen so far (higher is better)."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.epoch = 0
        self.best_epoch = -1
        self.best_score = float("-inf")
        self._factor = 1.0
        self._waited_for_rate = 0
        self._waited_for_end = 0

    @property
    def rate(self) -> float:
        """The learning rate of the coming epoch."""
        config = self.config
        if self.epoch < config.warmup_epochs:
            share = config.warmup_start + (1 - config.warmup_start) * self.epoch / config.warmup_epochs
            return config.learning_rate * share
        return config.learning_rate * self._factor

    @property
    def ended(self) -> bool:
        return self.epoch >= self.config.epochs or self._waited_for_end >= self.config.early_stop_patience

    def step(self, score: float) -> None:
        """Take the score of the epoch that ended."""
        config = self.config
        if score > self.best_score:
            self.best_epoch, self.best_score = self.epoch, score
            self._waited_for_rate = self._waited_for_end = 0
        elif self.epoch >= config.warmup_epochs:
            self._waited_for_rate += 1
            self._waited_for_end += 1
        if self._waited_for_rate > config.plateau_patience:
            self._factor = max(self._factor * config.plateau_factor, config.rate_floor)
            self._waited_for_rate = 0
        self.epoch += 1


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
    batch_size: int,
    gradient_norm: float,
    generator: torch.Generator,
) -> Metrics:
    """One pass over the windows in random order -> {"train_loss": mean over windows}.

    Losses stay on the device until the pass ends, so that no step waits for one.

    Raises:
        FloatingPointError: a loss was not finite; names the step.
    """
    model.train()
    losses, sizes = [], []
    scaler = precision.scaler
    for batch in data.batches(batch_size, generator):
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            logits = model(*batch[:3])
        value = loss(logits, batch.labels, batch.label_mask)
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), gradient_norm)
        scaler.step(optimizer)
        scaler.update()
        losses.append(value.detach())
        sizes.append(len(batch.labels))
    every = torch.stack(losses).cpu()
    if not torch.isfinite(every).all():
        step = int((~torch.isfinite(every)).nonzero()[0])
        raise FloatingPointError(
            f"Training loss is {every[step].item()} at step {step} of {len(every)} ({data.path}): lower learning_rate "
            "or use precision fp32, and look for wrong values in the split."
        )
    weights = torch.tensor(sizes, dtype=torch.float64)
    return {"train_loss": float((every.double() @ weights / weights.sum()).item())}


@torch.no_grad()
def evaluate(
    model: nn.Module, data: WindowData, loss: UnifiedFocalLoss, precision: Precision, batch_size: int
) -> Metrics:
    """Loss and PR-AUC and ROC-AUC of each task on a split; None where a task has not both classes.

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
    areas = []
    for column, task in enumerate(data.tasks):
        y, p = labels[known[:, column], column], scores[known[:, column], column]
        both = bool(y.any() and not y.all())
        metrics[f"val_pr_auc_{task}"] = float(average_precision(y, p)) if y.any() else None
        metrics[f"val_roc_auc_{task}"] = float(roc_auc(y, p)) if both else None
        areas += [metrics[f"val_pr_auc_{task}"]] if y.any() else []
    if areas:
        metrics["val_pr_auc_mean"] = sum(areas) / len(areas)  # type: ignore[arg-type]
    return metrics


def load_split(path: Path, config: TrainingConfig, device: torch.device | str) -> WindowData:
    """A split as the networks of `config` take it."""
    return WindowData.load(path, device, config.tasks, config.gear, config.detection_classes)


def model_config(architecture: str, config: TrainingConfig, data: WindowData) -> dict[str, Any]:
    """The keys of `create_model_variant` for an architecture, sized by `config` and fed by `data`."""
    return {
        **architecture_of(architecture),
        "telemetry_input_dim": data.telemetry_dim,
        "detection_input_dim_per_box": data.detection_dim,
        "prediction_tasks": list(config.tasks),
        **{
            name: getattr(config, name)
            for name in ("embedding_dim", "hidden_dim", "attention_num_heads", "decoder_num_layers", "dropout_prob")
        },
    }


def train(
    architecture: str,
    splits: Path,
    output: Path,
    config: TrainingConfig = TrainingConfig(),
    data_version: str = "",
    on_epoch: Callable[[dict[str, float | int]], None] = lambda metrics: None,
) -> TrainingResult:
    """Train one architecture on `splits`/train.h5, watch `splits`/val.h5, publish into folder `output`.

    Working files live in `output`/.work/<fingerprint of architecture, data version and config>; a run that was killed
    goes on from them. When training ends they replace best_model.pt, latest_checkpoint.pt and training_history.json.

    Args:
        data_version: what the splits hold, so that a checkpoint of other data is never resumed.
        on_epoch: called with each epoch's figures once its checkpoint is written; figures that a split without
            positives leaves undefined are absent.

    Raises:
        DataError: unknown architecture, wrong config or splits, `output` in use by another process, out of GPU memory.
        FloatingPointError: a loss was not finite. Files published earlier stay.
    """
    architecture_of(architecture)
    identity = fingerprint(architecture, data_version, to_dict(config))
    work = output / ".work" / identity
    device = choose_device(config.device)
    cuda = [device] if device.type == "cuda" else []
    with _locked(output / ".work" / "lock", output), torch.random.fork_rng(cuda):
        work.mkdir(exist_ok=True)
        try:
            run = _Run(architecture, splits, work, config, data_version, device)
            result = run.to_the_end(on_epoch)
        except torch.cuda.OutOfMemoryError as error:
            raise DataError(
                f"{architecture} does not fit into the memory of {device} with batch_size {config.batch_size}: use a "
                f"smaller batch_size, or a device that nothing else uses ({error})."
            ) from error
        return _publish(work, output, result)


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
        self.train_data = load_split(splits / "train.h5", config, device)
        self.val_data = load_split(splits / "val.h5", config, device)
        _check_same_inputs(self.train_data, self.val_data)
        sizes = model_config(architecture, config, self.train_data)
        torch.manual_seed(config.seed)
        self.model = create_model_variant(sizes).to(device)
        self.loss = UnifiedFocalLoss(config.tasks, config.focal_alpha, config.focal_gamma, config.task_weights)
        self.loss.to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay_ratio * config.learning_rate,
            fused=device.type in ("cpu", "cuda"),
        )
        self.schedule = Schedule(config)
        self.history: list[Metrics] = []
        self.identity: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "architecture": architecture,
            "model_config": sizes,
            "training_config": to_dict(config),
            "data_version": data_version,
            "class_names": list(self.train_data.class_names),
        }
        self._resume()

    def _resume(self) -> None:
        latest = self.work / LATEST
        if not latest.exists():
            return
        state = read_checkpoint(latest)
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.history = state["history"]
        for metrics in self.history:
            self.schedule.step(score(metrics))

    def to_the_end(self, on_epoch: Callable[[dict[str, float | int]], None]) -> TrainingResult:
        started, resumed_from = time.perf_counter(), len(self.history)
        while not self.schedule.ended:
            metrics = self._epoch()
            on_epoch({name: value for name, value in metrics.items() if value is not None})
        seconds = sum(float(metrics["epoch_seconds"] or 0) for metrics in self.history)
        return TrainingResult(
            architecture=self.identity["architecture"],
            fingerprint=self.work.name,
            best_epoch=self.schedule.best_epoch,
            best_metrics=self.history[self.schedule.best_epoch],
            history=self.history,
            resumed_from=resumed_from,
            best_model=self.work / BEST,
            latest_checkpoint=self.work / LATEST,
            training_history=self.work / HISTORY,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            duration_s=time.perf_counter() - started,
            windows_per_s=len(self.train_data) * len(self.history) / seconds,
            device=str(self.precision.device),
            precision=self.precision.name,
        )

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
            config.batch_size,
            config.gradient_norm,
            generator,
        )
        watched = evaluate(self.model, self.val_data, self.loss, self.precision, config.batch_size)
        metrics: Metrics = {"epoch": epoch, "lr": rate, **trained, **watched}
        metrics["epoch_seconds"] = time.perf_counter() - started
        self.history.append(metrics)
        self.schedule.step(score(metrics))
        self._write()
        return metrics

    def _write(self) -> None:
        """The best first: if the run dies before the latest is written, this epoch is done again, and equal."""
        metrics = self.history[-1]
        content = {**self.identity, "epoch": metrics["epoch"], "state_dict": self.model.state_dict()}
        if self.schedule.best_epoch == metrics["epoch"]:
            _save(self.work / BEST, {**content, "val_metrics": metrics})
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.precision.scaler.state_dict()}
        _save(self.work / LATEST, {**content, **state, "history": self.history, "val_metrics": metrics})
        identity = {name: value for name, value in self.identity.items() if name != "class_names"}
        best = {"best_epoch": self.schedule.best_epoch, "fingerprint": self.work.name}
        write_json(self.work / HISTORY, {**identity, **best, "epochs": self.history})


def load_checkpoint(path: Path, architecture: str | None = None) -> tuple[MultimodalModel, dict[str, Any]]:
    """The network of a checkpoint, on the CPU and in evaluation mode, and the rest of the checkpoint.

    Raises:
        DataError: the file is missing, cannot be read, is no checkpoint of ours, or is not of `architecture`.
    """
    content = read_checkpoint(path)
    found = content["architecture"]
    if architecture is not None and found != architecture:
        raise DataError(f"{path} is a checkpoint of {found}: expected {architecture}; train that one or name its file.")
    model = create_model_variant(content["model_config"])
    try:
        model.load_state_dict(content.pop("state_dict"))
    except RuntimeError as error:
        raise DataError(f"{path} does not fit its own model_config; train {found} again ({error}).") from error
    return model.eval(), content


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content on the CPU, as plain types and tensors. DataError as `load_checkpoint`."""
    if not path.is_file():
        raise DataError(f"{path} is missing: expected a checkpoint; train the architecture first.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise DataError(f"{path} may not be read ({error}).") from error
    except Exception as error:  # torch.load raises half a dozen kinds for a file that is cut or foreign
        raise DataError(f"{path} cannot be read as a checkpoint; train the architecture again ({error}).") from error
    keys = {"schema_version", "architecture", "model_config", "training_config", "data_version", "epoch", "state_dict"}
    if not isinstance(content, dict) or not keys <= set(content):
        raise DataError(f"{path} is no checkpoint of this project: expected the keys {', '.join(sorted(keys))}.")
    if content["schema_version"] != SCHEMA_VERSION:
        raise DataError(f"{path} has schema {content['schema_version']}: expected {SCHEMA_VERSION}; train again.")
    return content


def _save(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def _publish(work: Path, output: Path, result: TrainingResult) -> TrainingResult:
    """Copy the working files over the published ones, each at once, then drop the working folder."""
    for name in (BEST, LATEST, HISTORY):
        with atomic_path(output / name) as temporary:
            shutil.copyfile(work / name, temporary)
    shutil.rmtree(work)
    paths = {"best_model": output / BEST, "latest_checkpoint": output / LATEST, "training_history": output / HISTORY}
    return dataclasses.replace(result, **paths)


def _check_same_inputs(train_data: WindowData, val_data: WindowData) -> None:
    for name in ("class_names", "length"):
        ours, theirs = getattr(train_data, name), getattr(val_data, name)
        if ours != theirs:
            raise DataError(
                f"{name} differs: {ours} in {train_data.path}, {theirs} in {val_data.path}; make both splits again."
            )


@contextlib.contextmanager
def _locked(path: Path, output: Path, wait_s: float = 10.0) -> Iterator[None]:
    """Hold `output` for this process. The system frees it when the process ends, however it ends.

    A killed run may take a moment to die while its successor starts already, hence the wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        deadline = time.monotonic() + wait_s
        while not _try_lock(lock):
            if time.monotonic() >= deadline:
                lock.seek(0)
                raise DataError(
                    f"{output} is in use: process {lock.read().strip() or 'unknown'} trains into it. Wait until that "
                    "ends, or choose another output."
                )
            time.sleep(0.2)
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {os.uname().nodename}")
        lock.flush()
        yield


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
