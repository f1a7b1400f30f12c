"""The pause that all workers of a client share."""

from drive_assets.resources.sharepoint.pace import Pace
from drive_assets_tests.resources.clock import TestClock


def test_a_pause_applies_to_all_and_a_shorter_one_does_not_end_it() -> None:
    clock = TestClock()
    pace = Pace(clock)
    assert pace.delay() <= 0
    pace.pause(30)
    pace.pause(5)
    clock.sleep(10)
    assert pace.delay() == 20
    clock.sleep(20)
    assert pace.delay() <= 0
