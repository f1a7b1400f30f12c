"""Signals wait while they are held, then do what they did before; where they cannot be held, nothing changes."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from model.common.signals import HeldSignals


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What the handlers of this process heard; SIGINT is ignored."""
    numbers: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: numbers.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_held_signals_are_heard_once_each_when_they_are_let_through(heard: list[int]) -> None:
    with HeldSignals() as signals:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert (heard, signals.came) == ([], [signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1])
        signals.deliver()
        assert (heard, signals.came) == ([signal.SIGUSR1, signal.SIGTERM], [])
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(heard) == 2
    assert heard == [signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM]
    os.kill(os.getpid(), signal.SIGUSR1)
    assert len(heard) == 4


def test_in_another_thread_nothing_is_held(heard: list[int]) -> None:
    def hold() -> None:
        with HeldSignals() as signals:
            held.append(signals)
            entered.set()
            leave.wait()

    held, entered, leave = list[HeldSignals](), threading.Event(), threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    leave.set()
    thread.join()
    assert (heard, held[0].came) == ([signal.SIGTERM], [])
