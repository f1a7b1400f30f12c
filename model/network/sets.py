"""The detections of a batch's frames as sets, one set a frame."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


class ObjectSets(NamedTuple):
    """Which of N detections belong to which of S frames.

    On a CPU only real detections are kept, and frames are sorted by their number of detections: frames with equal
    numbers form a dense tensor, and no layer computes an empty slot. Where a third of the slots is real, trainings of
    the twelve networks are 1.2 to 2.3 times faster by it (recipe `best` on one core: 1.8 times on average). On a GPU
    each frame keeps all its slots, and `mask` marks the real ones: shapes are then the same in every step, and nothing
    waits for the device.
    """

    slots: Tensor | None
    """(N,) the real detections' positions among the (S x K) slots, by group of frames; None if all are kept"""
    order: Tensor | None
    """(S,) the frames, by group"""
    place: Tensor | None
    """(S,) the position of each frame in `order`"""
    groups: Sequence[tuple[int, int]]
    """(frames, detections of each) by group"""
    mask: Tensor | None
    """(S,K) bool if all slots are kept"""

    @classmethod
    def of(cls, mask: Tensor, all_slots: bool | None = None) -> Self:
        """The sets of frames whose detections are real where `mask` (...,K) is True.

        Args:
            all_slots: whether to keep empty slots; by default on every device except a CPU.
        """
        mask = mask.flatten(0, -2)
        if mask.device.type != "cpu" or torch.compiler.is_exporting() if all_slots is None else all_slots:
            return cls(None, None, None, [(mask.shape[0], mask.shape[1])], mask)
        count, order = mask.sum(dim=-1).sort(stable=True)
        slots = torch.arange(mask.numel(), device=mask.device).view_as(mask)[order][mask[order]]
        groups = [(frames, held) for held, frames in enumerate(torch.bincount(count).tolist()) if frames]
        return cls(slots, order, order.argsort(), groups, None)

    def pack(self, values: Tensor) -> Tensor:
        """(...,K,D) values of all slots -> (N,D) values of the detections that are kept."""
        values = values.flatten(0, -2)
        return values if self.slots is None else values[self.slots]

    def split(self, objects: Tensor) -> list[Tensor]:
        """(N,E) detections -> (frames,detections,E) of each group."""
        parts = torch.split(objects, [frames * held for frames, held in self.groups])
        return [part.view(*group, part.shape[-1]) for part, group in zip(parts, self.groups, strict=True)]

    def split_frames(self, frames: Tensor) -> Sequence[Tensor]:
        """(S,...) values of the frames, or (B,...) of B windows of frames -> (frames,...) of each group."""
        repeats = sum(size for size, _ in self.groups) // len(frames)
        frames = frames[:, None].expand(-1, repeats, *frames.shape[1:]).flatten(0, 1)
        if self.order is None:
            return [frames]
        return torch.split(frames.index_select(0, self.order), [size for size, _ in self.groups])

    def join_frames(self, groups: Sequence[Tensor]) -> Tensor:
        """(frames,...) of each group -> (S,...)."""
        return groups[0] if self.place is None else torch.cat(list(groups)).index_select(0, self.place)

    def mean(self, objects: Tensor) -> Tensor:
        """(N,E) detections -> (S,E) mean of each frame; zero for a frame without detections."""
        if self.mask is not None:
            real = self.mask[..., None]
            return (objects.view(*self.mask.shape, -1) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return self.join_frames([group.sum(dim=1) / max(group.shape[1], 1) for group in self.split(objects)])
