"""Whether what a detector found can be true."""

import json

import dagster as dg

from drive_assets.partitions import RECORDINGS
from drive_assets.resources.storage import Storage
from model.recording.annotations import DETAILS

MOST_PER_FRAME = 60.0
"""Vehicles a frame, on average: far more than a dash camera sees on any road."""


@dg.asset_check(asset="annotations", partitions_def=RECORDINGS)
def plausible_detections(context: dg.AssetCheckExecutionContext, storage: Storage) -> dg.AssetCheckResult:
    """A detector that learnt nothing finds no vehicle at all, or hundreds in every frame."""
    per_frame = {}
    for name in context.partition_keys:
        details = json.loads(storage.annotations(name).with_name(DETAILS).read_text(encoding="utf-8"))
        per_frame[name] = round(float(details["vehicles_per_frame"]), 2)
    bad = {name: count for name, count in per_frame.items() if not 0 < count <= MOST_PER_FRAME}
    return dg.AssetCheckResult(
        passed=not bad,
        severity=dg.AssetCheckSeverity.WARN,
        description="" if not bad else f"Vehicles a frame: {bad}. Look at the frames, and annotate with other weights.",
        metadata={"vehicles_per_frame": dg.MetadataValue.json(per_frame)},
    )
