"""Each onset and each false alarm of a split by name, and pictures of the worst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.figures import COLOURS, new_figure
from model.common.files import atomic_path
from model.common.images import read_image
from model.dataset.split_file import Split
from model.evaluation.alarms import Drives
from model.evaluation.config import EvaluationConfig
from model.evaluation.predictions import Predictions
from model.evaluation.results import SplitFigures
from model.recording.folder import Recording
from model.recording.times import separated_times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST = 10
BEFORE_MS, AFTER_MS = 15_000, 5_000
"""What a picture shows around the moment."""
EVENT_COLUMNS = (
    "task", "kind", "false_alarms_per_hour", "recording", "time", "time_ms", "horizon_s", "probability", "lead_s",
    "speed_kmh", "brake_force",
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One onset or false alarm at one budget."""

    task: str
    kind: str
    """found, missed or false alarm"""
    budget: float
    threshold: float
    recording: str
    time_ms: int
    """Of the onset, or of the alarm's start"""
    horizon_s: float
    probability: float
    """Highest within the span before an onset; of an alarm, while it rings"""
    lead_s: float | None
    speed: float
    brake_force: float

    @property
    def badness(self) -> float:
        """How far a miss stayed below its threshold, or a false alarm rose above it."""
        ratio = self.probability / max(self.threshold, 1e-9)
        return -ratio if self.kind == "missed" else ratio


def find_examples(predictions: Predictions, figures: SplitFigures, config: EvaluationConfig) -> list[Example]:
    """All of a split, at the threshold of each budget, by task and time."""
    found: list[Example] = []
    for column, task in enumerate(predictions.tasks):
        drives = Drives.of(predictions.task(column))
        for alarm in figures[task].alarms:
            if alarm.threshold.on is not None:
                found += _at(task, drives, alarm.threshold.budget, alarm.threshold.on, predictions.recordings, config)
    return found


def write_events(path: Path, examples: Sequence[Example], split: Split) -> None:
    """events.csv: one row an example of a split; times as the recording's clock tells them."""
    clock = [_clock_ms(split, example) for example in examples]
    rows = [
        (
            e.task, e.kind, e.budget, e.recording,
            datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H-%M-%S.%f")[:-5], ms,
            e.horizon_s, round(e.probability, 4), e.lead_s, round(e.speed, 1), round(e.brake_force, 4),
        )
        for e, ms in zip(examples, clock, strict=True)
    ]  # fmt: skip
    with atomic_path(path) as temporary:
        pd.DataFrame(rows, columns=list(EVENT_COLUMNS)).to_csv(temporary, index=False, lineterminator="\n")


def _clock_ms(split: Split, example: Example) -> int:
    """An example's time by the recorder's clock, which may have been set back during the drive."""
    frame = _frame_at(split, example)
    return int(split.clock_ms[frame] + example.time_ms - split.time_ms[frame])


def _frame_at(split: Split, example: Example) -> int:
    """The frame nearest to an example's time."""
    rows = np.flatnonzero(split.recording == split.recordings.index(example.recording))
    return int(rows[np.abs(split.time_ms[rows] - example.time_ms).argmin()])


def worst(examples: Sequence[Example], kind: str) -> list[Example]:
    """The ten worst of a kind at the smallest budget that has any."""
    of_kind = [example for example in examples if example.kind == kind]
    least = min((example.budget for example in of_kind), default=None)
    chosen = [example for example in of_kind if example.budget == least]
    return sorted(chosen, key=lambda example: -example.badness)[:WORST]


def picture(example: Example, predictions: Predictions, split: Split, recordings: Path | None) -> "Figure":
    """The frame at the moment with its boxes, and telemetry and predicted probability around it."""
    figure, (left, right) = new_figure(2, _title(example), height=2.6)
    number = split.recordings.index(example.recording)
    rows = np.flatnonzero(split.recording == number)
    _draw_frame(left, split, _frame_at(split, example), recordings)
    near = rows[
        (split.time_ms[rows] >= example.time_ms - BEFORE_MS) & (split.time_ms[rows] <= example.time_ms + AFTER_MS)
    ]
    seconds = (split.time_ms[near] - example.time_ms) / 1000
    for index, name in enumerate(("SPEED", "ACCELERATOR_POS_D")):
        right.plot(
            seconds, split.channel(name)[near] / 100, color=COLOURS[2 + index], linewidth=1, label=f"{name} / 100"
        )
    action = split.state[near, 0 if example.task.startswith("brake") else 1] == 1
    right.fill_between(
        seconds, 0, 1, where=action, color=COLOURS[1], alpha=0.25, step="mid", linewidth=0, label="observed"
    )
    column = predictions.tasks.index(example.task)
    of = (predictions.recording == number) & predictions.known[:, column]
    t = (predictions.time_ms[of] - example.time_ms) / 1000
    shown = (t >= -BEFORE_MS / 1000) & (t <= AFTER_MS / 1000)
    right.plot(t[shown], predictions.probabilities[of, column][shown], color=COLOURS[0], label="predicted")
    right.axhline(example.threshold, color="black", linestyle="--", linewidth=0.8)
    right.axvline(0, color="grey", linestyle=":", linewidth=1)
    right.set(xlabel="seconds", ylim=(0, 1.3))
    right.legend(fontsize=6, ncols=2, loc="upper left")
    return figure


def _at(
    task: str, drives: Drives, budget: float, on: float, recordings: Sequence[str], config: EvaluationConfig
) -> list[Example]:
    windows = drives.windows
    alarms, lead = drives.alarms(on, config)

    def example(kind: str, of: npt.NDArray[np.int64], time_ms: int, **values: float | None) -> Example:
        row = of[np.abs(windows.time_ms[of] - time_ms).argmin()]
        given = {"speed": float(windows.speed[row]), "brake_force": float("nan"), "lead_s": None, **values}
        name = recordings[int(windows.recording[row])]
        return Example(task, kind, budget, on, name, time_ms, windows.horizon_s, **given)  # type: ignore[arg-type]

    found = []
    for (index, onset, _), seconds, force in zip(drives.onsets.tolist(), lead, drives.strength, strict=True):
        of = drives.rows[index]
        t = windows.time_ms[of]
        before = windows.probabilities[of][(t < onset) & (t >= onset - drives.span_ms)]
        known = {"probability": float(before.max(initial=0.0)), "brake_force": float(force)}
        if np.isfinite(seconds):
            found.append(example("found", of, onset, lead_s=float(seconds), **known))
        else:
            found.append(example("missed", of, onset, **known))
    for alarm in alarms:
        if alarm.false:
            of = drives.rows[alarm.recording]
            found.append(example("false alarm", of, alarm.start_ms, probability=alarm.probability))
    return sorted(found, key=lambda e: (e.recording, e.time_ms))


def _draw_frame(axes: object, split: Split, frame: int, recordings: Path | None) -> None:
    """The region of interest with its boxes; without the picture where the recording is not there."""
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

    assert isinstance(axes, Axes)
    width, height = (int(side) for side in split.region[split.recording[frame]])
    image = _crop(split, frame, recordings)
    if image is not None:
        axes.imshow(image[..., ::-1], extent=(0, width, height, 0), aspect="equal")
    for (x1, y1, x2, y2), real in zip(split.detections[frame, :, 2:6], split.detection_mask[frame], strict=True):
        if real:
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


def _title(example: Example) -> str:
    what = "missed" if example.kind == "missed" else "false alarm"
    return f"{example.task} {what}, {example.recording}: {example.probability:.2f} for {example.threshold:.2f}"


def pictures(
    examples: Sequence[Example], predictions: Predictions, split: Split, recordings: Path | None
) -> Mapping[str, list["Figure"]]:
    """Figures of the worst misses and false alarms."""
    return {
        kind: [picture(example, predictions, split, recordings) for example in worst(examples, kind)]
        for kind in ("missed", "false alarm")
    }
