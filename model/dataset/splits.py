"""The manifest of a data set: which recordings are in it, in which splits, and why others are not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.common.config import fingerprint
from model.common.errors import DataError
from model.dataset.assignment import RecordingStats, SplitConfig, assign_splits
from model.dataset.review import REVIEWED, Review, ReviewConfig, Tag, Weighted, relevant
from model.dataset.split_file import SCHEMA_VERSION
from model.dataset.summaries import Summary, repeated
from model.dataset.summary_cache import SummaryCache
from model.dataset.windows import Traits, WindowConfig, common_traits, join_recording
from model.recording.folder import Recording
from model.recording.labels import LabelConfig
from model.recording.schema import BINARY_LABELS, TASKS, used_schema

UNDECLARED = "not declared"
_REVIEW = ReviewConfig()


def build_manifest(
    recordings: Path,
    names: Sequence[str],
    window: WindowConfig,
    split: SplitConfig,
    previous: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    review: ReviewConfig = _REVIEW,
    tags: Sequence[Tag] = (),
) -> dict[str, Any]:
    """The content of dataset_config.json: what goes into the splits, why, and what identifies it.

    Recordings that are gone, have no annotations, labels or window, are implausible in a way that blocks training, lack
    a telemetry channel that most have, have another drivetrain or other brake labels, or hold the drive of another one
    (it could come into two splits) are listed as skipped, with the reason. A recording keeps the split that the
    `previous` manifest gave it, unless the config fixes another or asks to reshuffle; those that moved, and those that
    are no longer used, are listed too.

    Args:
        cache: a file of summaries, so that recordings whose files did not change are not read again.
        tags: that people set; windows near them are left out of train and val, or weighed, once recordings have splits.

    Raises:
        DataError: too few recordings are left; says how many were skipped and why. Or those that are left differ in
            telemetry channels, classes or coasting threshold.
    """
    used, skipped, accepted, similar = _candidates(recordings, names, split, SummaryCache(cache, window), review)
    by_name = {name: summary.stats for name, summary in used.items() if summary.stats}
    before = {
        name: place for place, part in (previous or {"splits": {}})["splits"].items() for name in part["recordings"]
    }
    kept = {} if split.reshuffle else {name: before[name] for name in by_name if name in before}
    try:
        assigned = assign_splits(list(by_name.values()), split.replace(fixed=kept | split.fixed))
    except DataError as error:
        reasons = "".join(f"\n  {line}" for line in grouped(skipped)[:20])
        raise DataError(f"{error} Skipped: {len(skipped)}.{reasons}") from None
    by_name, reviewed, weighed = _reviewed(recordings, by_name, assigned, window, review, tags)
    traits_of = {name: summary.traits for name, summary in used.items() if summary.traits}
    traits = common_traits(traits_of)
    schema, total = used_schema(traits.inputs), sum(each.windows for each in by_name.values())
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "features": list(traits.inputs),
        "ranges": schema["scaling"],
        "schema": schema["fingerprint"],
        "labels": list(BINARY_LABELS),
        "class_names": list(traits.class_names),
        "sources": _sources(recordings, traits_of),
        "slow_threshold": traits.slow_threshold,
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
    manifest |= {"similar": similar} if similar else {}
    manifest |= {"review": reviewed} if reviewed else {}  # data sets without tags stay as they were
    identity = {name: [each.content, each.region] for name, each in by_name.items()}
    keys = ["schema_version", "schema", "labels", "class_names", "window"]
    if traits.slow_threshold != LabelConfig().slow_threshold:  # data sets from before there was one stay valid
        keys.append("slow_threshold")
    manifest["fingerprint"] = fingerprint(
        {key: manifest[key] for key in keys}, assigned, identity, *([weighed] if weighed else [])
    )
    return manifest


def _candidates(
    recordings: Path, names: Sequence[str], split: SplitConfig, cache: SummaryCache, review: ReviewConfig
) -> tuple[dict[str, Summary], dict[str, str], dict[str, str], dict[str, tuple[str, float]]]:
    """The recordings to use; why others are skipped, or accepted though implausible; and similar ones."""
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
    repeats, similar = repeated(used, review.same_drive)
    for name, other in repeats.items():
        skipped[name] = f"the same drive as {other}: their telemetry is the same, whatever the clock; remove one"
        del used[name]
    for unlike in (_other_drivetrain, _derived_brake, _lacking):
        reasons = unlike({name: summary.traits for name, summary in used.items() if summary.traits}, split)
        skipped |= reasons
        used = {name: summary for name, summary in used.items() if name not in reasons}
    return used, skipped, accepted, {name: each for name, each in similar.items() if {name, each[0]} <= {*used}}


def _reviewed(
    recordings: Path,
    stats: Mapping[str, RecordingStats],
    assigned: Mapping[str, Sequence[str]],
    window: WindowConfig,
    config: ReviewConfig,
    tags: Sequence[Tag],
) -> tuple[dict[str, RecordingStats], dict[str, Any], dict[str, str]]:
    """What recordings contribute without the windows that the review leaves out; what the manifest says about it; and
    of each recording whose windows it changes, the fingerprint of their weights."""
    split_of = {name: split for split, members in assigned.items() for name in members}
    review = Review(config, relevant(tags, config, split_of))
    after, weighed, matched, counts = dict(stats), dict[str, str](), set[Weighted](), Counter[str]()
    for name, split in split_of.items():
        if not review.concerns(name, split):
            continue
        arrays = join_recording(Recording(recordings / name), window)
        weights, found = review.weights(name, split, arrays, window.length)
        matched |= found
        if (weights == 1).all():
            continue
        last = arrays.window_start[weights > 0] + window.length - 1
        positives = dict(zip(TASKS, (arrays.labels[last] == 1).sum(axis=0).tolist(), strict=True))
        after[name] = replace(stats[name], windows=len(last), positives=positives)
        weighed[name] = fingerprint(np.round(weights, 4).tolist())
        counts[f"{split}_out"] += int((weights == 0).sum())
        counts[f"{split}_weighted"] += int(((weights != 1) & (weights > 0)).sum())
    if config == _REVIEW and not review.tags:
        return after, {}, weighed
    content = {
        "config": config.model_dump(),
        "tags": list(map(list, review.tags)),
        "without_window": list(map(list, sorted(set(review.tags) - matched))),
        "of_test": sum(split_of.get(tag.recording, REVIEWED[0]) not in REVIEWED for tag in tags),
        "windows": dict(counts),
    }
    return after, content, weighed


def grouped(reasons: Mapping[str, str]) -> list[str]:
    """A line a reason, with the recordings that have it."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(str(reason), []).append(name)
    return [f"{', '.join(having)}: {reason}" for reason, having in names.items()]


def _other_drivetrain(traits: Mapping[str, Traits], split: SplitConfig) -> dict[str, str]:
    counts = Counter(each.drivetrain or UNDECLARED for each in traits.values()).most_common(1)
    return {
        name: f"drivetrain {each.drivetrain or UNDECLARED}, unlike most recordings ({counts[0][0]}). To use both, set "
        "the option mix_drivetrains of split; to correct it, the option drivetrain of recording"
        for name, each in traits.items()
        if not split.mix_drivetrains and (each.drivetrain or UNDECLARED) != counts[0][0]
    }


def _derived_brake(traits: Mapping[str, Traits], split: SplitConfig) -> dict[str, str]:
    measured = any(each.brake == "measured" for each in traits.values())
    return {
        name: "brake labels derived from deceleration, unlike those of others, which are measured. To use both, set "
        "the option mix_derived_brake of split"
        for name, each in traits.items()
        if not split.mix_derived_brake and measured and each.brake == "derived"
    }


def _lacking(traits: Mapping[str, Traits], split: SplitConfig) -> dict[str, str]:
    having = Counter(channel for each in traits.values() for channel in each.inputs)
    usual = [channel for channel, count in having.items() if 2 * count > len(traits)]
    lacking = {name: [channel for channel in usual if channel not in each.inputs] for name, each in traits.items()}
    return {
        name: f"it has no {', '.join(channels)}, unlike most recordings. To use it, set the option inputs of window to "
        "channels that all have"
        for name, channels in lacking.items()
        if channels
    }


def _sources(recordings: Path, traits: Mapping[str, Traits]) -> list[dict[str, Any]]:
    """How many recordings have the same kind, drivetrain, brake labels, licence and attribution."""
    counts: Counter[tuple[str, ...]] = Counter()
    for name, each in traits.items():
        origin = Recording(recordings / name).imported
        licence = (str(origin.get(key, "")) for key in ("licence", "attribution"))
        counts[origin.get("kind", "recorded"), each.drivetrain or UNDECLARED, each.brake, *licence] += 1
    keys = ("kind", "drivetrain", "brake_labels", "licence", "attribution", "recordings")
    return [dict(zip(keys, (*source, count), strict=True)) for source, count in sorted(counts.items())]


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
