"""Whether what a detector found can be true."""

import dagster as dg

from drive_assets.batches import PartitionCheck
from drive_assets.partitions import RECORDINGS
from drive_assets.resources.storage import Storage
from model.recording.folder import Recording
from model.recording.plausibility import implausible_detections

MOST_PER_FRAME = 60.0
"""Vehicles a frame, on average: far more than a dash camera sees on any road."""
PLAUSIBLE_DETECTIONS = dg.AssetCheckSpec(
    "plausible_detections",
    asset="annotations",
    partitions_def=RECORDINGS,
    description="A detector that learnt nothing finds no vehicle at all, or hundreds in every frame; a camera that is "
    "upside down has all vehicles in the sky, and is left out of data sets unless accept_implausible names it.",
)


def plausible_detections(storage: Storage) -> PartitionCheck:
    """The check of `PLAUSIBLE_DETECTIONS` on recordings of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        recording = Recording(storage.recording(name))
        annotations = recording.annotations()
        count = round(float(annotations.count.mean()), 2) if len(annotations) else 0.0
        told = [] if 0 < count <= MOST_PER_FRAME else [f"{count} vehicles a frame"]
        found = implausible_detections(annotations.box, recording.annotated_region().height)
        told += [finding.text for finding in found]
        return dg.AssetCheckResult(
            passed=not told,
            severity=dg.AssetCheckSeverity.ERROR if any(f.poisons for f in found) else dg.AssetCheckSeverity.WARN,
            description=f"{name}: {'; '.join(told)}. Look at the frames, or annotate anew." if told else "",
            metadata={"vehicles_per_frame": count},
        )

    return PartitionCheck(PLAUSIBLE_DETECTIONS, evaluate)
