"""Result of annotating a recording. Imports no torch: the worker sends it to the op."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AnnotationReport:
    """Result of annotating a recording."""

    recording: str
    weights: str
    """Name and start of the SHA-256 of the detector's file"""
    trained_on: str
    """The source of the frames that the detector was trained on; empty if unknown."""
    frames: int
    unreadable: int
    """Files that are not pictures, truncated or damaged."""
    other_size: int
    """Frames of another size than most frames, to which the region of interest does not apply."""
    detections: int
    vehicles_per_frame: float
    frames_without_vehicle: int
    confidence_histogram: list[int]
    """Detections by confidence, 20 bins of 0.05."""
    roi: list[int]
    class_names: list[str]
    backend: str
    resumed: int = 0
    """Frames annotated by an earlier run."""
    without_row: int = 0
    """Frames without a telemetry row."""
    missing: int = 0
    """Telemetry rows without a frame."""
    frames_per_s: float = 0.0
