"""Figure of a training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from model.common.figures import COLOURS, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(epochs: Sequence[Mapping[str, Any]], title: str) -> "Figure":
    """Losses and PR-AUC by epoch."""
    figure, (left, right) = new_figure(2, title)
    number = [epoch["epoch"] + 1 for epoch in epochs]
    for colour, name in enumerate(("train_loss", "val_loss")):
        left.plot(number, [epoch[name] for epoch in epochs], color=COLOURS[colour], label=name, marker=".")
    left.set(xlabel="epoch", ylabel="loss")
    tasks = [key for key in epochs[0] if key.startswith("val_pr_auc_") and not key.endswith("_mean")] if epochs else []
    for colour, name in enumerate(tasks):
        values = [np.nan if epoch[name] is None else epoch[name] for epoch in epochs]
        right.plot(number, values, color=COLOURS[colour], label=name.removeprefix("val_pr_auc_"), marker=".")
    right.set(xlabel="epoch", ylabel="PR-AUC on val", ylim=(0, 1))
    for axes in (left, right):
        legend(axes, None)
    return figure
