"""Work of the simulation in processes side by side."""

import os
import signal

import pytest

from drive_assets.simulation.output import side_by_side
from model.common.errors import PassingError


def _killed(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_is_killed_is_told_in_a_sentence() -> None:
    with pytest.raises(PassingError, match="was killed, as by the system where memory is short"):
        side_by_side(_killed, [(0,), (1,)], 2, lambda number, result: None)
