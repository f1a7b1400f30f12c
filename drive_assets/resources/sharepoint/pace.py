"""When the next request may start: one pause shared by all workers."""

import threading
from typing import Protocol


class Clock(Protocol):
    """The part of the module `time` that the client uses; tests pass a clock that needs no waiting."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class Pace:
    """A pause that one worker is asked for applies to all. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._paused_until = 0.0

    def pause(self, seconds: float) -> None:
        """Start no request within `seconds`."""
        with self._lock:
            self._paused_until = max(self._paused_until, self.clock.monotonic() + seconds)

    def delay(self) -> float:
        """Seconds until the next request may start; 0 or less if it may start now."""
        return self._paused_until - self.clock.monotonic()
