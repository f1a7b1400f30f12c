"""Train one architecture: load the splits, run the epochs, save each, publish the best weights.

One score selects the best epoch, lowers the learning rate and ends a training early: the mean over tasks of the PR-AUC
on val, by which the comparison ranks. Tasks without a positive label on val have no PR-AUC and are left out of the
mean; if no task has one, val loss decides.

Each epoch draws its order and its dropout from (seed, epoch), so a resumed training needs no state of random
generators. On a CPU it ends bit for bit like an undisturbed one. On a GPU, kernels that add in varying order leave
noise in the last digits.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from model.common.code import code_version
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import sha256
from model.dataset.split_file import read_fingerprint
from model.dataset.window_data import WindowData
from model.factory import architecture_of, create_model_variant
from model.recording.schema import used_schema
from model.training.checkpoint import SCHEMA_VERSION, read_checkpoint, save_checkpoint
from model.training.data import epoch_order, load_split, load_train, model_config
from model.training.epoch import evaluate, train_one_epoch
from model.training.loss import training_loss
from model.training.precision import choose_device, choose_precision
from model.training.published import (
    BEST,
    HISTORY,
    LATEST,
    LEARNT_BY,
    PREVIOUS,
    WORK,
    TrainingResult,
    hold,
    is_published,
    publish,
    read_history,
    restore_previous,
    write_history,
)
from model.training.recipes import TrainingConfig
from model.training.schedule import Metrics, Schedule
from model.training.step import Step


def train(
    architecture: str,
    splits: Path,
    output: Path,
    config: TrainingConfig,
    data_version: str = "",
    on_epoch: Callable[[dict[str, float | int]], None] = lambda metrics: None,
    force: bool = False,
    on_start: Callable[[list[Metrics]], None] = lambda history: None,
) -> TrainingResult:
    """Train on `splits`/train.h5, score on `splits`/val.h5, and publish into the folder `output`.

    Each epoch is saved in `output`/.work/<fingerprint of architecture, data version, config and code>. A process that
    ends early, however it ends, loses the epoch in progress; the next call resumes after the last one saved. When the
    training is complete, its files replace best_model.pt, latest_checkpoint.pt and training_history.json in `output`.
    If these have the same fingerprint already, they are returned and nothing is trained; if those in `output`/previous
    have it, they are published again.

    Args:
        data_version: that the splits must have, also when a training resumes; if empty, the one that they have.
        on_epoch: called with the figures of each epoch once it is saved, without those that the split leaves undefined.
            What it raises ends the training there.
        force: train even if the same training is published. One that was interrupted is resumed all the same.
        on_start: called with the figures of the epochs that are complete already, unless there is nothing to train.

    Raises:
        DataError: unknown architecture, wrong config or splits, `output` in use by another process, or too little GPU
            memory.
        FloatingPointError: a loss was not finite. Files published earlier stay.
    """
    architecture_of(architecture)
    expected = data_version or read_fingerprint(splits / "train.h5")
    data_version = expected or fingerprint([sha256(splits / f"{name}.h5") for name in ("train", "val")])
    options = config.model_dump(mode="json")
    work = output / WORK / fingerprint(architecture, data_version, options, code_version(*LEARNT_BY))
    with hold(output) as was_published, _explained_memory(config):
        if (was_published or not force) and not (work / LATEST).is_file():
            if not is_published(output, work.name) and is_published(output / PREVIOUS, work.name):
                restore_previous(output)
            if is_published(output, work.name):
                shutil.rmtree(work, ignore_errors=True)
                return TrainingResult(output, len(read_history(output)["epochs"]), reused=True, identity=work.name)
        work.mkdir(exist_ok=True)
        started, device = time.perf_counter(), choose_device(config.device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            train_data = load_train(splits / "train.h5", config, device, expected)
            val_data = load_split(splits / "val.h5", config, device, expected)
            sizes = model_config(architecture, config, train_data)
            schema = used_schema(train_data.inputs)
            identity = {
                "schema_version": SCHEMA_VERSION,
                "architecture": architecture,
                "model_config": sizes,
                "training_config": options,
                "data_version": data_version,
                "class_names": list(train_data.class_names),
                "inputs": list(train_data.inputs),
                "scaling": schema["scaling"],
                "schema": schema["fingerprint"],
            }
            resumed_from = _run_epochs(identity, train_data, val_data, work, config, on_start, on_epoch)
        publish(work, output)
        return TrainingResult(output, resumed_from, time.perf_counter() - started, identity=work.name)


@contextmanager
def _explained_memory(config: TrainingConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DataError(
            f"The GPU has too little memory for the splits and a batch_size of {config.batch_size}: lower batch_size, "
            f"end other programs on the GPU, or train with device cpu ({str(error).splitlines()[0]})."
        ) from error


def _run_epochs(
    identity: dict[str, Any],
    train_data: WindowData,
    val_data: WindowData,
    work: Path,
    config: TrainingConfig,
    on_start: Callable[[list[Metrics]], None],
    on_epoch: Callable[[dict[str, float | int]], None],
) -> int:
    """Run the epochs that folder `work` does not hold yet, on the device of the data -> how many it held."""
    device = train_data.telemetry.device
    torch.manual_seed(config.seed)
    model = create_model_variant(identity["model_config"]).to(device)
    train_data, val_data = model.prepare(train_data, val_data, config.batch_size)
    train_loss = training_loss(config, train_data.tasks, train_data.label_mask).to(device)
    val_loss = training_loss(config, config.tasks).to(device)
    step = Step(model, train_data, train_loss, config)

    history: list[Metrics] = []
    if (work / LATEST).is_file():
        state = read_checkpoint(work / LATEST)
        step.load_state_dict(state)
        history = state["history"]
    schedule = Schedule(config)
    for metrics in history:
        schedule.step(metrics)
    resumed_from = len(history)
    on_start(history)

    while not schedule.ended:
        started, epoch, rate = time.perf_counter(), schedule.epoch, schedule.rate
        seed = config.seed * 1_000_003 + epoch
        torch.manual_seed(seed)
        step.set_rate(rate)
        order = epoch_order(train_data, config, seed)
        skipped_before = sum(int(metrics["bad_steps"] or 0) for metrics in history)
        trained = train_one_epoch(step, order, config.most_bad_steps - skipped_before)
        scored = evaluate(step.final_model, val_data, val_loss, config)
        metrics = {"epoch": epoch, "lr": rate, **trained, **scored, "epoch_seconds": time.perf_counter() - started}
        history.append(metrics)
        schedule.step(metrics)
        _save(work, step, identity, schedule, history)
        on_epoch({name: value for name, value in metrics.items() if value is not None})
    return resumed_from


def _save(work: Path, step: Step, identity: dict[str, Any], schedule: Schedule, history: list[Metrics]) -> None:
    """Save the last epoch of `history`. The state to resume from is last: without it the epoch runs again."""
    metrics = history[-1]
    content = {**identity, "epoch": metrics["epoch"], "val_metrics": metrics}
    if schedule.best_epoch == metrics["epoch"]:
        save_checkpoint(work / BEST, {**content, "state_dict": step.final_model.state_dict()})
    seconds = sum(float(metrics["epoch_seconds"] or 0) for metrics in history)
    made = {
        "weights": sha256(work / BEST),
        "parameters": sum(parameter.numel() for parameter in step.model.parameters()),
        "windows_per_s": len(step.data) * len(history) / seconds,
        "device": str(step.device),
        "precision": choose_precision(step.config.precision, step.device),
    }
    best = {"best_epoch": schedule.best_epoch, "fingerprint": work.name}
    write_history(work / HISTORY, {**identity, **best, "made": made, "epochs": history})
    save_checkpoint(work / LATEST, {**content, **step.state_dict(), "history": history})
