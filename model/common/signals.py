"""Signals that wait until what they would interrupt is saved."""

import signal
import threading
from typing import Any, Self

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Signals that ask a process to end, SIGUSR1 as clusters send it ahead of a time limit."""


class HeldSignals:
    """In this block signals that end the process wait until `deliver`, or the block's end; then they do what they did.

    A handler that raises in the midst of a training step would leave half of its weights updated. Outside the main
    thread, to which Python gives all signals, nothing is held.
    """

    def __init__(self) -> None:
        self.came: list[int] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):  # None: not of Python, which could not set it again
                    self._before[number] = signal.signal(number, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        came, self.came = dict.fromkeys(self.came), []
        for held in came:
            signal.raise_signal(held)

    def deliver(self) -> None:
        """Have those that came do now what they do outside the block; where they let the process live, hold again."""
        self.__exit__()
        self.__enter__()

    def _hold(self, number: int, _: object) -> None:
        self.came.append(number)
