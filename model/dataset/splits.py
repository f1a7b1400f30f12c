"""The manifest of a data set: which recordings are in it, in which splits, and why others are not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import sha256
from model.dataset.assignment import RecordingStats, SplitConfig, assign_splits
from model.dataset.split_file import SCHEMA_VERSION
from model.dataset.windows import RecordingArrays, WindowConfig, common_classes, common_inputs, join_recording
from model.recording.folder import CONTENT, Recording
from model.recording.plausibility import (
    CAMERA,
    COAST_BELOW,
    Finding,
    implausible_camera,
    implausible_detections,
    implausible_drive,
)
from model.recording.schema import ACTIONS, BINARY_LABELS, BOX_VALUES, used_schema
from model.recording.telemetry import TelemetryReport


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
        own = Recording(recordings / name)
        try:
            telemetry, report = own.telemetry()
            arrays = join_recording(own, telemetry, window)
            poison = _poison(own, telemetry, report, arrays)
        except Exception as error:  # whatever is wrong with one, the others are used
            reason = str(error) if isinstance(error, DataError) else f"{type(error).__name__}, not foreseen: {error}"
            found.skipped[name] = reason if own.folder.is_dir() else f"{own.folder} is gone"
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


def _poison(own: Recording, telemetry: pd.DataFrame, report: TelemetryReport, arrays: RecordingArrays) -> str:
    """What is implausible about a recording and would teach networks what is not so; empty if nothing.

    Where the labels know coasting, they were made with a threshold that the pedal's rest is below. Of the camera the
    annotations tell; frames are looked at only of a recording that was annotated elsewhere.
    """
    coasts = bool((arrays.state[:, ACTIONS.index("coast")] == 1).any())
    found = implausible_drive(telemetry, report, math.inf if coasts else COAST_BELOW)
    corner = BOX_VALUES.index("x1")
    box = arrays.detections[..., corner : corner + 4][arrays.detection_mask]
    found += implausible_detections(box, arrays.region[1])
    if CAMERA in own.details:
        found += [Finding(**finding) for finding in own.details[CAMERA]]
    else:
        found += implausible_camera(own.frames(), telemetry)
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
