"""Every onset and every false alarm of a split in a table, and pictures of the worst."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.figures import COLOURS, new_figure
from model.common.files import atomic_path
from model.common.images import read_image
from model.dataset.split_file import Split
from model.evaluation.config import EvaluationConfig
from model.evaluation.events import Drives
from model.evaluation.plots import shade
from model.evaluation.predictions import Predictions, action_of
from model.evaluation.results import AlarmThreshold, SplitFigures
from model.recording.folder import Recording
from model.recording.schema import ACTIONS
from model.recording.times import separated_times

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
        for alarm in figures[task].alarms:
            if alarm.threshold.on is not None:
                found = _examples(drives, alarm.threshold, predictions.recordings, config)
                rows += [{"task": task, "horizon_s": drives.horizon_s, **row} for row in found]
    for row in rows:
        row["frame"] = frame = _frame_at(split, row["recording"], row["at_ms"])
        row["time_ms"] = int(split.clock_ms[frame] + row["at_ms"] - split.time_ms[frame])
        row["time"] = datetime.fromtimestamp(row["time_ms"] / 1000, UTC).strftime("%Y-%m-%d %H-%M-%S.%f")[:-5]
    return pd.DataFrame(rows, columns=[*EVENT_COLUMNS, "threshold", "at_ms", "frame"])


def _examples(
    drives: Drives, threshold: AlarmThreshold, recordings: Sequence[str], config: EvaluationConfig
) -> list[dict[str, Any]]:
    assert threshold.on is not None
    alarms, lead = drives.alarms(threshold.on, config)
    leads = iter(lead.tolist())
    rows: list[dict[str, Any]] = []
    for drive in drives.drives:
        t, p = drive.windows.time_ms, drive.windows.probabilities
        examples: list[dict[str, Any]] = []
        for onset, force in zip(drive.onset_ms.tolist(), drive.brake_force.tolist(), strict=True):
            seconds = next(leads)
            before = p[(t < onset) & (t >= onset - drives.span_ms)]
            kind, probability = "missed" if np.isnan(seconds) else "found", float(before.max(initial=0.0))
            examples.append(
                {"kind": kind, "at_ms": onset, "probability": probability, "lead_s": seconds, "brake_force": force}
            )
        examples += [
            {"kind": "false alarm", "at_ms": alarm.start_ms, "probability": alarm.probability}
            for alarm in alarms
            if alarm.false and alarm.drive is drive
        ]
        for example in sorted(examples, key=lambda example: example["at_ms"]):
            example["speed_kmh"] = float(drive.windows.speed[np.abs(t - example["at_ms"]).argmin()])
            example |= {"false_alarms_per_hour": threshold.budget, "threshold": threshold.on}
            rows.append({**example, "recording": recordings[drive.recording]})
    return rows


def _frame_at(split: Split, recording: str, time_ms: int) -> int:
    """The frame nearest to a time."""
    rows = np.flatnonzero(split.recording == split.recordings.index(recording))
    return int(rows[np.abs(split.time_ms[rows] - time_ms).argmin()])


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
    number = split.recordings.index(example.recording)
    since = split.time_ms - example.at_ms
    near = (split.recording == number) & (since >= -BEFORE_MS) & (since <= AFTER_MS)
    for name, colour in (("SPEED", COLOURS[2]), ("ACCELERATOR_POS_D", COLOURS[3])):
        values = split.channel(name)[near] / 100
        right.plot(since[near] / 1000, values, color=colour, linewidth=1, label=f"{name} / 100")
    action = split.state[near, ACTIONS.index(action_of(example.task))] == 1
    shade(right, since[near] / 1000, action, alpha=0.25)
    column = predictions.tasks.index(example.task)
    since = predictions.time_ms - example.at_ms
    near = (
        (predictions.recording == number) & predictions.known[:, column] & (since >= -BEFORE_MS) & (since <= AFTER_MS)
    )
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
    image = _crop(split, frame, recordings)
    if image is not None:
        axes.imshow(image[..., ::-1], extent=(0, width, height, 0), aspect="equal")
    for x1, y1, x2, y2 in split.detections[frame, split.detection_mask[frame], 2:6]:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=COLOURS[1], linewidth=1))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=(), yticks=(), aspect="equal")


def _crop(split: Split, frame: int, recordings: Path | None) -> npt.NDArray[np.uint8] | None:
    name = split.recordings[int(split.recording[frame])]
    if recordings is None or not (recordings / name).is_dir():
        return None
    recording = Recording(recordings / name)
    try:
        times, t, frames = _frames(recording.folder)
        path = frames.get(times[int(np.abs(t - split.time_ms[frame]).argmin())])
        region = recording.annotated_region()
    except DataError:
        return None
    if path is None:
        return None
    image = read_image(path)[region.y : region.y + region.height, region.x : region.x + region.width]
    return image[::2, ::2] if image.size else None


@lru_cache(maxsize=4)
def _frames(folder: Path) -> tuple[list[str], npt.NDArray[np.int64], dict[str, Path]]:
    """Texts and ms of a recording's rows, and its frames by time."""
    recording = Recording(folder)
    table, _ = recording.telemetry()
    return table["Time"].tolist(), separated_times(table), recording.frames()
