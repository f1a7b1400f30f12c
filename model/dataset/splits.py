"""The manifest of a data set: which recordings are in it, in which splits, and why others are not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from model.common.config import fingerprint
from model.common.errors import DataError
from model.dataset.assignment import RecordingStats, SplitConfig, assign_splits
from model.dataset.kept import Kept
from model.dataset.split_file import SCHEMA_VERSION
from model.dataset.summaries import Summary, repeated
from model.dataset.windows import WindowConfig, common_classes, common_inputs, common_threshold
from model.recording.folder import Recording
from model.recording.schema import BINARY_LABELS, used_schema


def build_manifest(
    recordings: Path,
    names: Sequence[str],
    window: WindowConfig,
    split: SplitConfig,
    previous: Mapping[str, Any] | None = None,
    kept: Path | None = None,
) -> dict[str, Any]:
    """The content of dataset_config.json: what goes into the splits, why, and what identifies it.

    Recordings that are gone, lack annotations or labels, have no window, are implausible in a way that poisons, or hold
    a drive that another one holds (it could come into two splits), are listed as skipped, with the reason. A recording
    keeps the split that the `previous` manifest gave it, unless the config fixes another or asks to reshuffle; those
    that moved, and those that the previous one used and this one does not, are listed too.

    Args:
        kept: a file of what was read of recordings; those whose files did not change since are not read again.

    Raises:
        DataError: too few recordings are left; tells how many were skipped and why. Or those that are left have
            different telemetry channels.
    """
    used, skipped, accepted = _candidates(recordings, names, window, split, kept)
    stats = [summary.stats for summary in used.values() if summary.stats]
    before = _assignment(previous)
    try:
        assigned = assign_splits(stats, _sticky(split, stats, before))
    except DataError as error:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in list(skipped.items())[:20])
        raise DataError(f"{error} Skipped: {len(skipped)}.{reasons}") from None
    by_name = {s.name: s for s in stats}
    channels = common_inputs({name: summary.inputs for name, summary in used.items()})
    common_threshold({name: summary.coast_threshold for name, summary in used.items()})
    schema = used_schema(channels)
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "features": list(channels),
        "ranges": schema["scaling"],
        "schema": schema["fingerprint"],
        "labels": list(BINARY_LABELS),
        "class_names": list(common_classes({name: summary.class_names for name, summary in used.items()})),
        "window": window.model_dump(),
        "split": split.model_dump(),
        "splits": {name: _summary([by_name[n] for n in members], stats) for name, members in assigned.items()},
        "recordings": {s.name: asdict(s) for s in stats},
        "skipped": dict(sorted(skipped.items())),
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
    """Recordings that can be used, and why others cannot or only as somebody accepted."""

    used: dict[str, Summary]
    skipped: dict[str, str]
    accepted: dict[str, str]


def _candidates(
    recordings: Path, names: Sequence[str], window: WindowConfig, split: SplitConfig, path: Path | None
) -> _Candidates:
    found, kept = _Candidates({}, {}, {}), Kept(path, window)
    for name in sorted(names):
        own = Recording(recordings / name)
        summary = kept.summary(own)
        if summary.poison and name in split.accept_implausible:
            found.accepted[name] = summary.poison
        if summary.stats is None:
            found.skipped[name] = summary.reason if own.folder.is_dir() else f"{own.folder} is gone"
        elif summary.poison and name not in found.accepted:
            found.skipped[name] = (
                f"implausible: {summary.poison}. To use it all the same, name it in accept_implausible"
            )
        else:
            found.used[name] = summary
    kept.save()
    for name, other in repeated(recordings, found.used, window).items():
        found.skipped[name] = f"the drive that {other} holds, with the same times and telemetry: remove one of them"
        del found.used[name]
    return found


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
