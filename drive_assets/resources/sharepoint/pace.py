"""When the next request may start: one pause shared by all workers, on a clock that tests can put forward."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def now(self) -> float:
        """Seconds of a clock that never goes back."""

    def sleep(self, seconds: float) -> None: ...


class _RealClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


REAL_CLOCK: Clock = _RealClock()


class Pace:
    """When the next request may start. A pause or a slow-down that one worker is told of holds for all."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._slow_until = 0.0
        self._interval = 0.0
        self._next_start = 0.0

    def pause(self, seconds: float) -> None:
        """Let nobody start within `seconds`."""
        with self._lock:
            self._paused_until = max(self._paused_until, self.clock.now() + seconds)

    def spread(self, remaining: int, reset_s: float) -> None:
        """Spread the `remaining` requests over the `reset_s` seconds until the service counts anew."""
        if remaining <= 0:
            self.pause(reset_s)
            return
        with self._lock:
            now = self.clock.now()
            self._slow_until, self._interval = now + reset_s, reset_s / remaining
            self._next_start = max(self._next_start, now + self._interval)

    def delay(self) -> float:
        """Seconds until the next request may start; takes its place in the row if it is 0 or less."""
        with self._lock:
            now = self.clock.now()
            start = self._paused_until
            if now < self._slow_until:
                start = max(start, self._next_start)
            if start <= now:
                self._next_start = now + self._interval
            return start - now
