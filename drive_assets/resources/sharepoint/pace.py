"""When the next request may start: one pause shared by all workers."""

import threading
from typing import Protocol


class Clock(Protocol):
    """The part of the module `time` that the client uses; tests pass a clock that needs no waiting."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class Pace:
    """A pause or slow-down that one worker is asked for applies to all. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._slow_until = 0.0
        self._interval = 0.0
        self._next_start = 0.0

    def pause(self, seconds: float) -> None:
        """Start no request within `seconds`."""
        with self._lock:
            self._paused_until = max(self._paused_until, self.clock.monotonic() + seconds)

    def spread(self, remaining: int, reset_s: float) -> None:
        """Spread the `remaining` requests over the `reset_s` seconds until the service resets its count."""
        if remaining <= 0:
            self.pause(reset_s)
            return
        with self._lock:
            now = self.clock.monotonic()
            self._slow_until, self._interval = now + reset_s, reset_s / remaining
            self._next_start = max(self._next_start, now + self._interval)

    def delay(self) -> float:
        """Seconds until the next request may start. At 0 or less the caller's request takes that start."""
        with self._lock:
            now = self.clock.monotonic()
            start = self._paused_until
            if now < self._slow_until:
                start = max(start, self._next_start)
            if start <= now:
                self._next_start = now + self._interval
            return start - now
