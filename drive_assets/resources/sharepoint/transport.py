"""HTTP to Graph: one retry loop, one pause shared by all workers."""

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
