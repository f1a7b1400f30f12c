"""The detections of a batch's frames as sets: layers run over real detections, attention over sets of equal size."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor


class ObjectSets(NamedTuple):
    """Which of N detections belong to which of S frames.

    On a CPU only real detections are kept, and frames are ordered by how many they hold: those that hold equally many
    are a dense tensor, and no layer computes an empty slot. On a GPU each frame keeps all its slots, of which `mask`
    tells the real ones: shapes are then the same in every step, and nothing waits for the device.
    """

    slots: Tensor | None
    """(N,) the real detections' places among the (S x K) slots, by group of frames; None where all are kept."""
    order: Tensor | None
    """(S,) the frames, by group"""
    place: Tensor | None
    """(S,) where each frame is in `order`"""
    groups: Sequence[tuple[int, int]]
    """(frames, detections of each) by group"""
    mask: Tensor | None
    """(S,K) bool where all slots are kept"""

    @classmethod
    def of(cls, mask: Tensor, all_slots: bool | None = None) -> Self:
        """The sets of frames whose detections are real where `mask` (...,K) is True.

        Args:
            all_slots: keep empty slots; by default on every device but a CPU.
        """
        mask = mask.flatten(0, -2)
        if mask.device.type != "cpu" if all_slots is None else all_slots:
            return cls(None, None, None, [(mask.shape[0], mask.shape[1])], mask)
        count, order = mask.sum(dim=-1).sort(stable=True)
        slots = torch.arange(mask.numel(), device=mask.device).view_as(mask)[order][mask[order]]
        groups = [(frames, held) for held, frames in enumerate(torch.bincount(count).tolist()) if frames]
        return cls(slots, order, order.argsort(), groups, None)

    def pack(self, values: Tensor) -> Tensor:
        """(...,K,D) values of all slots -> (N,D) those of the detections that are kept."""
        values = values.flatten(0, -2)
        return values if self.slots is None else values[self.slots]

    def split(self, objects: Tensor) -> list[Tensor]:
        """(N,E) detections -> (frames,detections,E) of each group."""
        parts = torch.split(objects, [frames * held for frames, held in self.groups])
        return [part.view(*group, part.shape[-1]) for part, group in zip(parts, self.groups, strict=True)]

    def split_frames(self, frames: Tensor) -> Sequence[Tensor]:
        """(S,...) values of the frames, or (B,...) of B equal runs of frames -> (frames,...) of each group."""
        if self.order is None or self.place is None:
            repeats = self.groups[0][0] // len(frames)
            return [frames[:, None].expand(-1, repeats, *frames.shape[1:]).flatten(0, 1)]
        ordered: Tensor = _Reordered.apply(frames, self.order, self.place)
        return torch.split(ordered, [size for size, _ in self.groups])

    def join_frames(self, groups: Sequence[Tensor]) -> Tensor:
        """(frames,...) of each group -> (S,...)."""
        if self.order is None or self.place is None:
            return groups[0]
        joined: Tensor = _Reordered.apply(torch.cat(list(groups)), self.place, self.order)
        return joined

    def mean(self, objects: Tensor) -> Tensor:
        """(N,E) detections -> (S,E) their mean by frame; zero for a frame without one."""
        if self.mask is not None:
            real = self.mask[..., None]
            return (objects.view(*self.mask.shape, -1) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return self.join_frames([group.sum(dim=1) / max(group.shape[1], 1) for group in self.split(objects)])


class _Reordered(torch.autograd.Function):
    """Rows (S,...), or (B,...) each of which stands for S/B, in another order (S,) whose inverse is known.

    Of indexing the gradient is a sum over rows that may repeat, one after the other; here rows go back to their places.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.repeats = len(order) // len(values)
        return values.index_select(0, order // ctx.repeats if ctx.repeats > 1 else order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        back = gradient.index_select(0, ctx.saved_tensors[0])
        return back if ctx.repeats == 1 else back.view(-1, ctx.repeats, *back.shape[1:]).sum(1), None, None
