"""Whether the splits still are what the recordings say."""

import dagster as dg

from drive_assets.manifest import changed_recordings, read_manifest
from drive_assets.partitions import recording_keys
from drive_assets.resources.storage import Storage
from model.recording.folder import Recording
from model.recording.schema import DEFAULT_TASKS


@dg.asset_check(asset="split_manifest")
def manifest_is_current(context: dg.AssetCheckExecutionContext, storage: Storage) -> dg.AssetCheckResult:
    """Compares the manifest's hashes with the recordings on disk: Dagster itself stops noticing past 100 of them."""
    changes = changed_recordings(storage, recording_keys(context.instance))
    return dg.AssetCheckResult(
        passed=not changes,
        severity=dg.AssetCheckSeverity.WARN,
        description="" if not changes else f"{len(changes)} recording(s) changed: materialise split_manifest again.",
        metadata={"changed": dg.MetadataValue.json(changes)},
    )


@dg.asset_check(asset="split_manifest")
def every_split_has_positives(storage: Storage) -> dg.AssetCheckResult:
    """A split without a positive of a task cannot train or score that task."""
    lacking = [
        f"{task} in {name}"
        for name, part in read_manifest(storage)["splits"].items()
        for task in DEFAULT_TASKS
        if part["positives"][task] == 0
    ]
    return dg.AssetCheckResult(
        passed=not lacking,
        severity=dg.AssetCheckSeverity.WARN,
        description="" if not lacking else f"No positive of {', '.join(lacking)}: add recordings that brake and coast.",
    )


@dg.asset_check(asset="split_manifest")
def recordings_keep_their_split(storage: Storage) -> dg.AssetCheckResult:
    """A test recording that became a training one, or one that is gone, makes figures of earlier data sets differ."""
    manifest = read_manifest(storage)
    moved, gone = manifest.get("moved", {}), manifest.get("no_longer_used", {})
    told = [f"{name} moved from {before} to {now}" for name, (before, now) in moved.items()]
    told += [f"{name} is no longer used: {reason}" for name, reason in gone.items()]
    return dg.AssetCheckResult(
        passed=not told,
        severity=dg.AssetCheckSeverity.WARN,
        description="" if not told else f"{'; '.join(told)}. Do not compare with figures of earlier splits.",
        metadata={"moved": dg.MetadataValue.json(moved), "no_longer_used": dg.MetadataValue.json(gone)},
    )


@dg.asset_check(asset="split_manifest")
def one_detector(storage: Storage) -> dg.AssetCheckResult:
    """Boxes of several detectors differ in ways that a network may learn instead of the traffic."""
    recordings: dict[str, list[str]] = {}
    for name in read_manifest(storage)["recordings"]:
        details = Recording(storage.recording(name)).details
        if details:  # annotations made elsewhere have none
            recordings.setdefault(details.get("weights", "not known"), []).append(name)
    counts = {weights: len(names) for weights, names in recordings.items()}
    return dg.AssetCheckResult(
        passed=len(counts) <= 1,
        severity=dg.AssetCheckSeverity.WARN,
        description=""
        if len(counts) <= 1
        else f"Recordings by detector: {counts}. Annotate all with the same weights.",
        metadata={"recordings_by_detector": dg.MetadataValue.json(recordings)},
    )
