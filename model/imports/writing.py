"""Writes a recording in our layout from frames and signals, with its origin."""

import contextlib
import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from model.common.errors import DataError
from model.common.files import write_json
from model.common.progress import Log
from model.imports.logs.raw import Found
from model.imports.mapping import SWITCHES
from model.imports.pictures import STEP_S, Frame
from model.imports.signals import NEAR_S, numbers_at, switches_at
from model.recording.folder import IMPORTED, ROI, TELEMETRY
from model.recording.frame_files import frame_name

MOST_WITHOUT = 0.05
"""Share of rows without a value at which a number is left out, as rows need all their cells."""
LEAST_KNOWN = 0.5
"""Share of rows in which a switch is known, below which a drive is refused."""
SLOWEST_S = 1.2
"""Median seconds between two values of a channel at most; OBD loggers write once a second."""
_PACKAGES = ("drive-assets", "av", "python-can", "cantools", "asammdf", "mcap", "rosbags", "pycapnp", "pyarrow")
_DIGITS = {"SPEED": 2, "RPM": 0, "ACCELERATOR_POS_D": 2, "ENGINE_LOAD": 2, "GEAR": 0}


@dataclass
class Origin:
    """What is kept of an import, so that figures can be judged and frames be had again."""

    kind: str
    drivetrain: str = "unknown"
    drive: str = ""
    """The source's name of the drive, where several recordings can be of one: all go into one split."""
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

    def count(self, rows: npt.NDArray[np.bool_], what: str) -> None:
        """Note how many of the frames are left out, and why."""
        if rows.any():
            self.notes.append(f"{rows.sum()} of {len(rows)} frames {what}, and are left out.")


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
    most_without: float = 0.0,
) -> None:
    """Write frames, telemetry, region of interest and origin into `folder`.

    Args:
        signals: called once the frames are written.
        region: x, y, width, height in px; the whole frame without it.
        holds_s: by channel, the seconds around a sample for which it counts.
        most_without: share of frames without a speed or a switch up to which they stay, as rows with empty cells.

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
    moments = np.array(times)
    kept, columns = sampled(moments, found, holds_s or {}, origin, most_without)
    for lost in moments[~kept]:
        (folder / frame_name(clock.text(lost))).unlink()
    with (folder / TELEMETRY).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Time", *columns])
        texts = [[_cell(name, value) for value in values] for name, values in columns.items()]
        writer.writerows([clock.text(each), *cells] for each, *cells in zip(moments[kept], *texts, strict=True))
    with Image.open(folder / frame_name(clock.text(moments[kept][0]))) as first:
        whole = (0, 0, *ImageOps.exif_transpose(first).size)
    if region and (min(region[:2]) < 0 or region[0] + region[2] > whole[2] or region[1] + region[3] > whole[3]):
        raise DataError(f"region {region} leaves the frame of {whole[2]} x {whole[3]} px: correct it in the mapping.")
    write_json(folder / ROI, dict(zip(("x", "y", "width", "height"), region or whole, strict=True)))
    for name, each in found.items():
        counts = {
            "cannot be and are dropped": each.out_of_range,
            "have the time of a later one and are dropped": each.same_time,
            "lie in time before the one above and are sorted": each.steps_back,
        }
        if parts := [f"{count} {what}" for what, count in counts.items() if count]:
            origin.notes.append(f"{name}: of {each.samples} values, {', '.join(parts)}.")
    channels = {
        name: {
            "source": each.source,
            "samples": each.samples,
            "missing": each.missing,
            "dropped": each.out_of_range,
            "same_time": each.same_time,
        }
        for name, each in found.items()
    }
    for note in origin.notes:
        log(note)
    made_from = {
        **vars(origin),
        "channels": channels,
        "versions": _versions(),
        "imported": datetime.now(UTC).isoformat(),
    }
    write_json(folder / IMPORTED, made_from)


def sampled(
    times: npt.NDArray[np.float64],
    found: Mapping[str, Found],
    holds_s: Mapping[str, float],
    origin: Origin,
    most_without: float = 0.0,
) -> tuple[npt.NDArray[np.bool_], dict[str, npt.NDArray[np.float64]]]:
    """(F,) which of the frames' times (F,) have a row, and (R,) of each channel in these rows; NaN where unknown.

    A row needs the speed and all switches.

    Raises:
        DataError: there is no speed, it is known too rarely, or never while the video lasts.
    """
    if "SPEED" not in found:
        raise DataError(f"There is no speed among {', '.join(found) or 'no channels'}: map SPEED.")
    found = {name: each for name, each in found.items() if _is_fast(name, each, holds_s.get(name, NEAR_S), origin)}
    speed = found["SPEED"].signal
    kept = np.isfinite(numbers_at(speed, times, holds_s.get("SPEED", NEAR_S)))
    if not kept.any():
        raise DataError(
            f"Log and video do not overlap: the speed is known from {_moment(speed.t[0])} to {_moment(speed.t[-1])}, "
            f"the video lasts from {_moment(times[0])} to {_moment(times[-1])}. Set the logs' zone or clock, "
            "video_start or offset_s."
        )
    if np.mean(~kept) > most_without:
        origin.count(~kept, "have no speed near enough in time")
    else:
        kept = np.ones(len(times), bool)
    for name, each in found.items():
        if name in SWITCHES:
            known = np.isfinite(switches_at(each.signal, times, 2 * STEP_S, holds_s.get(name, NEAR_S)))
            known |= np.mean(~known) <= most_without
            if (kept & known).sum() < LEAST_KNOWN * kept.sum():
                raise DataError(
                    f"{name} ({each.source}) is known in {(kept & known).sum()} of {kept.sum()} rows: set its holds_s "
                    "if it is logged on change, or remove it from the mapping."
                )
            origin.count(kept & ~known, f"have no {name} near enough in time")
            kept &= known
    columns = {}
    for name, each in found.items():
        near_s = holds_s.get(name, NEAR_S)
        if name in SWITCHES:
            columns[name] = switches_at(each.signal, times[kept], 2 * STEP_S, near_s)
            continue
        values = numbers_at(each.signal, times[kept], near_s)
        without = float(np.isnan(values).mean())
        if without > MOST_WITHOUT:
            origin.notes.append(f"{name} is left out: {without:.0%} of the rows have none near enough; see `holds_s`.")
        else:
            columns[name] = values
    return kept, columns


def _is_fast(name: str, each: Found, near_s: float, origin: Origin) -> bool:
    """Whether a channel's values follow each other fast enough; notes it if not.

    Raises:
        DataError: the speed's do not.
    """
    step = float(np.median(np.diff(each.signal.t))) if len(each.signal.t) > 1 else np.inf
    if step <= max(SLOWEST_S, 2 * near_s):
        return True
    text = f"{name} ({each.source}) has a value every {step:.1f} s ({1 / step:.2f} Hz)"
    if name == "SPEED":
        raise DataError(
            f"{text}: expected one a second or more. Log fewer signals at once or use a faster adapter; if it is "
            "logged on change, set its holds_s."
        )
    origin.notes.append(f"{text} and is left out: expected one a second or more.")
    return False


def _versions() -> dict[str, str]:
    """Of the libraries that read the originals, as far as they are installed."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _moment(t: float) -> str:
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _cell(name: str, value: float) -> str:
    if np.isnan(value):
        return ""
    if name in SWITCHES:
        return str(bool(value))
    return f"{value:.{_DIGITS[name]}f}"
