"""Hazards: probabilities that an action begins or ends in each second ahead, which give those of the labels."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from model.dataset.window_data import WindowData
from model.network.config import HAZARDS
from model.recording.schema import ACTIONS, HORIZONS_S


def label_logits(hazards: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits of HAZARDS -> logits of the labels, of the same shape, by p(h+1) = p(h) (1 - release) + (1 - p(h)) onset.

    Probabilities and their complements are logarithms, so that neither loses precision near 0.
    """
    labels = {}
    for action in ACTIONS:
        now = hazards[f"{action}_now"].float()
        yes, no = logsigmoid(now), logsigmoid(-now)
        for h in HORIZONS_S:
            onset, release = (hazards[f"{action}_{name}_{h}s"].float() for name in ("onset", "release"))
            yes, no = (
                torch.logaddexp(yes + logsigmoid(-release), no + logsigmoid(onset)),
                torch.logaddexp(yes + logsigmoid(release), no + logsigmoid(-onset)),
            )
            labels[f"{action}_{h}s"] = yes - no
    return labels


def with_transitions(data: WindowData) -> WindowData:
    """Windows with the ten labels -> the same windows with HAZARDS as tasks, known where both ends of a second are."""
    learnt: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for action in ACTIONS:
        columns = [data.tasks.index(f"{action}_{h}s") for h in HORIZONS_S]
        now = data.going_on[:, columns[0]]
        before, seen = now, data.label_mask[:, columns].any(dim=1)  # none is known where the present is not
        learnt[f"{action}_now"] = now, seen, now
        for h, column in zip(HORIZONS_S, columns, strict=True):
            after, known = data.labels[:, column] > 0.5, data.label_mask[:, column]
            learnt[f"{action}_onset_{h}s"] = after, seen & known & ~before, now
            learnt[f"{action}_release_{h}s"] = ~after, seen & known & before, now
            before, seen = after, known
    labels, known, going_on = (torch.stack(each, dim=1) for each in zip(*(learnt[n] for n in HAZARDS), strict=True))
    return replace(data, tasks=HAZARDS, labels=labels.to(data.labels.dtype), label_mask=known, going_on=going_on)
