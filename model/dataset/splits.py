"""The manifest of a data set: which recordings are in it, in which splits, and why others are not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from model.common.config import fingerprint
from model.common.errors import DataError
from model.dataset.assignment import RecordingStats, SplitConfig, assign_splits
from model.dataset.split_file import SCHEMA_VERSION
from model.dataset.summaries import Summary, repeated
from model.dataset.summary_cache import SummaryCache
from model.dataset.windows import WindowConfig, common_classes, common_inputs, common_threshold
from model.recording.folder import Recording
from model.recording.schema import BINARY_LABELS, used_schema


def build_manifest(
    recordings: Path,
    names: Sequence[str],
    window: WindowConfig,
    split: SplitConfig,
    previous: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """The content of dataset_config.json: what goes into the splits, why, and what identifies it.

    Recordings that are gone, have no annotations, labels or window, are implausible in a way that blocks training,
    or hold the drive of another one (it could come into two splits) are listed as skipped, with the reason. A recording
    keeps the split that the `previous` manifest gave it, unless the config fixes another or asks to reshuffle; those
    that moved, and those that are no longer used, are listed too.

    Args:
        cache: a file of summaries, so that recordings whose files did not change are not read again.

    Raises:
        DataError: too few recordings are left; says how many were skipped and why. Or those that are left differ in
            telemetry channels, classes or coasting threshold.
    """
    used, skipped, accepted = _candidates(recordings, names, split, SummaryCache(cache, window))
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
            name: skipped.get(name, "it is no longer a recording") for name in sorted(before.keys() - by_name.keys())
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
    """The recordings to use, and the reasons of those that are skipped, or accepted though implausible."""

    used: dict[str, Summary]
    skipped: dict[str, str]
    accepted: dict[str, str]


def _candidates(recordings: Path, names: Sequence[str], split: SplitConfig, cache: SummaryCache) -> _Candidates:
    used, skipped, accepted = candidates = _Candidates({}, {}, {})
    for name in sorted(names):
        own = Recording(recordings / name)
        summary = cache.summary(own)
        if summary.blocks_training and name in split.accept_implausible:
            accepted[name] = summary.blocks_training
        if summary.stats is None:
            skipped[name] = summary.reason if own.folder.is_dir() else f"{own.folder} is gone"
        elif summary.blocks_training and name not in accepted:
            skipped[name] = (
                f"implausible: {summary.blocks_training}. To use it nevertheless, name it in accept_implausible"
            )
        else:
            used[name] = summary
    cache.save()
    for name, other in repeated(used).items():
        skipped[name] = f"the same drive as {other}, with equal times and telemetry: remove one of them"
        del used[name]
    return candidates


def _assignment(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """The split of each recording in a manifest."""
    splits = manifest.get("splits", {}) if manifest else {}
    return {name: place for place, part in splits.items() for name in part["recordings"]}


def _sticky(config: SplitConfig, stats: Sequence[RecordingStats], before: Mapping[str, str]) -> SplitConfig:
    """The config with every recording fixed to the split that it had, unless it is to move."""
    if config.reshuffle:
        return config
    unchanged = {s.name: before[s.name] for s in stats if s.name in before}
    return config.replace(fixed=unchanged | config.fixed)


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
