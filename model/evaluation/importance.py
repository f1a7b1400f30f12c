"""The inputs that a network uses: what it loses when one of them is exchanged between windows."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.dataset.window_data import WindowData
from model.evaluation.paired import Areas
from model.evaluation.predictions import Predictions
from model.evaluation.results import Importance
from model.recording.schema import CHANNELS

DETECTIONS = "detections"
WITHOUT_DETECTIONS = "detections, trained without"
SAMPLES = 200
Inputs = tuple[Tensor, Tensor, Tensor]
Exchange = Callable[[Inputs, Inputs], Inputs]
"""Replaces a part of the windows' inputs by that of other windows."""


@torch.no_grad()
def predict(
    model: nn.Module, data: WindowData, batch_size: int, exchange: Exchange | None = None
) -> npt.NDArray[np.float64]:
    """Probabilities (W,tasks) of every window; with `exchange`, after it replaced a part of their inputs."""
    model.eval()
    outputs = []
    order = torch.arange(len(data), device=data.first_row.device)
    others = torch.from_numpy(np.random.default_rng(0).permutation(len(data))).to(order.device)
    for windows, replacements in zip(torch.split(order, batch_size), torch.split(others, batch_size), strict=True):
        inputs: Inputs = data.gather(windows)[:3]
        if exchange is not None:
            inputs = exchange(inputs, data.gather(replacements)[:3])
        logits = model(*inputs)
        outputs.append(torch.stack([logits[task] for task in data.tasks], dim=1).float())
    return torch.cat(outputs).sigmoid().double().cpu().numpy()


def importances(model: nn.Module, data: WindowData, predictions: Predictions, batch_size: int) -> list[Importance]:
    """How much mean PR-AUC falls for each channel and for all detections, by falling loss.

    Args:
        predictions: of the unchanged windows, before calibration.
    """
    exchanges = {DETECTIONS: _detections, **{name: _channel(columns) for name, columns in _columns(data).items()}}
    before = Areas.of(predictions, SAMPLES)
    measured = []
    for name, exchange in exchanges.items():
        after = predictions.replace(predict(model, data, batch_size, exchange))
        measured.append(Importance(input=name, loss=before.minus(Areas.of(after, SAMPLES))))
    return sorted(measured, key=lambda importance: -(importance.loss.mean or (0.0, 0.0))[0])


def camera_verdict(measured: list[Importance]) -> str | None:
    """One sentence on whether the network uses what the camera sees; None if that was not measured.

    Training without detections is preferred as evidence to exchanging them.
    """
    losses = {importance.input: importance.loss for importance in measured}
    loss = losses.get(WITHOUT_DETECTIONS) or losses.get(DETECTIONS)
    if loss is None:
        return None
    if loss.mean is None:
        return "Test has too few positives to show whether the camera helps."
    when = "it is trained without detections" if WITHOUT_DETECTIONS in losses else "detections are exchanged"
    shown = f"mean PR-AUC falls by {loss.mean[0]:.3f} to {loss.mean[1]:.3f} (95 %) when {when}"
    if loss.onset_mean is not None:
        shown += f", at onsets by {loss.onset_mean[0]:.3f} to {loss.onset_mean[1]:.3f}"
    if loss.better or loss.better_onset:
        return f"The camera helps this network{'' if loss.better else ' at onsets'}: {shown}."
    return f"It is not shown that the camera helps this network: {shown}."


def _detections(own: Inputs, other: Inputs) -> Inputs:
    return own[0], other[1], other[2]


def _channel(columns: slice) -> Exchange:
    def exchange(own: Inputs, other: Inputs) -> Inputs:
        telemetry = own[0].clone()
        telemetry[..., columns] = other[0][..., columns]
        return telemetry, own[1], own[2]

    return exchange


def _columns(data: WindowData) -> dict[str, slice]:
    """The feature columns of each channel, in the order of the inputs: one per number, the rest for the gear."""
    widths = [1 if CHANNELS[name].kind != "gear" else data.telemetry_dim - len(data.inputs) + 1 for name in data.inputs]
    ends = np.cumsum(widths).tolist()
    return {name: slice(end - width, end) for name, width, end in zip(data.inputs, widths, ends, strict=True)}
