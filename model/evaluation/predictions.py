"""What a model predicted of a split's windows, beside what was observed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.common.files import atomic_path
from model.dataset.split_file import Split
from model.evaluation.lane import boxes_in_lane
from model.recording.schema import ACTIONS, TARGETS

PREDICTIONS = "predictions_{}.npz"
_ARRAYS = ("labels", "known", "going_on", "probabilities", "time_ms", "recording", "speed", "lane_boxes", "brake_force")
_TEXTS = ("tasks", "recordings")


class TaskWindows(NamedTuple):
    """The windows (W,) of one task whose label is known."""

    labels: npt.NDArray[np.bool_]
    probabilities: npt.NDArray[np.float64]
    going_on: npt.NDArray[np.bool_]
    time_ms: npt.NDArray[np.int64]
    recording: npt.NDArray[np.integer]
    speed: npt.NDArray[np.float32]
    lane_boxes: npt.NDArray[np.int64]
    brake_force: npt.NDArray[np.float32]
    horizon_s: float

    def chosen(self, rows: npt.NDArray[np.bool_]) -> "TaskWindows":
        """Some of the windows."""
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in self._fields if name != "horizon_s"}
        return self._replace(**arrays)


@dataclass(frozen=True)
class Predictions:
    """Predicted and observed of W windows; everything but the labels is that of a window's last frame."""

    tasks: tuple[str, ...]
    recordings: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    """(W,tasks)"""
    known: npt.NDArray[np.bool_]
    """(W,tasks) whether the label is"""
    going_on: npt.NDArray[np.bool_]
    """(W,tasks) whether the driver brakes (coasts) already"""
    probabilities: npt.NDArray[np.float64]
    """(W,tasks)"""
    time_ms: npt.NDArray[np.int64]
    """(W,)"""
    recording: npt.NDArray[np.integer]
    """(W,) index into `recordings`"""
    speed: npt.NDArray[np.float32]
    """(W,) km/h; NaN if it is no input of the split"""
    lane_boxes: npt.NDArray[np.int64]
    """(W,) detections in the own lane"""
    brake_force: npt.NDArray[np.float32]
    """(W,tasks) at the task's horizon, share of 9.81 m/s2; NaN where unknown"""

    @classmethod
    def of(cls, split: Split, tasks: tuple[str, ...], probabilities: npt.NDArray[np.float64]) -> Self:
        """Those of a split's windows, with their `probabilities` (W,tasks)."""
        last = last_frames(split)
        labels = split.labels[last][:, [split.label_names.index(task) for task in tasks]]
        return cls(
            tasks=tuple(tasks),
            recordings=split.recordings,
            labels=labels == 1,
            known=labels >= 0,
            going_on=split.state[last][:, [ACTIONS.index(action_of(task)) for task in tasks]] == 1,
            probabilities=probabilities,
            time_ms=split.time_ms[last],
            recording=split.recording[last],
            speed=split.channel("SPEED")[last],
            lane_boxes=boxes_in_lane(split)[last].sum(axis=1),
            brake_force=split.targets[last][:, [TARGETS.index(f"brake_force_{horizon_of(task):g}s") for task in tasks]],
        )

    def task(self, column: int) -> TaskWindows:
        """The windows of one task whose label is known."""
        known = self.known[:, column]
        return TaskWindows(
            self.labels[known, column],
            self.probabilities[known, column],
            self.going_on[known, column],
            self.time_ms[known],
            self.recording[known],
            self.speed[known],
            self.lane_boxes[known],
            self.brake_force[known, column],
            horizon_of(self.tasks[column]),
        )

    def same_windows(self, other: "Predictions") -> bool:
        """Whether both are of the same windows, so that they can be compared window by window."""
        return np.array_equal(self.time_ms, other.time_ms) and np.array_equal(self.recording, other.recording)

    def replace(self, probabilities: npt.NDArray[np.float64]) -> Self:
        """The same windows, predicted otherwise."""
        return replace(self, probabilities=probabilities)

    def save(self, path: Path) -> None:
        """Write as an .npz file, atomically."""
        with atomic_path(path) as temporary:
            arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
            texts: dict[str, Any] = {name: np.array(getattr(self, name)) for name in _TEXTS}
            np.savez_compressed(temporary, **arrays, **texts)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. DataError if it is missing or of another version."""
        try:
            with np.load(path) as file:
                texts: dict[str, Any] = {name: tuple(file[name].tolist()) for name in _TEXTS}
                return cls(**texts, **{name: file[name] for name in _ARRAYS})
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} cannot be read as predictions ({error}): evaluate again.") from error


def last_frames(split: Split) -> npt.NDArray[np.int64]:
    """(W,) the last frame of each window."""
    return split.window_start.astype(np.int64) + split.window.length - 1


def action_of(task: str) -> str:
    """`brake` of `brake_2s`."""
    return task.rsplit("_", 1)[0]


def horizon_of(task: str) -> float:
    """Seconds ahead: 2.0 of `brake_2s`."""
    return float(task.rsplit("_", 1)[1].removesuffix("s"))
