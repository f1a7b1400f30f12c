"""The state of a training: from an epoch to the next, and saved within one when it is to end or each few minutes.

A signal that ends the process waits until the step that runs is done and all is saved (`HeldSignals`).
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.common.errors import DataError
from model.common.files import sha256
from model.common.progress import Tell
from model.common.signals import HeldSignals
from model.dataset.window_data import Batch
from model.factory import create_model_variant
from model.recording.schema import used_schema
from model.training.checkpoint import SCHEMA_VERSION, read_checkpoint, save_checkpoint
from model.training.epoch import StepsDone, evaluate, train_one_epoch
from model.training.precision import choose_precision
from model.training.published import BEST, HISTORY, LATEST, write_history
from model.training.recipes import TrainingConfig
from model.training.result import Metrics, score
from model.training.schedule import Schedule
from model.training.setup import check_same_inputs, load_split, load_train, model_config, training_loss
from model.training.step import Step

BAD_BATCH = "bad_batch.pt"
SAVE_EVERY_S = 300.0
"""What a training that is killed outright loses at most."""


class Run:
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
        self.work, self.config, self.tell = work, config, tell
        self.train_data = load_train(splits / "train.h5", config, device)
        self.val_data = load_split(splits / "val.h5", config, device)
        check_same_inputs(self.train_data, self.val_data)
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
        self.done = StepsDone()
        self.seconds = 0.0
        """That a killed run spent on `done`."""
        self.saved_at = self.started = time.perf_counter()
        self.signals = HeldSignals()
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
        if not latest.is_file():
            return
        state = read_checkpoint(latest)
        if state["history"] and not (self.work / BEST).is_file():
            return
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
        if "within_epoch" in state:
            self._resume_within_epoch(**state["within_epoch"])

    def _resume_within_epoch(self, losses: Tensor, left_out: Tensor, seconds: float, random: dict[str, Tensor]) -> None:
        device, self.seconds = self.step.precision.device, seconds
        self.done = StepsDone([*losses.to(device)], [*left_out.to(device)])
        torch.set_rng_state(random["cpu"])
        if device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], device)

    def to_the_end(
        self, on_epoch: Callable[[dict[str, float | int]], None], on_saved: Callable[[], None] = lambda: None
    ) -> None:
        """Train the epochs that are left; `on_epoch` and `on_saved` as of `train`."""
        while not self.schedule.ended:
            with self.signals:
                on_saved()
                metrics = self._epoch(on_saved)
            on_epoch({name: value for name, value in metrics.items() if value is not None})
        self._write_history()

    def _epoch(self, on_saved: Callable[[], None]) -> Metrics:
        config, epoch = self.config, self.schedule.epoch
        self.saved_at = self.started = time.perf_counter()

        def saved_if_need_be() -> None:
            if self.signals.came or time.perf_counter() - self.saved_at > SAVE_EVERY_S:
                self._write_within_epoch()
                self.signals.deliver()
                on_saved()

        rate = self.schedule.rate
        self.step.set_rate(rate)
        seed = config.seed * 1_000_003 + epoch
        if self.done.losses:
            name, steps = self.identity["architecture"], len(self.done.losses)
            self.tell(f"{name} resumes within epoch {epoch + 1}, after {steps} of its steps")
        else:
            torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        trained = train_one_epoch(self.step, order, self._bad_step, self.done, saved_if_need_be)
        size = max(1, config.batch_size // self.step.parts)
        model, precision = self.step.final_model, self.step.precision
        watched = evaluate(model, self.val_data, self.val_loss, precision, size, saved_if_need_be)
        metrics: Metrics = {"epoch": epoch, "lr": rate, **trained, **watched}
        metrics["epoch_seconds"] = self._seconds()
        self.history.append(metrics)
        self.schedule.step(score(metrics))
        self.done, self.seconds = StepsDone(), 0.0
        self._write()
        return metrics

    def _seconds(self) -> float:
        """That the epoch has taken so far."""
        return self.seconds + time.perf_counter() - self.started

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
        if self.schedule.best_epoch == self.history[-1]["epoch"]:
            save_checkpoint(self.work / BEST, {**self._content(), "state_dict": self.step.final_model.state_dict()})
        self._write_latest({})
        self._write_history()

    def _write_within_epoch(self) -> None:
        random = {"cpu": torch.get_rng_state()}
        if (device := self.step.precision.device).type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(device)
        losses, left_out = (torch.stack(values).cpu() for values in (self.done.losses, self.done.left_out))
        within = {"losses": losses, "left_out": left_out, "seconds": self._seconds(), "random": random}
        self._write_latest({"within_epoch": within})

    def _write_latest(self, within: dict[str, Any]) -> None:
        save_checkpoint(
            self.work / LATEST, {**self._content(), **self.step.state_dict(), "history": self.history, **within}
        )
        self.saved_at = time.perf_counter()

    def _content(self) -> dict[str, Any]:
        """What a checkpoint says besides weights: of what, and of the last epoch that has ended, if one has."""
        ended = {"epoch": self.history[-1]["epoch"], "val_metrics": self.history[-1]} if self.history else {"epoch": -1}
        return {**self.identity, **ended}

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
