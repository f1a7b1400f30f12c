"""Facts that networks and baselines share, without torch: which detections can be the lead vehicle, and lags."""

from collections.abc import Sequence
from typing import Any

from model.detection.vehicles import VEHICLE_WORDS

LAGS = (1, 2, 4, 10)
"""Frames before the last one with which networks and baselines compare it."""
OWN_LANE, OWN_LANE_WIDTHS = 0.015, 0.5
"""Boxes whose gap to the region's middle is at most this share of its width, and of their own, are in the own lane. A
distant vehicle in the next lane is as close to the middle: only its own width tells it from the lead."""


def in_own_lane(middle: Any, width: Any) -> Any:
    """Which boxes are in the own lane, by their middle and width as shares of the region's width; arrays or tensors."""
    return abs(middle - 0.5) < width / 2 + (OWN_LANE_WIDTHS * width).clip(max=OWN_LANE)


def are_vehicles(class_names: Sequence[str]) -> list[bool]:
    """Which classes of a detector are vehicles, by name. If none is known to be one, all count as vehicles."""
    known = [name.lower().split(".")[0] in VEHICLE_WORDS for name in class_names]
    return known if any(known) else [True] * len(known)
