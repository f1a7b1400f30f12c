"""A drive, frame by frame: the window, its probabilities, and the alarms that are raised, suppressed or missed."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .alarms import Alarms
from .bundle import Bundle, Network
from .detector import Detector
from .errors import FrameError
from .telemetry import Row

LATE_S = 2.0
"""Rows that arrive later are dropped; alarms of frames or rows later than half of it are suppressed."""
FROZEN_FRAMES = 4
"""As many equal frames in a row mean that the camera hangs."""
LEAD_MARGIN_S = 1.0
"""As in `model.evaluation.events`: an alarm counts for a braking from this long before its horizon."""


@dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    row: Row
    boxes: npt.NDArray[np.float32] | None
    """(n,7); None without a usable frame"""
    probabilities: Mapping[str, float]
    """Empty while there is no whole window."""
    begins: tuple[str, ...]
    """Tasks whose alarm begins, also where it is suppressed."""
    suppressed: Mapping[str, str]
    """Why an alarm is not raised, by task."""
    no_window: str
    """Why there are no probabilities; empty if there are."""
    event: str
    """Where the driver begins to brake: braking anticipated, not anticipated, or unobserved without a window."""
    frame_age_s: float | None
    telemetry_age_s: float | None
    latency_ms: float

    @property
    def raised(self) -> tuple[str, ...]:
        return tuple(task for task in self.begins if task not in self.suppressed)


@dataclass
class Anticipation:
    """The state of a drive."""

    bundle: Bundle
    detector: Detector
    counts: Counter[str] = field(default_factory=Counter)
    """Frames that could not be used, and windows that began anew, by reason."""

    def __post_init__(self) -> None:
        self.network = Network(self.bundle)
        self.alarms = {task.name: Alarms(task, self.bundle) for task in self.bundle.tasks}
        self._window: deque[tuple[Row, npt.NDArray[np.float32]]] = deque(maxlen=self.bundle.length)
        self._slot: int | None = None
        self._frame, self._repeated = b"", 0
        self._braked: bool | None = None
        self._announced: dict[str, int] = {}
        """When the alarm of each such task last rang."""
        self._fresh: set[str] = set()
        """Tasks whose alarm rings and began after the driver last braked."""
        braking = [task for task in self.bundle.tasks if task.action == "brake"]
        self._spans_ms = {task.name: (task.horizon_s + LEAD_MARGIN_S) * 1000 for task in braking}
        self._why = "start"

    def __call__(
        self,
        row: Row,
        frame: bytes | None,
        frame_age_s: float | None = None,
        telemetry_age_s: float | None = None,
    ) -> Outcome:
        """Take a row with the file of its frame, if there is one."""
        started = time.perf_counter()
        boxes = self._detected(frame)
        step = None if self._slot is None else row.slot_ms - self._slot
        if row.restart or (step is not None and step > self.bundle.max_gap_ms):
            self._restart(row.restart or "gap")
        probabilities: dict[str, float] = {}
        if boxes is not None:
            self._window.append((row, boxes))
            self._slot = row.slot_ms
        if boxes is not None and len(self._window) == self.bundle.length:
            values = self.network(
                np.stack([each.values for each, _ in self._window]), [each for _, each in self._window]
            )
            probabilities = dict(zip(self.alarms, map(float, values), strict=True))
        begins = tuple(name for name, value in probabilities.items() if self.alarms[name].update(row.t_ms, value))
        latency_ms = (time.perf_counter() - started) * 1000
        reasons = {name: self._reason(row, name, frame_age_s, telemetry_age_s) for name in begins}
        return Outcome(
            row,
            boxes,
            probabilities,
            begins,
            {name: reason for name, reason in reasons.items() if reason},
            "" if probabilities else f"{len(self._window)} of {self.bundle.length} frames after {self._why}",
            self._event(row, begins, bool(probabilities)),
            frame_age_s,
            telemetry_age_s,
            latency_ms,
        )

    def _restart(self, reason: str) -> None:
        self._window.clear()
        self._slot, self._why = None, reason
        if reason != "start":
            self.counts[f"window restarted: {reason}"] += 1

    def _detected(self, frame: bytes | None) -> npt.NDArray[np.float32] | None:
        if frame is None:
            self.counts["no frame"] += 1
            return None
        self._repeated = self._repeated + 1 if frame == self._frame else 0
        self._frame = frame
        self.counts["repeated frames"] += self._repeated > 0
        try:
            return self.detector(frame)
        except FrameError as reason:
            self.counts[str(reason)] += 1
            return None

    def _reason(self, row: Row, name: str, frame_age_s: float | None, telemetry_age_s: float | None) -> str:
        """Why an alarm that begins here is not raised; empty if it is."""
        action = self.alarms[name].task.action
        if row.states["assistance"]:
            return "assistance"
        if row.states.get(action):
            return f"{action} under way"
        if self._repeated + 1 >= FROZEN_FRAMES:
            return "camera frozen"
        if max(frame_age_s or 0.0, telemetry_age_s or 0.0) > LATE_S / 2:
            return "late"
        return ""

    def _event(self, row: Row, begins: tuple[str, ...], seen: bool) -> str:
        """Whether the driver begins to brake here, and was warned since the last braking."""
        brakes, before = row.states["brake"], self._braked
        self._braked = before if brakes is None else brakes
        if brakes:
            announced = any(0 <= row.t_ms - t <= self._spans_ms[name] for name, t in self._announced.items())
            self._announced.clear()
            self._fresh.clear()
            if before is not False:
                return ""
            return f"braking {'anticipated' if announced else 'not anticipated' if seen else 'unobserved'}"
        self._fresh.update(name for name in begins if name in self._spans_ms)
        if seen:
            self._fresh = {name for name in self._fresh if self.alarms[name].rings}
            self._announced |= dict.fromkeys(self._fresh, row.t_ms)
        return ""
