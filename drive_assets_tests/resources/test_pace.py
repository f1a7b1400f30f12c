"""The pause and the slow-down that all workers of a client share."""

import pytest

from drive_assets.resources.sharepoint.pace import Pace
from drive_assets_tests.resources.clock import TestClock


def starts(pace: Pace, clock: TestClock, count: int) -> list[float]:
    """Start times of `count` requests that start one after the other, as soon as possible."""
    begin, times = clock.monotonic(), []
    for _ in range(count):
        while (delay := pace.delay()) > 0:
            clock.sleep(delay)
        times.append(clock.monotonic() - begin)
    return times


def test_without_a_pause_no_request_waits() -> None:
    clock = TestClock()
    assert starts(Pace(clock), clock, 3) == [0, 0, 0]


def test_a_pause_applies_to_all_and_a_shorter_one_does_not_end_it() -> None:
    clock = TestClock()
    pace = Pace(clock)
    pace.pause(30)
    pace.pause(5)
    assert starts(pace, clock, 2) == [30, 30]


def test_remaining_requests_are_spread_over_the_time_until_the_reset() -> None:
    clock = TestClock()
    pace = Pace(clock)
    pace.spread(remaining=4, reset_s=20)
    assert starts(pace, clock, 4) == [5, 10, 15, 20]
    assert starts(pace, clock, 2) == [0, 0], "after the reset the service counts from zero"


def test_two_workers_share_the_slow_down() -> None:
    clock = TestClock()
    pace = Pace(clock)
    pace.spread(remaining=10, reset_s=10)
    first, second = pace.delay(), pace.delay()
    assert first == second == pytest.approx(1)
    clock.sleep(1)
    assert pace.delay() <= 0, "the first request starts"
    assert pace.delay() == pytest.approx(1), "the second waits for the next start"


def test_no_remaining_request_is_a_pause() -> None:
    clock = TestClock()
    pace = Pace(clock)
    pace.spread(remaining=0, reset_s=7)
    assert starts(pace, clock, 2) == [7, 7]
