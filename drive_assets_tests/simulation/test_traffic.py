"""Traffic and driver: braking has causes that the camera sees, and the controls are those of a car."""

import numpy as np
import pytest

from drive_assets.simulation.config import STEP_S
from drive_assets.simulation.driver import drive
from drive_assets.simulation.traffic import Traffic, simulate_traffic
from model.recording.gears import GEAR_RATIOS, IDLE_RPM

SECOND = round(1 / STEP_S)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return simulate_traffic(300, (22, 52), seed=3)


def leader_is_braking(traffic: Traffic) -> np.ndarray:
    """(steps,) whether the nearest vehicle ahead in the ego's lane, at most 150 m away, is on the brake."""
    lit = np.zeros(len(traffic.x), bool)
    for step, (x, y, around) in enumerate(zip(traffic.x, traffic.y, traffic.around, strict=True)):
        gap = np.where((np.abs(around.y - y) < 1.9) & (around.x > x), around.x - x, np.inf)
        if gap.size and gap.min() < 150:
            lit[step] = around.braking[np.argmin(gap)]
    return lit


def test_the_ego_brakes_after_its_leader_more_often_than_by_chance(traffic: Traffic) -> None:
    brake = drive(traffic.speed, traffic.acceleration, np.random.default_rng(0)).brake
    onsets = np.flatnonzero(brake[1:] & ~brake[:-1]) + 1
    lit = leader_is_braking(traffic)
    warned = np.array([lit[max(0, step - 3 * SECOND) : step].any() for step in range(1, len(lit))])
    assert len(onsets) >= 5
    assert warned[onsets - 1].mean() > 2 * warned.mean()


def test_positions_follow_from_speeds(traffic: Traffic) -> None:
    np.testing.assert_allclose(np.diff(traffic.x), traffic.speed[1:] * STEP_S, atol=0.06)
    assert len(traffic.around) == 300 * SECOND
    assert np.mean([len(around.x) for around in traffic.around]) > 5


def test_the_foot_leaves_the_accelerator_before_it_brakes(traffic: Traffic) -> None:
    controls = drive(traffic.speed, traffic.acceleration, np.random.default_rng(0))
    onsets = np.flatnonzero(controls.brake[1:] & ~controls.brake[:-1]) + 1
    assert all((controls.pedal[step - 3 : step] == 0).all() for step in onsets)
    assert not (controls.brake & (controls.pedal > 0)).any()
    pressed = controls.pedal > 0
    assert 0.5 < pressed.mean() < 0.98 and (controls.pedal[pressed] > 7.5).all()


def test_engine_speed_fits_the_gear_within_the_recorders_tolerance() -> None:
    speed = np.concatenate([np.zeros(50), np.linspace(0, 36, 600), np.linspace(36, 0, 200), np.zeros(50)])
    controls = drive(speed, np.gradient(speed, STEP_S), np.random.default_rng(0))
    assert set(controls.gear) == {0, 1, 2, 3, 4, 5}
    turning = (controls.gear > 0) & (controls.rpm > 651)
    ratio = GEAR_RATIOS[controls.gear[turning] - 1]
    assert (np.abs(speed[turning] * 3600 / controls.rpm[turning] - ratio) <= 0.001 + 0.025 * ratio).all()
    assert controls.brake[-20:].all() and np.abs(controls.rpm[-20:] - IDLE_RPM).max() < 60
    braking = slice(675, 845)
    assert controls.brake[braking].all() and controls.brake_force[braking] == pytest.approx(36 / 19.9 / 9.81, abs=0.002)
