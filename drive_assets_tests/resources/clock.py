"""A clock for tests: sleeping takes no time and is recorded."""

import threading


class TestClock:
    """Advances only by sleeping."""

    __test__ = False

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float, /) -> None:
        with self._lock:
            self.time += seconds
            self.slept.append(seconds)
