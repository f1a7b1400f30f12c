"""Options of a bundle for the car. Imports no torch: the launchpad derives from them."""

from pydantic import Field

from model.common.config import Config

PACKAGE = "drive_alarms"
DESCRIPTION, MEASURED = "bundle.json", "measured.json"
"""In a bundle: what it is, and differences from torch and times, which its identity does not cover."""
LIMITS = {"network": 1e-4, "box_px": 1.0, "confidence": 0.01}
"""Largest differences from torch on the golden drive: of a probability, of a box's edge and of a confidence."""


class BundleConfig(Config):
    """What a bundle contains."""

    false_alarms_per_hour: float = Field(
        3.0, gt=0, description="Budget of false alarms an hour and task, one of those of the evaluation"
    )
    recording: str = Field(
        "", description="Recording that the golden drive is cut from; empty: that of the likeliest action in test"
    )
    golden_frames: int = Field(8, ge=1, le=600, description="Windows of the golden drive")
