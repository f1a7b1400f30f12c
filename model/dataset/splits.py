"""The manifest of a data set: which recordings are in it, in which splits, and why others are not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.common.config import fingerprint
from model.common.errors import DataError
from model.dataset.assignment import RecordingStats, SplitConfig, assign_splits
from model.dataset.split_file import SCHEMA_VERSION
from model.dataset.summaries import Summary, repeated
from model.dataset.summary_cache import SummaryCache
from model.dataset.windows import WindowConfig, common_traits
from model.recording.folder import Recording
from model.recording.schema import BINARY_LABELS, TASKS, used_schema


def build_manifest(
    recordings: Path,
    names: Sequence[str],
    window: WindowConfig,
    split: SplitConfig,
    previous: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """The content of dataset_config.json: what goes into the splits, why, and what identifies it.

    Recordings that are gone, have no annotations, labels or window, are implausible in a way that blocks training, lack
    a telemetry channel that most have, or hold the drive of another one (it could come into two splits) are listed as
    skipped, with the reason. A recording keeps the split that the `previous` manifest gave it, unless the config fixes
    another or asks to reshuffle; those that moved, and those that are no longer used, are listed too.

    Args:
        cache: a file of summaries, so that recordings whose files did not change are not read again.

    Raises:
        DataError: too few recordings are left; says how many were skipped and why. Or those that are left differ in
            telemetry channels, classes or coasting threshold.
    """
    used, skipped, accepted = _candidates(recordings, names, split, SummaryCache(cache, window))
    by_name = {name: summary.stats for name, summary in used.items() if summary.stats}
    before = {
        name: place for place, part in (previous or {"splits": {}})["splits"].items() for name in part["recordings"]
    }
    kept = {} if split.reshuffle else {name: before[name] for name in by_name if name in before}
    try:
        assigned = assign_splits(list(by_name.values()), split.replace(fixed=kept | split.fixed))
    except DataError as error:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in list(skipped.items())[:20])
        raise DataError(f"{error} Skipped: {len(skipped)}.{reasons}") from None
    traits = common_traits({name: summary.traits for name, summary in used.items() if summary.traits})
    schema, total = used_schema(traits.inputs), sum(each.windows for each in by_name.values())
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "features": list(traits.inputs),
        "ranges": schema["scaling"],
        "schema": schema["fingerprint"],
        "labels": list(BINARY_LABELS),
        "class_names": list(traits.class_names),
        "window": window.model_dump(),
        "split": split.model_dump(),
        "splits": {name: _summary([by_name[n] for n in members], total) for name, members in assigned.items()},
        "recordings": {name: asdict(each) for name, each in by_name.items()},
        "skipped": dict(sorted(skipped.items())),
        "accepted": accepted,
        "moved": {
            name: [before[name], place]
            for place, members in assigned.items()
            for name in members
            if before.get(name, place) != place
        },
        "no_longer_used": {
            name: skipped.get(name, "it is no longer a recording") for name in sorted(before.keys() - by_name.keys())
        },
    }
    identity = {name: [each.content, each.region] for name, each in by_name.items()}
    keys = ("schema_version", "schema", "labels", "class_names", "window")
    manifest["fingerprint"] = fingerprint({key: manifest[key] for key in keys}, assigned, identity)
    return manifest


def _candidates(
    recordings: Path, names: Sequence[str], split: SplitConfig, cache: SummaryCache
) -> tuple[dict[str, Summary], dict[str, str], dict[str, str]]:
    """The recordings to use, and the reasons of those that are skipped, or accepted though implausible."""
    used: dict[str, Summary] = {}
    skipped: dict[str, str] = {}
    accepted: dict[str, str] = {}
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
    for name, channels in _lacking(used).items():
        skipped[name] = (
            f"it has no {', '.join(channels)}, unlike most recordings. To use it, set the option inputs of window to "
            "channels that all have"
        )
        del used[name]
    return used, skipped, accepted


def _lacking(used: Mapping[str, Summary]) -> dict[str, list[str]]:
    """By recording, the telemetry channels that it lacks and most recordings have."""
    inputs = {name: summary.traits.inputs for name, summary in used.items() if summary.traits}
    having = Counter(channel for channels in inputs.values() for channel in channels)
    usual = [channel for channel, count in having.items() if 2 * count > len(inputs)]
    lacking = {name: [each for each in usual if each not in channels] for name, channels in inputs.items()}
    return {name: channels for name, channels in lacking.items() if channels}


def _summary(members: Sequence[RecordingStats], total: int) -> dict[str, Any]:
    """A split in the manifest; `total` is the number of windows of all splits."""
    windows = sum(each.windows for each in members)
    positives = {label: sum(each.positives[label] for each in members) for label in TASKS}
    return {
        "recordings": [each.name for each in members],
        "frames": sum(each.frames for each in members),
        "windows": windows,
        "share_of_windows": windows / total,
        "positives": positives,
        "label_rates": {label: count / windows for label, count in positives.items()},
    }
