"""Windows for the networks: frames once, in the device's memory or beside it; batches gathered by index."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from model.common.errors import DataError
from model.dataset.features import detection_features, telemetry_features
from model.dataset.split_file import Split, read_split
from model.recording.schema import DEFAULT_TASKS, STATES


class Batch(NamedTuple):
    """What a training step takes, in the order of the model's and the loss's arguments."""

    telemetry_seq: Tensor
    """(B,T,D) float32; D is 10 where recordings have all channels"""
    detection_seq: Tensor
    """(B,T,N,6) float32"""
    detection_mask: Tensor
    """(B,T,N) bool"""
    labels: Tensor
    """(B,tasks) float32, 0 or 1; 0 where unknown"""
    label_mask: Tensor
    """(B,tasks) bool, False where unknown"""
    going_on: Tensor
    """(B,tasks) bool, True where the task's action goes on at the window's last frame"""
    derived: Tensor | None = None
    """(B,D) float32, what the network derives from the window, where that is stored"""
    weight: Tensor | None = None
    """(B,) float32, weights in the loss, where a review weighs windows"""


@dataclass(frozen=True)
class WindowData:
    """A split on a device: features of F frames, and W windows of `length` consecutive frames by their first row.

    N is the largest number of detections in a frame of the split, at least 1: empty slots change no prediction and
    would only cost time.
    """

    path: Path
    tasks: tuple[str, ...]
    class_names: tuple[str, ...]
    inputs: tuple[str, ...]
    """Telemetry channels behind the features."""
    coast_threshold: float
    """Accelerator position (%) below which the labels say that the car coasts"""
    length: int
    telemetry: Tensor
    """(F,D) float32"""
    detections: Tensor
    """(F,N,6) float32"""
    detection_mask: Tensor
    """(F,N) bool"""
    first_row: Tensor
    """(W,) int64"""
    labels: Tensor
    """(W,tasks) float32 of each window's last frame, 0 where unknown"""
    label_mask: Tensor
    """(W,tasks) bool"""
    going_on: Tensor
    """(W,tasks) bool: the driver brakes, or coasts, at the window's last frame already"""
    derived: Tensor | None = None
    """(W,D) float32, what a network derives from the windows, stored so that it is derived once, not in each epoch"""
    weight: Tensor | None = None
    """(W,) float32, as `Split.window_weight`"""

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str = "cpu",
        tasks: Sequence[str] = DEFAULT_TASKS,
        gear: str = "onehot",
        detection_classes: bool = False,
        expected_fingerprint: str | None = None,
    ) -> Self:
        """Read a split's H5 file, make features once and put them on `device`.

        Raises:
            DataError: as `read_split`, or the file has no window, lacks a task, or holds numbers that are not finite.
        """
        split = read_split(path, expected_fingerprint)
        _check(path, split, tasks)
        slots = np.flatnonzero(split.detection_mask.any(axis=0))
        used = int(slots[-1]) + 1 if slots.size else 1
        mask = torch.from_numpy(split.detection_mask[:, :used])
        last = split.window_start.astype(np.int64) + split.window.length - 1
        labels = torch.from_numpy(split.labels[last][:, [split.label_names.index(task) for task in tasks]])
        state = split.state[last][:, [STATES.index(task.split("_")[0]) for task in tasks]]
        data = cls(
            path=path,
            tasks=tuple(tasks),
            class_names=tuple(split.class_names),
            inputs=split.feature_names,
            coast_threshold=split.coast_threshold,
            length=split.window.length,
            telemetry=telemetry_features(torch.from_numpy(split.telemetry), gear, split.feature_names),
            detections=detection_features(
                torch.from_numpy(split.detections[:, :used]),
                mask,
                torch.from_numpy(split.region[split.recording]),
                split.class_names,
                detection_classes,
            ),
            detection_mask=mask,
            first_row=torch.from_numpy(split.window_start.astype(np.int64)),
            labels=(labels == 1).float(),
            label_mask=labels >= 0,
            going_on=torch.from_numpy(state == 1),
            weight=None if split.window_weight is None else torch.from_numpy(split.window_weight),
        )
        return data.to(device)

    def to(self, device: torch.device | str) -> Self:
        """The same in the memory of `device`."""
        tensors: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.to(device) for name, value in tensors.items()})

    def __len__(self) -> int:
        return len(self.first_row)

    @property
    def telemetry_dim(self) -> int:
        return self.telemetry.shape[-1]

    @property
    def detection_dim(self) -> int:
        return self.detections.shape[-1]

    def order(self, generator: torch.Generator | None = None) -> Tensor:
        """Every window's number once (W,), in the file's order, or shuffled by a CPU `generator`."""
        device = self.first_row.device
        if generator is None:
            return torch.arange(len(self), device=device)
        return torch.randperm(len(self), generator=generator).to(device)

    def gather(self, windows: Tensor) -> Batch:
        """The batch of `windows` (B,), numbers of windows."""
        rows = self.first_row[windows, None] + torch.arange(self.length, device=windows.device)
        return Batch(
            self.telemetry[rows],
            self.detections[rows],
            self.detection_mask[rows],
            self.labels[windows],
            self.label_mask[windows],
            self.going_on[windows],
            None if self.derived is None else self.derived[windows],
            None if self.weight is None else self.weight[windows],
        )

    def deriving(self, derive: Callable[[Tensor, Tensor, Tensor], Tensor], batch_size: int) -> Self:
        """These windows with `derive` of their telemetry, detections and mask."""
        return replace(self, derived=torch.cat([derive(*batch[:3]) for batch in self.batches(batch_size)]))

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Every window once, in the file's order, or shuffled by a CPU `generator`; the last batch may be smaller."""
        return map(self.gather, torch.split(self.order(generator), batch_size))


def _check(path: Path, split: Split, tasks: Sequence[str]) -> None:
    if len(split.window_start) == 0:
        raise DataError(f"{path} holds no window: expected at least one; add recordings or shorten the window.")
    missing = [task for task in tasks if task not in split.label_names]
    if missing:
        raise DataError(f"{path} has no label {', '.join(missing)}: expected tasks of {', '.join(split.label_names)}.")
    if not np.isfinite(split.telemetry).all() or not np.isfinite(split.detections).all():
        raise DataError(f"{path} holds telemetry or detections that are not finite: make the split again.")
    ids = split.detections[..., 0][split.detection_mask]
    if ids.size and not (ids.min() >= 0 and ids.max() < len(split.class_names)):
        raise DataError(
            f"{path} holds class ids from {ids.min():.0f} to {ids.max():.0f}: expected 0 to "
            f"{len(split.class_names) - 1} for classes {', '.join(split.class_names)}; make the split again."
        )
