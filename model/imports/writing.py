"""Writes a recording in our layout from frames and signals, with its origin."""

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.common.files import write_json
from model.common.progress import Log
from model.imports.logs.raw import Found
from model.imports.mapping import SWITCHES
from model.imports.pictures import STEP_S, Frame
from model.imports.signals import NEAR_S, numbers_at, switches_at
from model.recording.folder import ROI, TELEMETRY
from model.recording.frame_files import frame_name

ORIGIN = "origin.json"
"""What an imported recording was made from."""
MOST_WITHOUT = 0.05
"""Share of rows without a value at which a channel that is not required is left out, as rows need all their cells."""
_DIGITS = {"SPEED": 2, "RPM": 0, "ACCELERATOR_POS_D": 2, "ENGINE_LOAD": 2, "GEAR": 0}


@dataclass
class Origin:
    """What is kept of an import, so that figures can be judged and frames be had again."""

    kind: str
    drivetrain: str = "unknown"
    offset_s: float = 0.0
    """Added to the logs' times."""
    offset_doubt_s: float | None = None
    """None: the clocks are trusted, nothing was measured."""
    videos: list[dict[str, Any]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    mapping: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    attribution: str = ""
    notes: list[str] = field(default_factory=list)


class Clock:
    """Spells s since 1970 as a recording's times: in the zone of its start, without steps of daylight saving."""

    def __init__(self, start: float, zone: str) -> None:
        offset = datetime.fromtimestamp(start, ZoneInfo(zone)).utcoffset() or timedelta(0)
        self.zone = timezone(offset)

    def text(self, t: float) -> str:
        moment = datetime.fromtimestamp(round(t, 3), self.zone)
        return f"{moment:%Y-%m-%d %H-%M-%S}-{moment.microsecond // 1000:03}"

    def name(self, t: float) -> str:
        return f"{datetime.fromtimestamp(t, self.zone):%Y-%m-%d_%H-%M-%S}"


def write_recording(
    folder: Path,
    frames: Iterable[Frame],
    signals: Callable[[], Mapping[str, Found]],
    clock: Clock,
    origin: Origin,
    log: Log,
    *,
    region: list[int] | None = None,
    holds_s: Mapping[str, float] | None = None,
) -> None:
    """Write frames, telemetry, region of interest and origin into `folder`.

    Args:
        signals: called once the frames are written.
        holds_s: by channel, the seconds around a sample for which it counts.

    Raises:
        DataError: no frame, or no row has a speed: the log does not overlap the video.
    """
    times = []
    for t, content in frames:
        (folder / frame_name(clock.text(t))).write_bytes(content)
        times.append(t)
        if len(times) % 600 == 0:
            log(f"{len(times) * STEP_S / 60:.0f} min of video read")
    if not times:
        raise DataError(f"{folder.name} has no frame: {origin.kind} gave none.")
    found = signals()
    columns = sampled(np.array(times), found, holds_s or {}, origin)
    with (folder / TELEMETRY).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Time", *columns])
        texts = [[_cell(name, value) for value in values] for name, values in columns.items()]
        writer.writerows([clock.text(t), *cells] for t, *cells in zip(times, *texts, strict=True))
    if region:
        write_json(folder / ROI, dict(zip(("x", "y", "width", "height"), region, strict=True)))
    channels = {
        name: {"source": each.source, "samples": each.samples, "missing": each.missing, "dropped": each.out_of_range}
        for name, each in found.items()
    }
    write_json(folder / ORIGIN, {**vars(origin), "channels": channels, "imported": datetime.now(UTC).isoformat()})


def sampled(
    times: npt.NDArray[np.float64], found: Mapping[str, Found], holds_s: Mapping[str, float], origin: Origin
) -> dict[str, npt.NDArray[np.float64]]:
    """(F,) of each channel at the frames' times; NaN where it is not known.

    Raises:
        DataError: none has a speed.
    """
    columns = {}
    for name, each in found.items():
        near_s = holds_s.get(name, NEAR_S)
        if name in SWITCHES:
            columns[name] = switches_at(each.signal, times, 2 * STEP_S, near_s)
        else:
            columns[name] = numbers_at(each.signal, times, near_s)
    speed = columns.get("SPEED")
    if speed is None:
        raise DataError(f"There is no speed among {', '.join(columns) or 'no channels'}: map SPEED.")
    known = np.isfinite(speed)
    if not known.any():
        t = found["SPEED"].signal.t
        raise DataError(
            f"Log and video do not overlap: the speed is known from {_moment(t[0])} to {_moment(t[-1])}, the video "
            f"lasts from {_moment(times[0])} to {_moment(times[-1])}. Set the logs' zone or clock, video_start or "
            "offset_s."
        )
    for name in [name for name in columns if name not in ("SPEED", *SWITCHES)]:
        without = float(np.isnan(columns[name][known]).mean())
        if without > MOST_WITHOUT:
            origin.notes.append(f"{name} is left out: {without:.0%} of the rows have none near enough; see `holds_s`.")
            del columns[name]
    return columns


def _moment(t: float) -> str:
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _cell(name: str, value: float) -> str:
    if np.isnan(value):
        return ""
    if name in SWITCHES:
        return str(bool(value))
    return f"{value:.{_DIGITS[name]}f}"
