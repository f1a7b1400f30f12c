"""Which recording goes into which split, and the manifest that says so."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from model.common.config import Config, fingerprint
from model.common.errors import DataError
from model.common.files import sha256
from model.dataset.split_file import SCHEMA_VERSION
from model.dataset.windows import RecordingArrays, WindowConfig, build_recording, common_classes, common_inputs
from model.recording.folder import CONTENT, Recording
from model.recording.plausibility import COAST_BELOW, implausible_drive
from model.recording.schema import ACTIONS, BINARY_LABELS, DEFAULT_TASKS, used_schema

SPLITS = ("train", "val", "test")
EXHAUSTIVE_UP_TO = 9
"""Recordings of which every assignment is tried: 3^9 are 19,683."""
_MISSING_POSITIVES = 1.0
"""Cost of a split in which a default task has no positive; shares cost their squared error, far below 1."""


class SplitConfig(Config):
    """How recordings are shared out."""

    train: float = Field(0.75, gt=0, description="Share of windows for training")
    val: float = Field(
        0.15, gt=0, description="Share of windows for validation: thresholds, early stop, choice of the best"
    )
    test: float = Field(0.10, gt=0, description="Share of windows for the reported figures")
    fixed: dict[str, str] = Field({}, description="Recordings that must go into a split, by name: train, val or test")

    reshuffle: bool = Field(
        False,
        description="Share all recordings out anew. Else each keeps the split that the last manifest gave it, so that "
        "what was tested on is never trained on",
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
    """What a recording brings to a split."""

    name: str
    frames: int
    windows: int
    positives: dict[str, int]
    """Windows in which a label is true."""
    content: dict[str, str]
    """SHA-256 of each file that its windows come from."""
    region: tuple[int, int]
    """Width and height that its boxes are normalised by, px."""


def recording_stats(recording: Path, arrays: RecordingArrays, config: WindowConfig) -> RecordingStats:
    """Count a recording's windows and positives."""
    positives = (arrays.window_labels(config.length) == 1).sum(axis=0)
    return RecordingStats(
        name=recording.name,
        frames=len(arrays.time_ms),
        windows=len(arrays.window_start),
        positives=dict(zip(BINARY_LABELS, positives.tolist(), strict=True)),
        content={name: sha256(recording / name) for name in CONTENT},
        region=arrays.region,
    )


@dataclass(frozen=True)
class _Samples:
    """What tells a drive from another. Two cars may record at the same time, but not the same."""

    time_ms: npt.NDArray[np.int64]
    """(F,)"""
    telemetry: npt.NDArray[np.float32]
    """(F,C)"""

    def repeat(self, other: "_Samples") -> bool:
        if self.time_ms.min() > other.time_ms.max() or other.time_ms.min() > self.time_ms.max():
            return False
        _, mine, theirs = np.intersect1d(self.time_ms, other.time_ms, return_indices=True)
        if self.telemetry.shape[1] != other.telemetry.shape[1]:
            return False
        return len(mine) > 0 and float((self.telemetry[mine] == other.telemetry[theirs]).all(axis=1).mean()) > 0.5


def assign_splits(stats: Sequence[RecordingStats], config: SplitConfig) -> dict[str, list[str]]:
    """Share recordings out, whole, so that windows and brake and coast windows come near to the wanted shares.

    The cost of an assignment is the squared difference of each split's shares from the wanted ones, and far more for a
    split in which a default task has no positive. Up to nine recordings every assignment is tried; beyond, recordings
    are placed one by one, the largest first, and then moved and swapped while that helps. No chance is involved.

    Raises:
        DataError: fewer recordings than splits, or a fixed one that is not there.
    """
    ordered = sorted(stats, key=lambda s: (-s.windows, s.name))
    unknown = set(config.fixed) - {s.name for s in ordered}
    if unknown:
        raise DataError(f"fixed names {', '.join(sorted(unknown))}: expected recordings that have windows.")
    if len(ordered) < len(SPLITS):
        raise DataError(
            f"{len(ordered)} recording(s) with windows are too few: expected at least {len(SPLITS)}, as train, val and "
            "test share none. Add recordings, or annotate and label those that are there."
        )
    amounts = np.array([[s.windows, *(s.positives[task] for task in DEFAULT_TASKS)] for s in ordered], float)
    fixed = np.array([SPLITS.index(config.fixed[s.name]) if s.name in config.fixed else -1 for s in ordered])
    choice = _exhaustive(amounts, fixed, config) if len(ordered) <= EXHAUSTIVE_UP_TO else _local(amounts, fixed, config)
    if len(set(choice.tolist())) < len(SPLITS):
        raise DataError(
            "The recordings that are fixed, or keep the split that they had, leave a split empty: add recordings, free "
            "one, or set reshuffle."
        )
    return {
        split: sorted(s.name for s, chosen in zip(ordered, choice, strict=True) if chosen == index)
        for index, split in enumerate(SPLITS)
    }


def build_manifest(
    recordings: Path,
    names: Sequence[str],
    window: WindowConfig,
    split: SplitConfig,
    previous: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of dataset_config.json: what goes into the splits, why, and what identifies it.

    Recordings that are gone, lack annotations or labels, have no window, are implausible in a way that poisons, or hold
    a drive that another one holds (it could come into two splits), are listed as skipped, with the reason. A recording
    keeps the split that the `previous` manifest gave it, unless the config fixes another or asks to reshuffle; those
    that moved, and those that the previous one used and this one does not, are listed too.

    Raises:
        DataError: too few recordings are left; tells how many were skipped and why. Or those that are left have
            different telemetry channels.
    """
    stats, inputs, skipped, accepted = _candidates(recordings, names, window, split)
    before = _assignment(previous)
    try:
        assigned = assign_splits(stats, _sticky(split, stats, before))
    except DataError as error:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in list(skipped.items())[:20])
        raise DataError(f"{error} Skipped: {len(skipped)}.{reasons}") from None
    by_name = {s.name: s for s in stats}
    channels = common_inputs(inputs)
    schema = used_schema(channels)
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "features": list(channels),
        "ranges": schema["scaling"],
        "schema": schema["fingerprint"],
        "labels": list(BINARY_LABELS),
        "class_names": list(common_classes([recordings / s.name for s in stats])),
        "window": window.model_dump(),
        "split": split.model_dump(),
        "splits": {name: _summary([by_name[n] for n in members], stats) for name, members in assigned.items()},
        "recordings": {s.name: asdict(s) for s in stats},
        "skipped": skipped,
        "accepted": accepted,
        "moved": _moved(before, assigned),
        "no_longer_used": {
            name: skipped.get(name, "it is no recording any more") for name in sorted(before.keys() - by_name.keys())
        },
    }
    identity = {name: [s.content, s.region] for name, s in by_name.items()}
    keys = ("schema_version", "schema", "labels", "class_names", "window")
    manifest["fingerprint"] = fingerprint({key: manifest[key] for key in keys}, assigned, identity)
    return manifest


def _moved(before: Mapping[str, str], assigned: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The split that each recording had and has, where these differ."""
    now = {name: split for split, members in assigned.items() for name in members}
    return {name: [before[name], split] for name, split in now.items() if before.get(name, split) != split}


class _Candidates(NamedTuple):
    """Recordings that can be used, the channels that each has, and why others cannot or only as somebody accepted."""

    stats: list[RecordingStats]
    inputs: dict[str, tuple[str, ...]]
    skipped: dict[str, str]
    accepted: dict[str, str]


def _candidates(recordings: Path, names: Sequence[str], window: WindowConfig, split: SplitConfig) -> _Candidates:
    found, samples = _Candidates([], {}, {}, {}), dict[str, _Samples]()
    for name in sorted(names):
        try:
            arrays = build_recording(recordings / name, window)
            poison = _poison(recordings / name, arrays)
        except DataError as error:
            gone = not (recordings / name).is_dir()
            found.skipped[name] = f"{recordings / name} is gone" if gone else str(error)
            continue
        if poison and name in split.accept_implausible:
            found.accepted[name] = poison
        these = _Samples(arrays.time_ms, arrays.telemetry)
        if not len(arrays.window_start):
            found.skipped[name] = f"no window of {window.length} frames without a gap and with known labels"
        elif poison and name not in found.accepted:
            found.skipped[name] = f"implausible: {poison}. To use it all the same, name it in accept_implausible"
        elif same := next((other for other, those in samples.items() if these.repeat(those)), None):
            found.skipped[name] = f"the drive that {same} holds, with the same times and telemetry: remove one of them"
        else:
            samples[name], found.inputs[name] = these, arrays.inputs
            found.stats.append(recording_stats(recordings / name, arrays, window))
    return found


def _poison(folder: Path, arrays: RecordingArrays) -> str:
    """What is implausible about a recording and would teach networks what is not so; empty if nothing.

    Where the labels know coasting, they were made with a threshold that the pedal's rest is below.
    """
    recording = Recording(folder)
    coasts = bool((arrays.state[:, ACTIONS.index("coast")] == 1).any())
    found = implausible_drive(*recording.telemetry(), math.inf if coasts else COAST_BELOW)
    return "; ".join(finding.text for finding in found if finding.poisons)


def _assignment(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """The split of each recording in a manifest."""
    splits = manifest.get("splits", {}) if manifest else {}
    return {name: place for place, part in splits.items() for name in part["recordings"]}


def _sticky(config: SplitConfig, stats: Sequence[RecordingStats], before: Mapping[str, str]) -> SplitConfig:
    """The config with every recording fixed to the split that it had, unless it is to move."""
    if config.reshuffle:
        return config
    kept = {s.name: before[s.name] for s in stats if s.name in before}
    return config.replace(fixed=kept | config.fixed)


def _summary(members: Sequence[RecordingStats], everything: Sequence[RecordingStats]) -> dict[str, Any]:
    windows = sum(s.windows for s in members)
    positives = {label: sum(s.positives[label] for s in members) for label in BINARY_LABELS}
    return {
        "recordings": [s.name for s in members],
        "frames": sum(s.frames for s in members),
        "windows": windows,
        "share_of_windows": windows / sum(s.windows for s in everything),
        "positives": positives,
        "label_rates": {label: count / windows for label, count in positives.items()},
    }


def _cost(totals: npt.NDArray[np.float64], config: SplitConfig) -> npt.NDArray[np.float64]:
    """Cost (...) of assignments by the totals (..., 3 splits, amounts) that they give; infinite for an empty split."""
    every = totals.sum(axis=-2, keepdims=True)
    share = totals / np.maximum(every, 1)
    wanted = config.shares[:, None]
    error = (np.where(every > 0, share - wanted, 0.0) ** 2).sum(axis=(-1, -2))
    lacking = ((totals == 0) & (every > 0)).sum(axis=(-1, -2))
    empty = (totals[..., 0] == 0).any(axis=-1)
    return np.where(empty, np.inf, error + _MISSING_POSITIVES * lacking)


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
    for index in np.flatnonzero(fixed < 0):
        choice[index] = int(np.argmax(((goal - totals) / np.maximum(goal, 1)).mean(axis=1)))
        totals[choice[index]] += amounts[index]
    free = np.flatnonzero(fixed < 0)
    if not len(free):
        return choice
    one_hot = np.eye(len(SPLITS))
    best = float(_cost(totals, config))
    while True:
        moves = np.array([(i, s) for i in free for s in range(len(SPLITS)) if s != choice[i]])
        shift = one_hot[moves[:, 1]] - one_hot[choice[moves[:, 0]]]
        moved = totals + shift[:, :, None] * amounts[moves[:, 0], None, :]
        cost = _cost(moved, config)
        pairs = np.array([(i, j) for i, j in itertools.combinations(free, 2) if choice[i] != choice[j]])
        swap_shift = one_hot[choice[pairs[:, 1]]] - one_hot[choice[pairs[:, 0]]] if len(pairs) else np.empty((0, 3))
        swapped = totals + swap_shift[:, :, None] * (amounts[pairs[:, 0]] - amounts[pairs[:, 1]])[:, None, :]
        swap_cost = _cost(swapped, config) if len(pairs) else np.array([np.inf])
        if min(cost.min(), swap_cost.min()) >= best - 1e-12:
            return choice
        if cost.min() <= swap_cost.min():
            index, split = moves[cost.argmin()]
            choice[index], totals, best = split, moved[cost.argmin()], float(cost.min())
        else:
            left, right = pairs[swap_cost.argmin()]
            choice[[left, right]] = choice[[right, left]]
            totals, best = swapped[swap_cost.argmin()], float(swap_cost.min())
