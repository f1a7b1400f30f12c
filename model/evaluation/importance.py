"""The inputs that a network uses: what it loses when one of them is exchanged between windows."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model.dataset.window_data import WindowData
from model.evaluation.paired import Areas
from model.evaluation.predictions import Predictions
from model.evaluation.results import Importance
from model.recording.schema import CHANNELS

DETECTIONS = "detections"
WITHOUT_DETECTIONS = "detections, trained without"
SAMPLES = 200


@torch.no_grad()
def predict(
    model: nn.Module, data: WindowData, batch_size: int, columns: slice | None = None, detections: bool = False
) -> npt.NDArray[np.float64]:
    """Probabilities (W,tasks) of every window.

    Args:
        columns: features of the telemetry to take from other windows, drawn at random.
        detections: whether to take these from other windows, too.
    """
    model.eval()
    outputs = []
    order = data.order()
    others = torch.from_numpy(np.random.default_rng(0).permutation(len(data))).to(order.device)
    for windows, replacements in zip(torch.split(order, batch_size), torch.split(others, batch_size), strict=True):
        own = data.gather(windows)
        other = data.gather(replacements) if detections or columns is not None else own
        if columns is not None:
            own.telemetry_seq[..., columns] = other.telemetry_seq[..., columns]
        seen = other if detections else own
        logits = model(own.telemetry_seq, seen.detection_seq, seen.detection_mask)
        outputs.append(torch.stack([logits[task] for task in data.tasks], dim=1).float())
    return torch.cat(outputs).sigmoid().double().cpu().numpy()


def importances(model: nn.Module, data: WindowData, predictions: Predictions, batch_size: int) -> list[Importance]:
    """How much mean PR-AUC falls for each channel and for all detections, by falling loss.

    Args:
        predictions: of the unchanged windows, before calibration.
    """
    exchanged = {DETECTIONS: predict(model, data, batch_size, detections=True)}
    end = 0
    for name in data.inputs:  # a feature per number, and as many as are left for the gear
        start = end
        end += 1 if CHANNELS[name].kind != "gear" else data.telemetry_dim - len(data.inputs) + 1
        exchanged[name] = predict(model, data, batch_size, slice(start, end))
    before = Areas.of(predictions, SAMPLES)
    measured = [
        Importance(input=name, loss=before.minus(Areas.of(predictions.replace(probabilities), SAMPLES)))
        for name, probabilities in exchanged.items()
    ]
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
