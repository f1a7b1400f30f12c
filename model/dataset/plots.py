"""A data set as a figure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from model.common.figures import COLOURS, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def split_overview(manifest: Mapping[str, Any]) -> "Figure":
    """Windows and label rates of the splits, beside the wanted shares."""
    figure, (left, right) = new_figure(2, "Splits")
    names = list(manifest["splits"])
    share = [manifest["splits"][name]["share_of_windows"] for name in names]
    wanted = [manifest["split"][name] for name in names]
    place = np.arange(len(names))
    left.bar(place - 0.2, share, 0.4, color=COLOURS[0], label="share of windows")
    left.bar(place + 0.2, wanted, 0.4, color="lightgrey", label="wanted")
    left.set(xticks=place, xticklabels=names, ylim=(0, 1))
    legend(left, None)
    for offset, label in enumerate(("brake_1s", "brake_2s", "coast_1s", "coast_2s")):
        rates = [manifest["splits"][name]["label_rates"][label] for name in names]
        right.bar(place - 0.3 + 0.2 * offset, rates, 0.2, color=COLOURS[offset], label=label)
    right.set(xticks=place, xticklabels=names, ylabel="rate of positives")
    legend(right, None)
    return figure
