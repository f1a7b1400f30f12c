"""The gear of a row without one, from speed and engine speed."""

import numpy as np
import numpy.typing as npt

GEAR_RATIOS = np.array([9.5, 16.5, 27.5, 40.5, 53.5])
"""km/h per 1000 rpm in gears 1 to 5."""
NEUTRAL_BELOW_KMH = 6.0
IDLE_RPM = 920.0


def infer_gear(
    speed: npt.NDArray[np.float64], rpm: npt.NDArray[np.float64], pedal: npt.NDArray[np.float64]
) -> npt.NDArray[np.int8]:
    """Gear from km/h per 1000 rpm; 0 when slow, when idling without throttle, or when no gear fits."""
    ratio = speed / np.maximum(rpm / 1000, 1e-9)
    distance = np.abs(ratio[:, None] - GEAR_RATIOS)
    fits = distance.min(axis=1) <= 0.001 + 0.025 * ratio
    neutral = (speed < NEUTRAL_BELOW_KMH) | ((rpm <= IDLE_RPM) & (pedal <= 0)) | ~fits
    return np.where(neutral, 0, distance.argmin(axis=1) + 1).astype(np.int8)
