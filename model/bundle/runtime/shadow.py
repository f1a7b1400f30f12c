"""The shadow log and clips: written beside a drive by a thread of their own, which alarms never wait for."""

import contextlib
import csv
import io
import json
import queue
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .anticipation import Outcome
from .bundle import Bundle
from .telemetry import REGION, TELEMETRY

SHADOW = "shadow.csv"
WAITING = 64
"""Most pieces of work that wait for the disk."""
LEAST_FREE_BYTES = 200_000_000
"""Clips are not written to a disk with less."""
BEFORE_S, AFTER_S, LONGEST_S = 15.0, 5.0, 60.0
"""Of a clip."""
THERMOMETER = Path("/sys/class/thermal/thermal_zone0/temp")


class Writer:
    """Does work in a thread. What there is no room for is dropped and counted, and what fails is counted."""

    def __init__(self) -> None:
        self.dropped = self.failed = 0
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, work: Callable[[], None]) -> None:
        """Never waits."""
        try:
            self._work.put_nowait(work)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_s: float = 10.0) -> None:
        """Wait for the work at hand, but not for ever."""
        with contextlib.suppress(queue.Full):
            self._work.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        for work in iter(self._work.get, None):
            try:
                work()
            except OSError as error:
                self.failed += 1
                if self.failed == 1:
                    print(f"Shadow log: {error}. Alarms go on; what cannot be written is counted.", file=sys.stderr)


class Lines:
    """A file that lines are appended to. A line that a full disk cut short is ended before the next one."""

    def __init__(self, path: Path, header: str = "") -> None:
        self.path, self.header = path, header

    def append(self, line: str) -> None:
        """Raises OSError if the line is not written whole."""
        with self.path.open("a+b", buffering=0) as stream:
            size = stream.seek(0, 2)
            stream.seek(max(size - 1, 0))
            whole = not size or stream.read(1) == b"\n"
            content = ("" if whole else "\n") + (self.header if not size else "") + line + "\n"
            left = content.encode()
            while left:
                left = left[stream.write(left) or 0 :]


def shadow_columns(bundle: Bundle) -> list[str]:
    """The columns of a shadow log."""
    tasks = [task.name for task in bundle.tasks]
    return [
        *("Time", "BUNDLE", "SCHEMA", "FRAME_AGE_S", "TELEMETRY_AGE_S", "BOXES", "LATENCY_MS"),
        *(f"P_{task}" for task in tasks),
        *(f"ON_{task}" for task in tasks),
        *("ALARM", "SUPPRESSED", "EVENT", "BRAKE_SIGNAL", "ACCELERATOR_POS_D", "ASSISTANCE"),
        *("DROPPED_FRAMES", "DROPPED_ROWS", "TEMPERATURE_C"),
    ]


def shadow_line(bundle: Bundle, outcome: Outcome, dropped_frames: int, dropped_rows: int) -> str:
    """A row of the shadow log without its last cell, the temperature."""
    row, boxes = outcome.row, outcome.boxes
    reasons = [f"{task}: {reason}" for task, reason in outcome.suppressed.items()]
    cells: list[str] = [
        row.time,
        bundle.identity[:12],
        bundle.schema,
        *("" if age is None else f"{age:.3f}" for age in (outcome.frame_age_s, outcome.telemetry_age_s)),
        "" if boxes is None else json.dumps([[round(float(value), 4) for value in box[:6]] for box in boxes]),
        f"{outcome.latency_ms:.1f}",
        *(f"{outcome.probabilities[task.name]:.5f}" if outcome.probabilities else "" for task in bundle.tasks),
        *("" if task.on is None else f"{task.on:.5f}" for task in bundle.tasks),
        " ".join(outcome.begins),
        "; ".join(reasons) or outcome.no_window,
        outcome.event,
        *(row.cells.get(name, "") for name in ("BRAKE_SIGNAL", "ACCELERATOR_POS_D", "ASSISTANCE")),
        str(dropped_frames),
        str(dropped_rows),
    ]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(cells)
    return stream.getvalue()


class ShadowLog:
    """One row a frame in shadow.csv."""

    def __init__(self, bundle: Bundle, folder: Path, writer: Writer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = Lines(folder / SHADOW, ",".join(shadow_columns(bundle)) + "\n")
        self._writer = writer

    def add(self, line: str) -> None:
        self._writer.put(lambda: self._lines.append(f"{line},{_temperature()}"))


class Clips:
    """Recordings of the seconds around alarms and brakings that were not anticipated."""

    def __init__(self, bundle: Bundle, folder: Path, header: str, region: tuple[int, ...], writer: Writer) -> None:
        self.folder, self.header, self.writer = folder, header, writer
        self.shadow_header = ",".join(shadow_columns(bundle))
        self.region = json.dumps(dict(zip(("x", "y", "width", "height"), region, strict=True)))
        self.written = self.skipped = 0
        self._rows: deque[tuple[Outcome, bytes | None, str]] = deque()
        self._end: float | None = None

    def add(self, outcome: Outcome, frame: bytes | None, shadow: str) -> None:
        t = outcome.row.t_ms
        if self._rows and t < self._rows[-1][0].row.t_ms:  # the clock was set back
            self.close()
        self._rows.append((outcome, frame, shadow))
        if self._end is None:
            while t - self._rows[0][0].row.t_ms > BEFORE_S * 1000:
                self._rows.popleft()
        if outcome.raised or outcome.event == "braking not anticipated":
            self._end = min(t + AFTER_S * 1000, self._rows[0][0].row.t_ms + LONGEST_S * 1000)
        if self._end is not None and t >= self._end:
            self.close()

    def close(self) -> None:
        """Write the clip that is open, if there is one, and begin anew."""
        if self._end is not None:
            rows = list(self._rows)
            self.writer.put(lambda: self._write(rows))
        self._rows.clear()
        self._end = None

    def _write(self, rows: list[tuple[Outcome, bytes | None, str]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{rows[0][0].row.time[:10]}_{rows[0][0].row.time[11:19].replace(':', '-')}"
        part = self.folder / f".{name}.part"
        if shutil.disk_usage(self.folder).free < LEAST_FREE_BYTES or (self.folder / name).exists():
            self.skipped += 1
            return
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir()
            lines = [self.header, *(outcome.row.line.rstrip("\r\n") for outcome, _, _ in rows)]
            (part / TELEMETRY).write_text("\n".join(lines) + "\n", encoding="utf-8")
            (part / SHADOW).write_text(
                "\n".join([self.shadow_header, *(f"{shadow}," for _, _, shadow in rows)]) + "\n", encoding="utf-8"
            )
            (part / REGION).write_text(self.region, encoding="utf-8")
            for outcome, frame, _ in rows:
                if frame is not None:
                    (part / f"{outcome.row.time}.jpg").write_bytes(frame)
            part.rename(self.folder / name)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        self.written += 1


def _temperature() -> str:
    """Of the processor, degrees; empty if there is no thermometer."""
    try:
        return f"{int(THERMOMETER.read_text()) / 1000:.1f}"
    except (OSError, ValueError):
        return ""
