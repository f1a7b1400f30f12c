"""A recording as pictures."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.figures import COLOURS, new_figure
from model.recording.labels import LabelConfig, current_state, pressed
from model.recording.schema import ACTIONS, HORIZONS_S, PEDAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def drive_timeline(telemetry: pd.DataFrame, labels: pd.DataFrame | None, name: str) -> "Figure":
    """A recording's speed and pedal over time, and its future labels, if any, as rows of marks; grey where unknown."""
    panels = 2 if labels is None else 3
    figure, axes_of = new_figure(panels, name, columns=1, height=1.6)
    top, pedal = axes_of[:2]
    seconds = (telemetry["t"] - telemetry["t"].iloc[0]).to_numpy() / 1000
    top.plot(seconds, telemetry["SPEED"], color=COLOURS[0], linewidth=1)
    top.set(ylabel="km/h")
    pedal.plot(seconds, telemetry.get(PEDAL, 100.0 * (pressed(telemetry, 0) == 1)), color=COLOURS[2], linewidth=1)
    brake = current_state(telemetry, LabelConfig())[:, 0] == 1
    pedal.fill_between(seconds, 0, 100, where=brake, color=COLOURS[1], alpha=0.4, step="mid", linewidth=0)
    pedal.set(ylabel="pedal %", ylim=(0, 100))
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    for axes in axes_of:  # one time axis, so that a brake stands over the labels that foresee it
        axes.set_xlim(0, float(seconds[-1]) + step)
    pedal.fill_between([], [], color=COLOURS[1], alpha=0.4, label="brake pedal")
    pedal.legend(fontsize=6, loc="upper right")
    if labels is None:
        pedal.set_xlabel("seconds")
    else:
        _draw_labels(axes_of[2], labels, seconds, step)
    return figure


def _draw_labels(axes: "Axes", labels: pd.DataFrame, seconds: npt.NDArray[np.float64], step: float) -> None:
    rows = [f"{action}_{h}s" for action in ACTIONS for h in HORIZONS_S]
    states = np.stack([labels[row].astype("Float64").to_numpy(float, na_value=0.5) for row in rows])
    for index, row in enumerate(rows):
        for state, colour in ((1, COLOURS[1] if row.startswith("brake") else COLOURS[2]), (0.5, "lightgrey")):
            at = seconds[states[index] == state]
            axes.broken_barh([(float(second), step) for second in at], (index, 1), facecolors=colour, linewidth=0)
    axes.set(yticks=np.arange(len(rows)) + 0.5, ylim=(len(rows), 0))
    axes.set_xlabel("seconds; coloured: the driver will brake or coast then, grey: unknown, white: will not")
    axes.set_yticklabels(rows, fontsize=6)
