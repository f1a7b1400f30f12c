"""Every onset and every false alarm of a split in a table, and pictures of the worst."""

from collections.abc import Iterator
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.figures import COLOURS, new_figure
from model.common.files import atomic_path
from model.common.images import read_image
from model.dataset.split_file import Split
from model.evaluation.config import EvaluationConfig
from model.evaluation.events import Drives
from model.evaluation.plots import shade
from model.evaluation.predictions import Predictions
from model.evaluation.results import AlarmThreshold, SplitFigures
from model.recording.folder import Recording
from model.recording.schema import STATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORST = 10
KINDS = ("missed", "false alarm")
"""Kinds of examples that are shown as pictures; the third is `found`."""
BEFORE_MS, AFTER_MS = 15_000, 5_000
"""What a picture shows around the moment."""
EVENT_COLUMNS = (
    "task", "kind", "false_alarms_per_hour", "recording", "time", "time_ms", "horizon_s", "probability", "lead_s",
    "speed_kmh", "brake_force",
)  # fmt: skip


def find_examples(
    predictions: Predictions, figures: SplitFigures, split: Split, config: EvaluationConfig
) -> pd.DataFrame:
    """All onsets and false alarms at the threshold of each budget, by task, budget, recording and time.

    Columns are EVENT_COLUMNS; `threshold`; `at_ms`, the time of the onset or of the alarm's start on the split's clock,
    which never steps back as the recorder's in `time_ms` may; and `frame`, the nearest one. `probability` is the
    highest before an onset, within the span in which an alarm counts, or while an alarm rings.
    """
    rows: list[dict[str, Any]] = []
    for column, task in enumerate(predictions.tasks):
        drives = Drives.of(predictions.task(column))
        for threshold in [alarm.threshold for alarm in figures[task].alarms if alarm.threshold.on is not None]:
            of = {"task": task, "horizon_s": drives.windows.horizon_s, "threshold": threshold.on}
            of["false_alarms_per_hour"] = threshold.budget
            for moment, example in sorted(examples_of(drives, threshold, config), key=itemgetter(0)):
                rows.append({**of, **example, **located(split, *drives.place(moment))})
    return pd.DataFrame(rows, columns=[*EVENT_COLUMNS, "threshold", "at_ms", "frame"])


def examples_of(
    drives: Drives, threshold: AlarmThreshold, config: EvaluationConfig
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each onset and each false alarm with its time on the joint clock."""
    alarms, lead = drives.alarms(threshold.on, config)
    events = zip(drives.onset_ms.tolist(), lead.tolist(), drives.brake_force.tolist(), strict=True)
    for onset, seconds, force in events:
        before = slice(*np.searchsorted(drives.t, (onset - drives.span_ms, onset)))
        kind, highest = (
            "missed" if np.isnan(seconds) else "found",
            drives.windows.probabilities[before].max(initial=0.0),
        )
        yield onset, {"kind": kind, "probability": highest, "lead_s": seconds, "brake_force": force}
    for alarm in alarms:
        if alarm.false:
            yield alarm.start_ms, {"kind": "false alarm", "probability": alarm.probability}


def located(split: Split, recording: int, at_ms: int) -> dict[str, Any]:
    """The frame nearest to a moment of a recording, and the moment by the recorder's clock."""
    rows = np.flatnonzero(split.recording == recording)
    frame = int(rows[np.abs(split.time_ms[rows] - at_ms).argmin()])
    time_ms = int(split.clock_ms[frame] + at_ms - split.time_ms[frame])
    return {
        "recording": split.recordings[recording],
        "at_ms": at_ms,
        "frame": frame,
        "speed_kmh": float(split.channel("SPEED")[frame]),
        "time_ms": time_ms,
        "time": datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H-%M-%S.%f")[:-5],
    }


def write_events(path: Path, examples: pd.DataFrame) -> None:
    """events.csv: one row per example; times by the recorder's clock."""
    digits = {"probability": 4, "speed_kmh": 1, "brake_force": 4}
    with atomic_path(path) as temporary:
        examples[list(EVENT_COLUMNS)].round(digits).to_csv(temporary, index=False, lineterminator="\n")


def worst(examples: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The ten worst of a kind at the smallest budget that has any: furthest from their threshold first."""
    of_kind = examples[examples["kind"] == kind]
    chosen = of_kind[of_kind["false_alarms_per_hour"] == of_kind["false_alarms_per_hour"].min()]
    ratio = chosen["probability"] / chosen["threshold"].clip(lower=1e-9)
    return chosen.loc[ratio.sort_values(ascending=kind == "missed", kind="stable").index[:WORST]]


def picture(example: Any, predictions: Predictions, split: Split, recordings: Path | None) -> "Figure":
    """The frame at an example (a row of `find_examples`), and telemetry and predicted probability around it."""
    shown = f"{example.probability:.2f} for {example.threshold:.2f}"
    figure, (left, right) = new_figure(2, f"{example.task} {example.kind}, {example.recording}: {shown}", height=2.6)
    _draw_frame(left, split, example.frame, recordings)
    number = split.recording[example.frame]
    since = split.time_ms - example.at_ms
    near = (split.recording == number) & (since >= -BEFORE_MS) & (since <= AFTER_MS)
    for name, colour in (("SPEED", COLOURS[2]), ("ACCELERATOR_POS_D", COLOURS[3])):
        values = split.channel(name)[near] / 100
        right.plot(since[near] / 1000, values, color=colour, linewidth=1, label=f"{name} / 100")
    action = split.state[near, STATES.index(example.task.split("_")[0])] == 1
    shade(right, since[near] / 1000, action, alpha=0.25)
    column = predictions.tasks.index(example.task)
    since = predictions.time_ms - example.at_ms
    near = (predictions.recording == number) & predictions.known[:, column]
    near &= (since >= -BEFORE_MS) & (since <= AFTER_MS)
    right.plot(since[near] / 1000, predictions.probabilities[near, column], color=COLOURS[0], label="predicted")
    right.axhline(example.threshold, color="black", linestyle="--", linewidth=0.8)
    right.axvline(0, color="grey", linestyle=":", linewidth=1)
    right.set(xlabel="seconds", ylim=(0, 1.3))
    right.legend(fontsize=6, ncols=2, loc="upper left")
    return figure


def _draw_frame(axes: "Axes", split: Split, frame: int, recordings: Path | None) -> None:
    """The region of interest with its boxes; boxes alone if the recording is missing."""
    from matplotlib.patches import Rectangle

    width, height = (int(side) for side in split.region[split.recording[frame]])
    image = None if recordings is None else _crop(split, frame, recordings)
    if image is not None and image.size:
        axes.imshow(image[..., ::-1], extent=(0, width, height, 0), aspect="equal")
    for x1, y1, x2, y2 in split.detections[frame, split.detection_mask[frame], 2:6]:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=COLOURS[1], linewidth=1))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=(), yticks=(), aspect="equal")


def _crop(split: Split, frame: int, recordings: Path) -> npt.NDArray[np.uint8] | None:
    """The region of interest at half its size; None if the recording or its frame was removed."""
    recording = Recording(recordings / split.recordings[split.recording[frame]])
    if not recording.telemetry_path.is_file():
        return None
    telemetry, roi = recording.telemetry()[0], recording.annotated_region()
    time = dict(zip(telemetry["t"], telemetry["Time"], strict=True)).get(int(split.clock_ms[frame]))
    path = recording.frames().get(str(time))
    if path is None:
        return None
    return read_image(path)[roi.y : roi.y + roi.height : 2, roi.x : roi.x + roi.width : 2]
