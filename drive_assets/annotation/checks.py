"""Checks of annotations: are the detections plausible?"""

from statistics import median

import dagster as dg

from drive_assets.checks import ERROR, WARN, check_result, partition_check
from drive_assets.resources.storage import Storage
from model.detection.detector import SIMULATED
from model.recording.folder import TRUE_ANNOTATIONS, Recording
from model.recording.plausibility import implausible_detections

MAX_PER_FRAME = 60.0
"""Mean vehicles a frame: far more than a dash camera sees on any road."""
EARLIER, MIN_EARLIER = 20, 5
"""Preceding recordings to compare with, at most and at least."""
MAX_RATIO, MAX_CONFIDENCE_CHANGE = 4.0, 0.15
"""Largest ratio of vehicles a frame, and largest difference in mean confidence, to the preceding recordings."""


@partition_check()
def plausible_detections(storage: Storage, name: str) -> dg.AssetCheckResult:
    """An untrained detector finds no vehicles, or hundreds in every frame, and one that was trained on simulated frames
    misses vehicles in real ones. If the camera is upside down, all vehicles are in the sky; such recordings are left
    out of data sets unless accept_implausible names them."""
    recording = Recording(storage.recording(name))
    annotations = recording.annotations()
    count = round(float(annotations.count.mean()), 2) if len(annotations) else 0.0
    problems = [] if 0 < count <= MAX_PER_FRAME else [f"{count} vehicles a frame"]
    source = str(recording.details.get("trained_on", ""))
    if SIMULATED in source.split("/") and not (recording.folder / TRUE_ANNOTATIONS).is_file():
        problems.append(f"the detector was trained on simulated frames ({source}) and misses vehicles in real ones")
    findings = implausible_detections(annotations.box, recording.annotated_region().height)
    return check_result(
        problems + [finding.text for finding in findings],
        "Look at the frames, or annotate again with other weights (in the launchpad, or as DRIVE_ASSETS_WEIGHTS).",
        about=name,
        severity=ERROR if any(finding.blocks_training for finding in findings) else WARN,
        metadata={"vehicles_per_frame": count},
    )


@partition_check()
def steady_detections(storage: Storage, name: str) -> dg.AssetCheckResult:
    """The same detector finds about as many vehicles, with about the same confidence, as in the preceding recordings.
    Otherwise the camera, its mounting or the weather changed, and the detector may no longer fit."""
    weights, vehicles, confidence = _statistics(storage, name)
    others = [_statistics(storage, other) for other in storage.recordings_before(name, EARLIER)]
    earlier = [figures for other, *figures in others if weights and other == weights]
    changes = []
    if len(earlier) >= MIN_EARLIER:
        usual_vehicles, usual_confidence = (median(column) for column in zip(*earlier, strict=True))
        preceding = f"in the {len(earlier)} preceding recordings"
        if usual_vehicles > 0 and not usual_vehicles / MAX_RATIO <= vehicles <= usual_vehicles * MAX_RATIO:
            changes.append(f"{vehicles:.2f} vehicles a frame, {usual_vehicles:.2f} {preceding}")
        if abs(confidence - usual_confidence) > MAX_CONFIDENCE_CHANGE:
            changes.append(f"mean confidence {confidence:.2f}, {usual_confidence:.2f} {preceding}")
    return check_result(
        changes,
        "Look at its frames (report): does the region of interest fit, is the lens clean? If only the traffic differs, "
        "ignore this.",
        about=name,
        metadata={"compared_with": len(earlier), **({"confidence": round(confidence, 3)} if weights else {})},
    )


def _statistics(storage: Storage, name: str) -> tuple[str, float, float]:
    """Weights, vehicles a frame and mean confidence; no weights if it is not annotated, or was annotated elsewhere."""
    details = Recording(storage.recording(name)).details
    histogram = details.get("confidence_histogram", [])
    if "weights" not in details or "vehicles_per_frame" not in details or not sum(histogram):
        return "", 0.0, 0.0
    mean = sum((i + 0.5) / len(histogram) * count for i, count in enumerate(histogram)) / sum(histogram)
    return str(details["weights"]), float(details["vehicles_per_frame"]), mean
