"""Alarms of one task while the car drives: the definition of `model.evaluation.events`, one window at a time."""

from .bundle import Bundle, Task


class Alarms:
    """An episode with hysteresis.

    It goes on while probabilities at or above the off-threshold follow each other within `merge_s`. The alarm begins
    with the first such probability that comes `alarm_min_s` or more after one at or above the on-threshold.
    """

    def __init__(self, task: Task, bundle: Bundle) -> None:
        self.task = task
        self.merge_ms, self.min_ms = bundle.merge_s * 1000, bundle.alarm_min_s * 1000
        self.rings = False
        """Whether an alarm is under way."""
        self._last_ms: float | None = None
        self._on_ms: float | None = None

    def update(self, t_ms: float, probability: float) -> bool:
        """Whether an alarm begins at this window."""
        if self.task.on is None:
            return False
        if self._last_ms is None or not 0 <= t_ms - self._last_ms <= self.merge_ms:
            self.rings, self._on_ms = False, None
        if probability < self.task.off:
            return False
        self._last_ms = t_ms
        if self._on_ms is None and probability >= self.task.on:
            self._on_ms = t_ms
        if self.rings or self._on_ms is None:
            return False
        self.rings = t_ms >= self._on_ms + self.min_ms
        return self.rings
