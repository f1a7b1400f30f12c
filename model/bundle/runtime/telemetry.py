"""Lines of the recorder's CSV, one at a time, as the product reads whole files: values, half seconds, segments."""

import calendar
import csv
import json
import math
import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .errors import BundleError

TELEMETRY, READING, REGION = "telemetry.csv", "reading.json", "roi.json"
STEPS = 9
"""Latest steps whose median decides whether rows are thinned out."""
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T_](\d\d)[:-](\d\d)[:-](\d\d)(?:[.,-](\d{1,6}))?(?:Z|[+-]\d\d:?\d\d)?", re.ASCII
)


@dataclass(frozen=True)
class Row:
    """A row that a frame of a window is made of."""

    time: str
    """As recorded: the name of the frame's file."""
    t_ms: int
    slot_ms: int
    """The time, or of thinned out rows the half second that it stands for."""
    values: npt.NDArray[np.float32]
    """(C,) the network's inputs, in the channels' units"""
    states: Mapping[str, bool | None]
    """What the driver does now, by action, and `assistance`; None if unknown."""
    cells: Mapping[str, str]
    """Texts of all channels that the header names."""
    restart: str
    """Why no window runs over the step before this row; empty if one does."""
    line: str


class Slots:
    """Which rows are kept at 2 Hz, as `model.recording.times.two_hertz` decides for whole files.

    A stream cannot wait for the next row: it takes that to come after the usual step.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.step_ms, self.fastest_ms = bundle.step_ms, bundle.fastest_ms
        self._begin(None)

    def _begin(self, t: int | None) -> int:
        self.anchor = self.last = self.slot = t or 0
        self.begun, self.fast, self.kept = t is not None, False, 1
        self.steps: deque[int] = deque(maxlen=STEPS)
        return self.slot

    def place(self, t: int) -> tuple[int | None, str]:
        """The half second that a row at `t` stands for, None if it is not needed, and why a segment begins."""
        if not self.begun:
            return self._begin(t), "start"
        if t < self.last:
            return self._begin(t), "clock set back"
        self.steps.append(t - self.last)
        step, self.last, before = median(self.steps), t, self.fast
        self.fast = step < self.fastest_ms
        reason = "rate changed" if self.fast != before and self.kept > 1 else ""
        if reason:
            self.anchor = self.slot = t
        elif not self.fast:
            self.slot = t
        else:
            number = math.floor((t - self.anchor) / self.step_ms + 0.5)
            slot = self.anchor + number * self.step_ms
            if slot <= self.slot or t < slot - step / 2:  # the next row will be nearer
                return None, ""
            self.slot = slot
        self.kept += 1
        return self.slot, reason


class Reader:
    """Rows of one file. Those that cannot be used are counted."""

    def __init__(self, bundle: Bundle, header: str, reading: Path | None = None) -> None:
        """Raises BundleError if a channel that the network needs is missing, or reading.json asks for too much."""
        self.bundle, self.rules, self.header = bundle, bundle.telemetry, header.strip().lstrip("\ufeff")
        self.separator = max(",;\t", key=self.header.count)
        names = next(csv.reader([self.header], delimiter=self.separator), [])
        self.columns = [self.rules["columns"].get(name.strip().lower(), "") for name in names]
        missing = [name for name in ("Time", *bundle.inputs) if name not in self.columns]
        if missing:
            raise BundleError(
                f"The telemetry has no column {', '.join(missing)}: expected Time and what the network reads, "
                f"{', '.join(bundle.inputs)}. Record it, or make a bundle of a network without it."
            )
        self.factors, self.pedal_range = _declared(reading)
        self.counts: Counter[str] = Counter()
        self.slots = Slots(bundle)
        self._held: dict[str, tuple[int, float]] = {}
        self._moving = self._fitting = 0

    def __call__(self, line: str) -> Row | None:
        """The row of a line; None if it is not needed or cannot be used."""
        cells = next(csv.reader([line], delimiter=self.separator), [])
        texts = {name: cell.strip() for name, cell in zip(self.columns, cells, strict=False) if name}
        texts = {name: "" if text.lower() in self.rules["missing"] else text for name, text in texts.items()}
        try:
            t, values = self._parsed(texts)
            if self.slots.begun and t == self.slots.last:
                raise _Unusable("repeated")
            slot, restart = self.slots.place(t)
            if slot is None:
                raise _Unusable("left_out")
        except _Unusable as reason:
            self.counts[str(reason)] += 1
            return None
        self.counts["rows"] += 1
        pedal = values.get("ACCELERATOR_POS_D")
        states = {name: None if (value := values.get(channel)) is None else bool(value)
                  for name, channel in (("brake", "BRAKE_SIGNAL"), ("assistance", "ASSISTANCE"))}  # fmt: skip
        states["coast"] = None if pedal is None else pedal < self.bundle.coast_threshold
        inputs = np.array([values[name] for name in self.bundle.inputs], np.float32)
        return Row(texts["Time"], t, slot, inputs, states, texts, restart, line)

    def _parsed(self, texts: Mapping[str, str]) -> tuple[int, dict[str, float]]:
        time = texts.get("Time", "")
        if time in self.rules["faults"] or self.rules["no_data"] in texts.values():
            raise _Unusable("recorder_fault")
        if time == "Time":
            raise _Unusable("header")
        t = milliseconds(time)
        values: dict[str, float] = {}
        for name, rule in self.rules["channels"].items():
            if name not in texts or rule["kind"] == "gear":
                continue
            text, needed = texts[name], rule["required"] or name in self.bundle.inputs
            value = None if not text else self._switch(text) if rule["kind"] == "flag" else self._number(name, text)
            if value is None and rule["kind"] == "number" and not rule["required"]:
                value = self._latest(name, t)
            if value is not None:
                self._check(name, rule, t, value)
                values[name] = value
            elif needed:
                raise _Unusable("incomplete")
        self._held |= {name: (t, value) for name, value in values.items() if texts[name]}
        if "GEAR" in self.bundle.inputs:
            values["GEAR"] = self._gear(texts.get("GEAR", ""), t, values)
        return t, values

    def _number(self, name: str, text: str) -> float:
        try:
            value = float(text.replace(",", ".") if self.separator != "," else text)
        except ValueError:
            raise _Unusable("unreadable") from None
        if not math.isfinite(value):
            raise _Unusable("unreadable")
        value *= self.factors.get(name, 1.0)
        if name == "ACCELERATOR_POS_D" and self.pedal_range:
            rest, full = self.pedal_range
            value = (value - rest) / (full - rest) * 100
        return value

    def _switch(self, text: str) -> float:
        value = self.rules["booleans"].get(re.sub(r"[.,]0+$", "", text.lower()))
        if value is None:
            raise _Unusable("unreadable")
        return float(value)

    def _latest(self, name: str, t: int) -> float | None:
        """The last value, for a while, of a channel that is polled slowly."""
        at, value = self._held.get(name, (0, 0.0))
        return value if name in self._held and abs(t - at) <= self.rules["hold_s"] * 1000 else None

    def _check(self, name: str, rule: Mapping[str, Any], t: int, value: float) -> None:
        """Raises _Unusable for a value that cannot be."""
        if rule["plausible"] and not rule["plausible"][0] <= value <= rule["plausible"][1]:
            raise _Unusable("out_of_range")
        if value == rule["sentinel"] and name in self._held:
            at, before = self._held[name]
            seconds = max(abs(t - at), self.bundle.step_ms) / 1000
            if before != value and abs(value - before) > rule["fastest"] * seconds:
                raise _Unusable("sentinel")

    def _gear(self, text: str, t: int, values: Mapping[str, float]) -> float:
        """As recorded; where it is missing, from speed and engine speed if they fit one car's ratios, else the last."""
        rules, speed, rpm = self.rules["gears"], values.get("SPEED"), values.get("RPM")
        fits = 0
        if speed is not None and rpm is not None:
            ratio = speed / max(rpm / 1000, 1e-9)
            distance = [abs(ratio - each) for each in rules["ratios"]]
            fits = distance.index(min(distance)) + 1 if min(distance) <= 0.001 + 0.025 * ratio else 0
            self._moving += speed > rules["moving_kmh"]
            self._fitting += speed > rules["moving_kmh"] and fits > 0
        text = rules["selector"].get(text.upper(), text)
        if text:
            gear = self._number("GEAR", text)
            if gear != round(gear) or not -1 <= gear <= rules["most"]:
                raise _Unusable("unreadable")
            self._held["GEAR"] = t, min(max(gear, 0.0), rules["highest"])
            return self._held["GEAR"][1]
        if speed is not None and rpm is not None and self._fitting >= rules["fitting_share"] * self._moving:
            pedal = values.get("ACCELERATOR_POS_D", 0.0)
            neutral = speed < rules["neutral_below_kmh"] or (rpm <= rules["idle_rpm"] and pedal <= 0)
            return 0.0 if neutral else float(fits)
        return self._latest("GEAR", t) or 0.0


class _Unusable(Exception):
    """Why a row is left out."""


def milliseconds(time: str) -> int:
    """Milliseconds since 1970 of the recorder's clock."""
    match = _TIME.fullmatch(time)
    if not match:
        raise _Unusable("unreadable" if time else "incomplete")
    try:
        seconds = calendar.timegm(tuple(map(int, match.groups()[:6])))
    except ValueError:
        raise _Unusable("unreadable") from None
    return seconds * 1000 + int((match[7] or "0").ljust(3, "0")[:3])


def region_of(folder: Path) -> tuple[int, int, int, int] | None:
    """The region of interest in a drive's own roi.json, if there is one."""
    path = folder / REGION
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        x, y, width, height = (int(content[name]) for name in ("x", "y", "width", "height"))
    except (ValueError, LookupError, TypeError) as error:
        raise BundleError(
            f'{path}: expected {{"x": .., "y": .., "width": .., "height": ..}} in px ({error}).'
        ) from error
    return x, y, width, height


def _declared(path: Path | None) -> tuple[dict[str, float], list[float]]:
    """Factors by channel and the pedal's range, in a drive's reading.json."""
    if path is None or not path.is_file():
        return {}, []
    try:
        content = json.loads(path.read_bytes())
        factors = {name: float(factor) for name, factor in content.pop("factors", {}).items()}
        pedal = [float(value) for value in content.pop("pedal_range", [])]
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: expected factors and pedal_range ({error}).") from error
    if unknown := sorted(set(content) - {"drivetrain", "hold_s"}):
        raise BundleError(f"{path} sets {', '.join(unknown)}: in the car, expected factors and pedal_range only.")
    return factors, pedal
