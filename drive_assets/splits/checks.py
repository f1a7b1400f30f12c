"""Whether the splits still are what the recordings say."""

import dagster as dg

from drive_assets.partitions import SPLITS, recording_keys
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import PartitionCheck
from drive_assets.splits.manifest import changed_recordings, read_manifest
from model.dataset.split_file import read_split
from model.recording.folder import TELEMETRY, Recording
from model.recording.schema import DEFAULT_TASKS

MOST_TIMES = 3.0
"""How many times more, or less, than in all windows a label may be true in a split."""
OF_THE_MANIFEST = dg.AssetCheckSpec(
    "of_the_manifest",
    asset="h5_split",
    partitions_def=SPLITS,
    blocking=True,
    description="The file holds the recordings and as many windows as the manifest says. Blocking: a GPU would train "
    "on other data than is recorded.",
)


def of_the_manifest(storage: Storage) -> PartitionCheck:
    """The check of `OF_THE_MANIFEST` on the split files of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        manifest, split = read_manifest(storage), read_split(storage.split(name))
        part, told = manifest["splits"][name], []
        if split.fingerprint != manifest["fingerprint"]:
            told.append(f"it is of data version {split.fingerprint}, the manifest of {manifest['fingerprint']}")
        if set(split.recordings) != set(part["recordings"]):
            told.append(
                f"it holds {len(split.recordings)} recordings, not the {len(part['recordings'])} of the manifest"
            )
        if len(split.window_start) != part["windows"]:
            told.append(f"it holds {len(split.window_start):,} windows, the manifest counts {part['windows']:,}")
        return dg.AssetCheckResult(
            passed=not told,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{storage.split(name)}: {'; '.join(told)}. Materialise split_manifest, then h5_split."
            if told
            else "",
            metadata={"windows": len(split.window_start)},
        )

    return PartitionCheck(OF_THE_MANIFEST, evaluate)


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


@dg.asset_check(asset="split_manifest", blocking=True)
def no_recording_in_two_splits(storage: Storage) -> dg.AssetCheckResult:
    """A drive that is trained on and tested on makes figures too good. Blocking: all that follows would be wrong."""
    manifest = read_manifest(storage)
    places: dict[str, list[str]] = {}
    for split, part in manifest["splits"].items():
        for name in part["recordings"]:
            for what in {name, manifest["recordings"].get(name, {}).get("content", {}).get(TELEMETRY, name)}:
                places.setdefault(what, []).append(f"{name} in {split}")
    twice = sorted({" and ".join(found) for found in places.values() if len(found) > 1})
    return dg.AssetCheckResult(
        passed=not twice,
        severity=dg.AssetCheckSeverity.ERROR,
        description=""
        if not twice
        else f"The same drive is there twice: {'; '.join(twice[:5])}. Take out of `fixed`, or forget, one of each; "
        "then materialise split_manifest again.",
        metadata={"twice": len(twice)},
    )


@dg.asset_check(asset="split_manifest")
def balanced_splits(storage: Storage) -> dg.AssetCheckResult:
    """Splits of other sizes than wanted, or with other rates of braking and coasting, score on other roads."""
    manifest = read_manifest(storage)
    splits, windows = manifest["splits"], sum(part["windows"] for part in manifest["splits"].values())
    told = []
    for name, part in splits.items():
        share, wanted = part["share_of_windows"], manifest["split"][name]
        if not wanted / MOST_TIMES <= share <= wanted * MOST_TIMES:
            told.append(f"{name} has {share:.0%} of the windows, {wanted:.0%} are wanted")
        for task in DEFAULT_TASKS:
            overall = sum(other["positives"][task] for other in splits.values()) / max(windows, 1)
            rate = part["label_rates"][task]
            if overall > 0 and not overall / MOST_TIMES <= rate <= overall * MOST_TIMES:
                told.append(f"{task} is true in {rate:.1%} of {name}, in {overall:.1%} of all")
    return dg.AssetCheckResult(
        passed=not told,
        severity=dg.AssetCheckSeverity.WARN,
        description=""
        if not told
        else f"{'; '.join(told)}. Add recordings, or set `reshuffle` once; figures of before then do not compare.",
        metadata={f"{name}_brake_1s_rate": round(part["label_rates"]["brake_1s"], 4) for name, part in splits.items()},
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
