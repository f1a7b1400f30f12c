"""Checks of the split manifest and the split files: do they match the recordings and each other?"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from drive_assets.checks import ERROR, check_result, partition_check
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from model.dataset.split_file import read_split
from model.recording.folder import TELEMETRY, Recording
from model.recording.schema import DEFAULT_TASKS, PEDAL, PRESSED

MAX_RATIO = 3.0
"""Largest ratio of a split's size to the requested one, and of a label's rate in a split to its rate in all windows."""


@partition_check(blocking=True)
def of_the_manifest(storage: Storage, name: str) -> dg.AssetCheckResult:
    """The file holds the recordings and windows that the manifest lists. Blocking: models would be trained on other
    data than is recorded."""
    manifest, split = read_manifest(storage), read_split(storage.split(name))
    part, problems = manifest["splits"][name], []
    if split.fingerprint != manifest["fingerprint"]:
        problems.append(f"it has data version {split.fingerprint}, the manifest has {manifest['fingerprint']}")
    if set(split.recordings) != set(part["recordings"]):
        problems.append(f"it holds {len(split.recordings)} recordings, the manifest lists {len(part['recordings'])}")
    if len(split.window_start) != part["windows"]:
        problems.append(f"it holds {len(split.window_start):,} windows, the manifest counts {part['windows']:,}")
    return check_result(
        problems,
        "Materialise split_manifest, then h5_split.",
        about=str(storage.split(name)),
        severity=ERROR,
        metadata={"windows": len(split.window_start)},
    )


@dg.asset_check(asset="split_manifest", blocking=True)
def no_recording_in_two_splits(storage: Storage) -> dg.AssetCheckResult:
    """No drive is both trained and tested on: figures would be too good. Blocking: all results would be wrong."""
    manifest = read_manifest(storage)
    places: dict[str, list[str]] = {}
    for split, part in manifest["splits"].items():
        for name in part["recordings"]:
            content = manifest["recordings"].get(name, {}).get("content", {}).get(TELEMETRY, name)
            for identity in {name, content}:
                places.setdefault(identity, []).append(f"{name} in {split}")
    twice = sorted({" and ".join(names) for names in places.values() if len(names) > 1})
    return check_result(
        twice[:5],
        "Remove one of each from `fixed`, or forget it; then materialise split_manifest again.",
        about="The same drive is in several splits",
        severity=ERROR,
        metadata={"twice": len(twice)},
    )


@dg.asset_check(asset="split_manifest")
def balanced_splits(storage: Storage) -> dg.AssetCheckResult:
    """Splits have about the requested sizes, and similar rates of braking and coasting."""
    manifest = read_manifest(storage)
    splits, windows = manifest["splits"], sum(part["windows"] for part in manifest["splits"].values())
    problems = []
    for name, part in splits.items():
        share, wanted = part["share_of_windows"], manifest["split"][name]
        if not wanted / MAX_RATIO <= share <= wanted * MAX_RATIO:
            problems.append(f"{name} has {share:.0%} of the windows, {wanted:.0%} are requested")
        for task in DEFAULT_TASKS:
            overall = sum(other["positives"][task] for other in splits.values()) / max(windows, 1)
            rate = part["label_rates"][task]
            if overall > 0 and not overall / MAX_RATIO <= rate <= overall * MAX_RATIO:
                problems.append(f"{task} is true in {rate:.1%} of {name}, in {overall:.1%} of all")
    return check_result(
        problems,
        "Add recordings, or set `reshuffle` once; earlier figures are then not comparable.",
        metadata={
            **{f"{name}_brake_1s_rate": round(part["label_rates"]["brake_1s"], 4) for name, part in splits.items()}
        },
    )


@dg.asset_check(asset="split_manifest")
def every_split_has_positives(storage: Storage) -> dg.AssetCheckResult:
    """Every split has positives of each task: without them a task cannot be trained or scored."""
    manifest = read_manifest(storage)
    missing = [
        f"{task} in {name}"
        for name, part in manifest["splits"].items()
        for task in DEFAULT_TASKS
        if part["positives"][task] == 0 and _can_be_known(task, manifest)
    ]
    return check_result(
        [f"No positives of {', '.join(missing)}"] if missing else [], "Add recordings with braking and coasting."
    )


def _can_be_known(task: str, manifest: Mapping[str, Any]) -> bool:
    """Whether a label can be known in any recording: not of the brake, for example, where no source has its signal."""
    if task.startswith("brake"):
        return any(source["brake_labels"] != "unknown" for source in manifest.get("sources", [{"brake_labels": ""}]))
    given = {PEDAL, PRESSED} & {*manifest["features"]}
    return bool(given) or any(part["positives"][task] for part in manifest["splits"].values())


@dg.asset_check(asset="split_manifest")
def recordings_keep_their_split(storage: Storage) -> dg.AssetCheckResult:
    """No recording moved to another split or left the data set: figures on different splits are not comparable."""
    manifest = read_manifest(storage)
    moved, gone = manifest.get("moved", {}), manifest.get("no_longer_used", {})
    problems = [f"{name} moved from {before} to {now}" for name, (before, now) in moved.items()]
    problems += [f"{name} is no longer used: {reason}" for name, reason in gone.items()]
    return check_result(
        problems,
        "Do not compare with figures of earlier splits.",
        metadata={"moved": dg.MetadataValue.json(moved), "no_longer_used": dg.MetadataValue.json(gone)},
    )


@dg.asset_check(asset="split_manifest")
def one_detector(storage: Storage) -> dg.AssetCheckResult:
    """All recordings are annotated by the same detector: networks may learn differences between detectors instead of
    the traffic."""
    recordings: dict[str, list[str]] = {}
    for name in read_manifest(storage)["recordings"]:
        details = Recording(storage.recording(name)).details
        if details:  # missing if the recording was annotated elsewhere
            recordings.setdefault(details.get("weights", "unknown"), []).append(name)
    counts = {weights: len(names) for weights, names in recordings.items()}
    return check_result(
        [f"Recordings by detector: {counts}"] if len(counts) > 1 else [],
        "Annotate all with the same weights.",
        metadata={"recordings_by_detector": dg.MetadataValue.json(recordings)},
    )
