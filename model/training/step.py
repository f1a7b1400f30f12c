"""One training step, computed on the device without waiting for it: forward, loss, backward, clip, update."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from model.dataset.window_data import WindowData
from model.factory import MultimodalModel
from model.training.loss import UnifiedFocalLoss
from model.training.precision import autocast
from model.training.recipes import TrainingConfig

WARM_UP = 3
"""Steps before one is captured: libraries initialise in the first ones, which a CUDA graph cannot hold."""


class Step:
    """A training step of a network on the windows of a split.

    A step whose loss or gradient is not finite changes no weight. On CUDA it is captured once as a graph and replayed.
    """

    def __init__(
        self,
        model: MultimodalModel,
        data: WindowData,
        loss: UnifiedFocalLoss,
        config: TrainingConfig,
        capture: bool = True,
    ) -> None:
        self.model, self.data, self.loss, self.config = model, data, loss, config
        self.device = data.telemetry.device
        cuda = self.device.type == "cuda"
        self.captures = capture and cuda
        self.forward = torch.compile(model) if config.compiled and cuda else model
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            # A graph reads the learning rate from the address that it captured, so there it has to be a tensor.
            lr=torch.tensor(config.learning_rate, device=self.device) if cuda else config.learning_rate,
            weight_decay=config.weight_decay_ratio * config.learning_rate,
            fused=True,
            capturable=cuda,
        )
        self.average = _average(model, config.ema_decay) if config.ema_decay > 0 else None
        self.warm = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.captured: tuple[Tensor, Tensor, Tensor]

    @property
    def final_model(self) -> nn.Module:
        """The network that is scored and published: the average of the weights, if the recipe keeps one."""
        return self.model if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """What a training needs to resume after this step."""
        state = {"state_dict": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state if self.average is None else {**state, "average": self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; other keys are ignored."""
        self.model.load_state_dict(state["state_dict"])
        groups = self.optimizer.state_dict()["param_groups"]  # their options differ between a CPU and CUDA
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def __call__(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Train on `windows` (B,) -> their loss, and whether the step was left out; both on the device."""
        whole = self.captures and len(windows) == self.config.batch_size
        result = self._replay(windows) if whole else self._step(windows)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return result

    def _replay(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """The step as a CUDA graph, captured once and then launched as a whole."""
        if self.warm < WARM_UP:
            self.warm += 1
            stream, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                result = self._step(windows)
            current.wait_stream(stream)
            return result
        if self.graph is None:
            chosen = windows.clone()
            self.graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(self.graph):
                self.captured = chosen, *self._step(chosen)
        chosen, value, bad = self.captured
        chosen.copy_(windows)
        self.graph.replay()
        return value.clone(), bad.clone()

    def _step(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.data.gather(windows)
        # Windows before an onset can weigh more than those in which the driver brakes (coasts) already.
        weight = torch.ones_like(batch.labels) + (self.config.onset_weight - 1.0) * ~batch.going_on
        weight = weight if batch.weight is None else weight * batch.weight[:, None]
        with autocast(self.config.precision, self.device):
            logits = self.forward(*batch[:3], batch.derived)
        loss = self.loss(logits, batch.labels, batch.label_mask, weight)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm)
        bad = ~torch.isfinite(loss.detach()) | ~torch.isfinite(norm)
        self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # fused AdamW skips the update on the device
        self.optimizer.step()
        return loss.detach(), bad


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """The mean of the weights over steps, with a decay that starts lower and rises to `decay`; buffers are copied."""

    def update(averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
        share = 1 - ((1 + steps) / (10 + steps)).clamp(max=decay)
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, share.item())  # the number of steps is on the CPU: nothing waits

    averaged = AveragedModel(model, multi_avg_fn=torch.no_grad()(update))  # type: ignore[arg-type]  # never a number of steps
    for module in averaged.modules():
        if isinstance(module, nn.RNNBase):  # the weights of a copy are scattered: cuDNN would gather them at each call
            module.flatten_parameters()
    return averaged
