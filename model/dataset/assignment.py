"""Assignment of whole recordings to splits, close to the wanted shares of windows and events."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from model.common.config import Config
from model.common.errors import DataError
from model.recording.schema import DEFAULT_TASKS

SPLITS = ("train", "val", "test")
EXHAUSTIVE_UP_TO = 9
"""Up to this many recordings every assignment is tried: 3^9 are 19,683."""
SWAPPED_UP_TO = 300
"""Up to this many recordings every swap is tried: with more, moving one comes as close."""
_MISSING_POSITIVES = 1.0
"""Cost of a split in which a default task has no positive; shares cost their squared error, far below 1."""


class SplitConfig(Config):
    """How recordings are assigned to splits."""

    train: float = Field(0.75, gt=0, description="Share of windows for training")
    val: float = Field(
        0.15, gt=0, description="Share of windows for validation: thresholds, early stop, choice of the best"
    )
    test: float = Field(0.10, gt=0, description="Share of windows for the reported figures")
    fixed: dict[str, str] = Field({}, description="Recordings that must go into a split, by name: train, val or test")

    reshuffle: bool = Field(
        False,
        description="Assign all recordings again. Otherwise each keeps the split of the last manifest, so that no "
        "recording that was tested on is ever trained on",
    )
    mix_drivetrains: bool = Field(
        False,
        description="Use recordings of all drivetrains. Otherwise only those of the most frequent one: electric cars "
        "slow without their brake, so that coasting is another thing there",
    )
    mix_derived_brake: bool = Field(
        False,
        description="Use recordings whose brake labels are derived from deceleration beside those with a brake signal",
    )
    accept_implausible: list[str] = Field(
        [], description="Recordings, by name, that are used though they are implausible (see the check of recording)"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        shares = (self.train, self.val, self.test)
        if abs(sum(shares) - 1) > 1e-6:
            raise DataError(f"Shares {shares}: expected three positive numbers that add up to 1.")
        wrong = {name: split for name, split in self.fixed.items() if split not in SPLITS}
        if wrong:
            raise DataError(f"fixed {wrong}: expected each recording's split to be one of {', '.join(SPLITS)}.")
        return self

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        return np.array([self.train, self.val, self.test])


@dataclass(frozen=True)
class RecordingStats:
    """What a recording contributes to a split."""

    name: str
    frames: int
    windows: int
    positives: dict[str, int]
    """Windows in which a label is true."""
    content: dict[str, str]
    """SHA-256 of each file that its windows come from."""
    region: tuple[int, int]
    """Width and height that its boxes are normalised by, px."""
    drive: str = ""
    """Recordings of one drive have the same; empty: no other is of this drive."""


def assign_splits(stats: Sequence[RecordingStats], config: SplitConfig) -> dict[str, list[str]]:
    """Assign whole drives so that windows, and brake and coast windows, come close to the wanted shares.

    The cost of an assignment is the squared difference of each split's shares from the wanted ones, and far more for a
    split in which a default task has no positive. Up to nine recordings every assignment is tried; beyond, recordings
    are placed one by one, the largest first, and then moved, and up to some hundreds swapped, while that helps. Nothing
    is random.

    Raises:
        DataError: fewer drives than splits, a fixed recording is missing, or those of one drive are fixed apart.
    """
    drives: dict[str, list[RecordingStats]] = {}
    for each in sorted(stats, key=lambda s: s.name):
        drives.setdefault(each.drive or each.name, []).append(each)
    ordered = sorted(drives.values(), key=lambda drive: (-sum(s.windows for s in drive), drive[0].name))
    unknown = set(config.fixed) - {s.name for s in stats}
    if unknown:
        raise DataError(f"fixed names {', '.join(sorted(unknown))}: expected recordings that have windows.")
    if len(ordered) < len(SPLITS):
        raise DataError(
            f"{len(ordered)} recording(s) with windows are too few: expected at least {len(SPLITS)}, as train, val and "
            "test share none, and those of one drive count as one. Add recordings, or annotate and label those that "
            "are there."
        )
    amounts = np.array(
        [[sum(s.windows for s in d), *(sum(s.positives[t] for s in d) for t in DEFAULT_TASKS)] for d in ordered], float
    )
    fixed = np.array([_fixed_split(drive, config) for drive in ordered])
    choice = _exhaustive(amounts, fixed, config) if len(ordered) <= EXHAUSTIVE_UP_TO else _local(amounts, fixed, config)
    if len(set(choice.tolist())) < len(SPLITS):
        raise DataError(
            "Recordings that are fixed, or that keep their split, leave a split empty: add recordings, remove one from "
            "fixed, or set reshuffle."
        )
    return {
        split: sorted(s.name for drive, chosen in zip(ordered, choice, strict=True) if chosen == index for s in drive)
        for index, split in enumerate(SPLITS)
    }


def _fixed_split(drive: Sequence[RecordingStats], config: SplitConfig) -> int:
    """Index of the split that the recordings of a drive must go into, -1 for any. DataError if there are several."""
    wanted = {config.fixed[s.name] for s in drive if s.name in config.fixed}
    if len(wanted) > 1:
        raise DataError(
            f"{', '.join(s.name for s in drive)} are recordings of one drive, and are fixed to, or keep, the splits "
            f"{', '.join(sorted(wanted))}: fix them to one, or set reshuffle."
        )
    return SPLITS.index(wanted.pop()) if wanted else -1


def _cost(totals: npt.NDArray[np.float64], config: SplitConfig) -> npt.NDArray[np.float64]:
    """Cost (...) of assignments with totals (..., 3 splits, amounts); infinite for an empty split."""
    sums = totals.sum(axis=-2, keepdims=True)
    share = totals / np.maximum(sums, 1)
    wanted = config.shares[:, None]
    error = (np.where(sums > 0, share - wanted, 0.0) ** 2).sum(axis=(-1, -2))
    without_positives = ((totals == 0) & (sums > 0)).sum(axis=(-1, -2))
    empty = (totals[..., 0] == 0).any(axis=-1)
    return np.where(empty, np.inf, error + _MISSING_POSITIVES * without_positives)


def _exhaustive(
    amounts: npt.NDArray[np.float64], fixed: npt.NDArray[np.int64], config: SplitConfig
) -> npt.NDArray[np.int64]:
    options = [range(len(SPLITS)) if f < 0 else [int(f)] for f in fixed]
    every = np.array(list(itertools.product(*options)))
    membership = every[:, None, :] == np.arange(len(SPLITS))[:, None]
    return every[np.argmin(_cost(membership @ amounts, config))]


def _local(
    amounts: npt.NDArray[np.float64], fixed: npt.NDArray[np.int64], config: SplitConfig
) -> npt.NDArray[np.int64]:
    choice, totals = fixed.copy(), np.zeros((len(SPLITS), amounts.shape[1]))
    for index in np.flatnonzero(fixed >= 0):
        totals[choice[index]] += amounts[index]
    goal = config.shares[:, None] * amounts.sum(axis=0)
    free = np.flatnonzero(fixed < 0)
    for index in free:
        choice[index] = int(np.argmax(((goal - totals) / np.maximum(goal, 1)).mean(axis=1)))
        totals[choice[index]] += amounts[index]
    if not len(free):
        return choice
    # A move is a swap with an empty recording, of which each split has one.
    splits, one_hot = np.arange(len(SPLITS)), np.eye(len(SPLITS))
    empty = len(choice) + splits
    choice, amounts = np.append(choice, splits), np.vstack([amounts, np.zeros((len(SPLITS), amounts.shape[1]))])
    moves = np.column_stack([np.repeat(free, len(SPLITS)), np.tile(empty, len(free))])
    swaps = free[np.column_stack(np.triu_indices(len(free) if len(free) <= SWAPPED_UP_TO else 0, 1))]
    pairs, best = np.vstack([moves, swaps]), float(_cost(totals, config))
    while True:
        left, right = pairs[choice[pairs[:, 0]] != choice[pairs[:, 1]]].T
        shift = one_hot[choice[right]] - one_hot[choice[left]]
        swapped = totals + shift[:, :, None] * (amounts[left] - amounts[right])[:, None, :]
        cost = _cost(swapped, config)
        least = int(cost.argmin())
        if cost[least] >= best - 1e-12:
            return choice[: -len(SPLITS)]
        choice[[left[least], right[least]]] = choice[[right[least], left[least]]]
        choice[empty] = splits
        totals, best = swapped[least], float(cost[least])
