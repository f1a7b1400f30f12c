"""Whether what a detector found can be true."""

import dagster as dg

from drive_assets.batches import PartitionCheck
from drive_assets.partitions import RECORDINGS
from drive_assets.resources.storage import Storage
from model.recording.folder import Recording

MOST_PER_FRAME = 60.0
"""Vehicles a frame, on average: far more than a dash camera sees on any road."""
PLAUSIBLE_DETECTIONS = dg.AssetCheckSpec(
    "plausible_detections",
    asset="annotations",
    partitions_def=RECORDINGS,
    description="A detector that learnt nothing finds no vehicle at all, or hundreds in every frame.",
)


def plausible_detections(storage: Storage) -> PartitionCheck:
    """The check of `PLAUSIBLE_DETECTIONS` on recordings of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        recording = Recording(storage.recording(name))
        told = recording.details.get("vehicles_per_frame")  # annotations made elsewhere have no details
        count = round(float(recording.annotations().count.mean() if told is None else told), 2)
        passed = 0 < count <= MOST_PER_FRAME
        return dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=""
            if passed
            else f"{name} has {count} vehicles a frame. Look at the frames, and annotate with other weights.",
            metadata={"vehicles_per_frame": count},
        )

    return PartitionCheck(PLAUSIBLE_DETECTIONS, evaluate)
