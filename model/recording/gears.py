"""The gear of each row, as recorded; where it is missing, from speed and engine speed if they fit one car's ratios."""

import numpy as np
import numpy.typing as npt

from model.recording.schema import GEARS

GEAR_RATIOS = np.array([9.5, 16.5, 27.5, 40.5, 53.5])
"""km/h per 1000 rpm in gears 1 to 5."""
NEUTRAL_BELOW_KMH = 6.0
IDLE_RPM = 920.0
MOVING_KMH = 20.0
FITTING_SHARE = 0.5
"""Of the moving rows of a car with these ratios; by chance it is a sixth."""
MOST_GEARS = 12


def infer_gear(
    speed: npt.NDArray[np.float64], rpm: npt.NDArray[np.float64], pedal: npt.NDArray[np.float64]
) -> npt.NDArray[np.int8]:
    """Gear from km/h per 1000 rpm; 0 when slow, when idling without throttle, or when no gear fits."""
    neutral = (speed < NEUTRAL_BELOW_KMH) | ((rpm <= IDLE_RPM) & (pedal <= 0))
    return np.where(neutral, 0, fitting_gear(speed, rpm)).astype(np.int8)


def ratios_fit(speed: npt.NDArray[np.float64], rpm: npt.NDArray[np.float64]) -> bool:
    """Whether the car has `GEAR_RATIOS`, as far as its moving rows show."""
    moving = speed > MOVING_KMH
    return not moving.any() or bool((fitting_gear(speed[moving], rpm[moving]) > 0).mean() >= FITTING_SHARE)


def fitting_gear(speed: npt.NDArray[np.float64], rpm: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(N,) the gear whose ratio fits, 0 where none does."""
    ratio = speed / np.maximum(rpm / 1000, 1e-9)
    distance = np.abs(ratio[:, None] - GEAR_RATIOS)
    return np.where(distance.min(axis=1) <= 0.001 + 0.025 * ratio, distance.argmin(axis=1) + 1, 0)


def recorded_gear(gear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N,) gears that the networks know: reverse is 0, gears above the highest are the highest, others are NaN."""
    is_gear = (gear == np.round(gear)) & (gear >= -1) & (gear <= MOST_GEARS)
    return np.where(is_gear, np.clip(gear, 0, GEARS - 1), np.nan)
