"""The ego car's driver and engine: pedals, gear, engine speed and load that explain a speed and an acceleration.

Road load, engine drag and power are those of a small petrol car (1.2 t, 70 kW); the gears' km/h per 1000 rpm are those
of the recorded car.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.config import STEP_S
from model.recording.gears import GEAR_RATIOS, IDLE_RPM, NEUTRAL_BELOW_KMH

GRAVITY = 9.81
_UP_SHIFT_KMH = (17.0, 33.0, 52.0, 74.0)
_DOWN_SHIFT_KMH = (12.0, 26.0, 43.0, 62.0)
_ENGINE_DRAG = (0.0, 1.0, 0.6, 0.36, 0.24, 0.17)
"""Deceleration by the engine in gears 0..5 with the foot off the accelerator (m/s2)."""
_POWER = 58.0
"""Power by mass (W/kg)."""


@dataclass(frozen=True)
class Controls:
    """Values every STEP_S seconds, as the recorder would read them from the car."""

    speed_kmh: NDArray[np.int64]
    rpm: NDArray[np.float64]
    pedal: NDArray[np.float64]
    load: NDArray[np.float64]
    brake: NDArray[np.bool_]
    gear: NDArray[np.int64]
    brake_force: NDArray[np.float64]


def drive(speed: NDArray[np.float64], acceleration: NDArray[np.float64], rng: np.random.Generator) -> Controls:
    """Derive the controls from speed (m/s) and acceleration (m/s2) every STEP_S seconds.

    To slow down, the driver first releases the accelerator, and brakes at least 0.3 s later if engine and air do not
    slow the car enough.
    """
    steps = len(speed)
    kmh = 3.6 * speed
    gear = _gears(kmh)
    resistance = 0.13 + 0.00034 * speed**2
    coasting = resistance + np.array(_ENGINE_DRAG)[gear]
    wanted = _smooth(acceleration, 0.3)
    pedal_jitter = 1 + 0.06 * _smooth(rng.normal(0, 1, steps), 1.5) / 0.18
    pedal, brake = np.zeros(steps), np.zeros(steps, bool)
    released_s, braking = 1.0, False
    for step in range(steps):
        stopped = kmh[step] < 1.0 and wanted[step] < 0.15
        if braking:
            braking = stopped or wanted[step] < -coasting[step] - 0.15
        else:
            braking = released_s >= 0.3 and (stopped or wanted[step] < -coasting[step] - 0.25)
        pull = wanted[step] + resistance[step]
        # In between, the foot stays off the accelerator until speed is wanted again.
        pressed = not braking and not stopped and pull > (0.0 if released_s == 0 else 0.1)
        released_s = 0.0 if pressed else released_s + STEP_S
        brake[step] = braking
        if pressed:
            share = pull * max(speed[step], 4.0) / _POWER
            pedal[step] = min(100.0, (8.5 + 80 * share) * max(pedal_jitter[step], 0.5))
    rpm = _rpm(kmh, gear, pedal, rng)
    effort = np.clip((wanted + resistance) * np.maximum(speed, 2) / _POWER * 4200 / np.maximum(rpm, IDLE_RPM), 0, 1)
    load = np.where(pedal > 0, 18 + 80 * effort, np.where(gear == 0, 21.0, 0.0)) + rng.normal(0, 0.7, steps)
    return Controls(
        speed_kmh=np.rint(kmh).astype(np.int64),
        rpm=np.round(rpm * 4) / 4,
        pedal=np.where(pedal > 0, np.clip(pedal, 7.6, 100), 0).round(2),
        load=np.clip(load, 0, 100).round(2),
        brake=brake,
        gear=gear,
        brake_force=(-wanted / GRAVITY).round(4),
    )


def _smooth(values: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Exponential mean over about `seconds`."""
    share, mean = STEP_S / (seconds + STEP_S), float(values[0])
    means = np.empty_like(values)
    for step, value in enumerate(values.tolist()):
        mean += share * (value - mean)
        means[step] = mean
    return means


def _gears(kmh: NDArray[np.float64]) -> NDArray[np.int64]:
    gears = np.zeros(len(kmh), np.int64)
    gear = 1 + sum(kmh[0] > limit for limit in _UP_SHIFT_KMH)
    for step, speed in enumerate(kmh.tolist()):
        while gear < 5 and speed > _UP_SHIFT_KMH[gear - 1]:
            gear += 1
        while gear > 1 and speed < _DOWN_SHIFT_KMH[gear - 2]:
            gear -= 1
        gears[step] = gear if speed >= NEUTRAL_BELOW_KMH else 0
    return gears


def _rpm(
    kmh: NDArray[np.float64], gear: NDArray[np.int64], pedal: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    turning = kmh / np.array((np.inf, *GEAR_RATIOS))[gear] * 1000 * (1 + rng.normal(0, 0.004, len(kmh)))
    idle = IDLE_RPM + rng.normal(0, 8, len(kmh)) + 12 * pedal
    rpm: NDArray[np.float64] = np.where(gear > 0, np.maximum(turning, 650.0), idle)
    return rpm
