"""A clock for tests: sleeping costs no time and is written down."""

import threading


class TestClock:
    """Goes on only when somebody sleeps."""

    __test__ = False

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.time += seconds
            self.slept.append(seconds)
