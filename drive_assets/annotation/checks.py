"""Whether what a detector found can be true."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import dagster as dg

from drive_assets.partitions import RECORDINGS
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import PartitionCheck
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
STEADY_DETECTIONS = dg.AssetCheckSpec(
    "steady_detections",
    asset="annotations",
    partitions_def=RECORDINGS,
    description="The same detector finds about as many vehicles, as surely, as in the recordings before: else the "
    "camera, its mounting or the weather changed, and the detector may not fit any more.",
)
EARLIER, LEAST_EARLIER = 20, 5
"""Recordings before this one in time that it is compared with, and how many there must be."""
TIMES, CONFIDENCE = 4.0, 0.15
"""How many times more, or less, vehicles, and how much surer or less sure, is a surprise."""


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
            severity=dg.AssetCheckSeverity.ERROR
            if any(f.blocks_training for f in found)
            else dg.AssetCheckSeverity.WARN,
            description=f"{name}: {'; '.join(told)}. Look at the frames, or annotate anew." if told else "",
            metadata={"vehicles_per_frame": count},
        )

    return PartitionCheck(PLAUSIBLE_DETECTIONS, evaluate)


def steady_detections(storage: Storage) -> PartitionCheck:
    """The check of `STEADY_DETECTIONS` on recordings of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        own = _figures(storage, name)
        others = [_figures(storage, other) for other in storage.recordings_before(name, EARLIER)]
        earlier = [found for found in others if found and own and found.weights == own.weights]
        told = _surprises(own, earlier) if own and len(earlier) >= LEAST_EARLIER else []
        return dg.AssetCheckResult(
            passed=not told,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{name}: {'; '.join(told)}. Look at its frames (report): does the region of interest fit, is "
            "the lens clean? If the road is only emptier or fuller, leave it."
            if told
            else "",
            metadata={"compared_with": len(earlier), **({"confidence": round(own.confidence, 3)} if own else {})},
        )

    return PartitionCheck(STEADY_DETECTIONS, evaluate)


@dataclass(frozen=True)
class _Figures:
    weights: str
    vehicles_per_frame: float
    confidence: float


def _surprises(own: _Figures, earlier: Sequence[_Figures]) -> list[str]:
    vehicles = median(found.vehicles_per_frame for found in earlier)
    confidence = median(found.confidence for found in earlier)
    told = []
    if vehicles > 0 and not vehicles / TIMES <= own.vehicles_per_frame <= vehicles * TIMES:
        told.append(
            f"{own.vehicles_per_frame:.2f} vehicles a frame, in {len(earlier)} recordings before {vehicles:.2f}"
        )
    if abs(own.confidence - confidence) > CONFIDENCE:
        told.append(f"mean confidence {own.confidence:.2f}, in {len(earlier)} recordings before {confidence:.2f}")
    return told


def _figures(storage: Storage, name: str) -> _Figures | None:
    """What annotations.json tells of how the recording was annotated; None if it is not, or was elsewhere."""
    details = Recording(storage.recording(name)).details
    histogram = details.get("confidence_histogram", [])
    if "weights" not in details or "vehicles_per_frame" not in details or not sum(histogram):
        return None
    middle = sum((i + 0.5) / len(histogram) * count for i, count in enumerate(histogram)) / sum(histogram)
    return _Figures(str(details["weights"]), float(details["vehicles_per_frame"]), middle)
