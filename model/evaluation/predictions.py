"""The predictions of a model for the windows of a split, with the observed labels."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.common.files import atomic_path
from model.dataset.split_file import Split
from model.evaluation.lane import boxes_in_lane, scenes
from model.recording.schema import STATES, TARGETS

PREDICTIONS = "predictions_{}.npz"


@dataclass(frozen=True)
class Predictions:
    """Predicted and observed values of W windows; all but the labels and the braking force are of the last frame.

    Arrays (W,tasks) are (W,) in the windows of a single task.
    """

    tasks: tuple[str, ...]
    recordings: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    """(W,tasks)"""
    known: npt.NDArray[np.bool_]
    """(W,tasks) whether the label is known"""
    going_on: npt.NDArray[np.bool_]
    """(W,tasks) whether the driver already brakes (coasts)"""
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
    """(W,tasks) at the task's horizon, share of 9.81 m/s2; NaN if unknown"""
    scene: npt.NDArray[np.int64] | None = None
    """(W,) as `scenes`; None in files of earlier versions"""

    @classmethod
    def of(cls, split: Split, tasks: tuple[str, ...], probabilities: npt.NDArray[np.float64]) -> Self:
        """The windows of a split with their `probabilities` (W,tasks)."""
        last = last_frames(split)
        actions, horizons = zip(*(task.split("_") for task in tasks), strict=True)
        labels = split.labels[last][:, [split.label_names.index(task) for task in tasks]]
        return cls(
            tasks=tuple(tasks),
            recordings=split.recordings,
            labels=labels == 1,
            known=labels >= 0,
            going_on=split.state[last][:, [STATES.index(action) for action in actions]] == 1,
            probabilities=probabilities,
            time_ms=split.time_ms[last],
            recording=split.recording[last],
            speed=split.channel("SPEED")[last],
            lane_boxes=boxes_in_lane(split)[last].sum(axis=1),
            scene=scenes(split, last),
            brake_force=split.targets[last][:, [TARGETS.index(f"brake_force_{horizon}") for horizon in horizons]],
        )

    def task(self, column: int) -> Self:
        """The windows of a single task whose label is known."""
        arrays = {name: array[:, column] if array.ndim == 2 else array for name, array in self._arrays().items()}
        return replace(self, tasks=(self.tasks[column],), **arrays).chosen(self.known[:, column])

    def chosen(self, rows: npt.NDArray[np.bool_]) -> Self:
        """The windows of a mask (W,)."""
        return replace(self, **{name: array[rows] for name, array in self._arrays().items()})

    def _arrays(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @property
    def horizon_s(self) -> float:
        """Of a single task: seconds from the last frame to the label's."""
        (task,) = self.tasks
        return float(task.split("_")[1].removesuffix("s"))

    def same_windows(self, other: "Predictions") -> bool:
        """Whether both cover the same windows, so that they can be compared window by window."""
        return np.array_equal(self.time_ms, other.time_ms) and np.array_equal(self.recording, other.recording)

    def replace(self, probabilities: npt.NDArray[np.float64]) -> Self:
        """The same windows with other probabilities."""
        return replace(self, probabilities=probabilities)

    def save(self, path: Path) -> None:
        """Write as an .npz file, atomically."""
        with atomic_path(path) as temporary:
            arrays: dict[str, Any] = {
                name: np.asarray(values) for name, values in vars(self).items() if values is not None
            }
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote. DataError if it is missing, damaged or of another version."""
        try:
            with np.load(path) as file:
                content: dict[str, Any] = {
                    field.name: file[field.name] for field in fields(cls) if field.name in file or field.name != "scene"
                }
        except Exception as error:  # numpy, zipfile and zlib each raise errors of their own for damage
            raise DataError(f"{path} cannot be read as predictions ({error}): evaluate again.") from error
        return cls(**content | {name: tuple(content[name].tolist()) for name in ("tasks", "recordings")})


def test_predictions(folder: Path) -> Predictions:
    """The predictions on test in the folder of an evaluation. DataError as `Predictions.load`."""
    return Predictions.load(folder / PREDICTIONS.format("test"))


def last_frames(split: Split) -> npt.NDArray[np.int64]:
    """(W,) the last frame of each window."""
    return split.window_start.astype(np.int64) + split.window.length - 1
