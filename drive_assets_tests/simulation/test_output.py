"""Parallel processes of the simulation."""

import os
import signal

import pytest

from drive_assets.simulation.output import side_by_side
from model.common.errors import PassingError


def _killed(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_process_is_reported_in_one_sentence() -> None:
    with pytest.raises(PassingError, match="was killed, perhaps because memory ran out"):
        list(side_by_side(_killed, [(0,), (1,)], 2))


def test_processes_of_a_simulation_ignore_ctrl_c_which_their_parent_handles() -> None:
    ask = (signal.SIG_BLOCK, [])
    masks = list(side_by_side(signal.pthread_sigmask, [ask, ask], 2))
    assert all(signal.SIGINT in mask for mask in masks)
    assert signal.SIGINT not in signal.pthread_sigmask(*ask)
