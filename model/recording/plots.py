"""A recording as pictures."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from model.common.figures import COLOURS, new_figure
from model.common.images import contact_sheet, evenly
from model.recording.folder import Recording
from model.recording.frame_files import is_whole
from model.recording.schema import HORIZONS_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHEET_FRAMES, SHEET_COLUMNS, TILE = 9, 3, (384, 216)


def frames_over_the_drive(recording: Recording, limit: int) -> bytes:
    """JPEG of nine frames, evenly picked over the drive, of at most `limit` bytes."""
    files = list(recording.frames().values())
    picked = [files[index] for index in evenly(len(files), SHEET_FRAMES)]
    frames = [cv2.imread(str(path)) for path in picked if is_whole(path)]
    tiles = [np.asarray(cv2.resize(f, TILE, interpolation=cv2.INTER_AREA), np.uint8) for f in frames if f is not None]
    return contact_sheet(tiles, SHEET_COLUMNS, limit)


def label_timeline(telemetry: pd.DataFrame, labels: pd.DataFrame, name: str) -> "Figure":
    """A recording's speed and pedal over time, and its future labels as rows of marks; grey where unknown."""
    figure, (top, pedal, bottom) = new_figure(3, f"Labels of {name}", columns=1, height=1.6)
    seconds = (telemetry["t"] - telemetry["t"].iloc[0]).to_numpy() / 1000
    top.plot(seconds, telemetry["SPEED"], color=COLOURS[0], linewidth=1)
    top.set(ylabel="km/h")
    pedal.plot(seconds, telemetry["ACCELERATOR_POS_D"], color=COLOURS[2], linewidth=1)
    brake = telemetry["BRAKE_SIGNAL"].to_numpy()
    pedal.fill_between(seconds, 0, 100, where=brake, color=COLOURS[1], alpha=0.4, step="mid", linewidth=0)
    pedal.set(ylabel="pedal %", ylim=(0, 100))
    rows = [f"{action}_{h}s" for action in ("brake", "coast") for h in HORIZONS_S]
    states = np.stack([labels[row].astype("Float64").to_numpy(float, na_value=0.5) for row in rows])
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    for index, row in enumerate(rows):
        for state, colour in ((1, COLOURS[1] if row.startswith("brake") else COLOURS[2]), (0.5, "lightgrey")):
            at = seconds[states[index] == state]
            bottom.broken_barh([(float(second), step) for second in at], (index, 1), facecolors=colour, linewidth=0)
    for axes in (top, pedal, bottom):  # one time axis, so that a brake stands over the labels that foresee it
        axes.set_xlim(0, float(seconds[-1]) + step)
    pedal.fill_between([], [], color=COLOURS[1], alpha=0.4, label="brake pedal")
    pedal.legend(fontsize=6, loc="upper right")
    bottom.set(yticks=np.arange(len(rows)) + 0.5, ylim=(len(rows), 0))
    bottom.set_xlabel("seconds; coloured: the driver will brake or coast then, grey: unknown, white: will not")
    bottom.set_yticklabels(rows, fontsize=6)
    return figure
