"""Routes of openpilot: the log and a camera's video, in segments of a minute.

The formats are those of github.com/commaai/openpilot: log.capnp, car.capnp, and tools/lib/route.py for the names.
"""

import bz2
import contextlib
import re
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.common.files import sha256
from model.common.progress import Log
from model.imports.extras import library
from model.imports.kinds import Drive, Importer
from model.imports.logs.raw import Found
from model.imports.pictures import encoded, half_seconds, open_video, probe, time_in_name
from model.imports.signals import EPOCH, LATEST
from model.imports.writing import Clock, Origin, write_recording

ZONE = "UTC"
CAMERAS = ("fcamera.hevc", "qcamera.ts")
"""The video that is taken: in full resolution if it is there."""
LARGEST_LOG, MOST_FRAMES = 2**30, 100_000
"""Bytes of a segment's log once unpacked, and its frames. A minute has a tenth of the bytes, and 1,200 frames."""
UNKNOWN_AT_START = 0.03
"""Share of frames for which the log may lack the state of the car: the device is up before the car's bus is read."""
_LOG = re.compile(r"(?:(?P<prefix>.+)--)?(?P<kind>[rq]log)(?:\.zst|\.bz2)?")
_SEGMENT = re.compile(r"(?P<route>.+)--(?P<number>\d{1,4})")
_MESSAGES = {
    "controlsState": (7, "ControlsState"),
    "roadEncodeIdx": (15, "EncodeIndex"),
    "carState": (22, "CarState"),
    "clocks": (35, "Clocks"),
    "qRoadEncodeIdx": (90, "EncodeIndex"),
    "selfdriveState": (130, "SelfdriveState"),
}
"""Number in the union of messages, and type, of those that are read."""
_FRAMES = ("roadEncodeIdx", "qRoadEncodeIdx")
_SCHEMA = """\
@0xaaaaaaaaaaaaaaa3;
struct CruiseState {{ enabled @0 :Bool; }}
struct CarState {{
  errors @0 :AnyPointer; vEgo @1 :Float32; wheelSpeeds @2 :AnyPointer; gas @3 :Float32; gasPressed @4 :Bool;
  brake @5 :Float32; brakePressed @6 :Bool; steeringAngleDeg @7 :Float32; steeringTorque @8 :Float32;
  steeringPressed @9 :Bool; cruiseState @10 :CruiseState; buttonEvents @11 :AnyPointer; canMonoTimes @12 :AnyPointer;
  events @13 :AnyPointer; gearShifter @14 :UInt16;
}}
struct SelfdriveState {{ state @0 :UInt16; enabled @1 :Bool; }}
struct ControlsState {{
  f0 @0 :Float32; f1 @1 :Float32; f2 @2 :Float32; f3 @3 :Float32; f4 @4 :Float32; f5 @5 :Float32; f6 @6 :Float32;
  f7 @7 :Float32; f8 @8 :Float32; f9 @9 :Float32; f10 @10 :Float32; f11 @11 :Float32; f12 @12 :Float32;
  f13 @13 :Float32; f14 @14 :Int32; f15 @15 :Float32; f16 @16 :UInt64; f17 @17 :UInt64; f18 @18 :UInt64;
  enabled @19 :Bool;
}}
struct EncodeIndex {{
  frameId @0 :UInt32; type @1 :UInt16; encodeId @2 :UInt32; segmentNum @3 :Int32; segmentId @4 :UInt32;
  segmentIdEncode @5 :UInt32; timestampSof @6 :UInt64; timestampEof @7 :UInt64;
}}
struct Clocks {{ f0 @0 :UInt64; f1 @1 :UInt64; f2 @2 :UInt64; wallTimeNanos @3 :UInt64; }}
struct Event {{ logMonoTime @0 :UInt64; valid @67 :Bool = true; union {{
{members}
}} }}
"""
"""The part of log.capnp and car.capnp that is read, with placeholders for the rest."""
_REVERSE = 4
"""Of the enumeration of gears."""
_CHANNELS = {
    "SPEED": "carState.vEgo",
    "ACCELERATOR_PRESSED": "carState.gasPressed",
    "BRAKE_SIGNAL": "carState.brakePressed",
    "REVERSE": "carState.gearShifter is reverse",
    "ASSISTANCE": "carState.cruiseState.enabled, or selfdriveState.enabled, in old logs controlsState.enabled",
}
"""What each channel is made from."""


@dataclass(frozen=True)
class Segment:
    """A minute's files."""

    route: str
    number: int
    log: Path
    camera: Path | None


@dataclass(frozen=True)
class Minute:
    """What a log says. Times are s of the device's clock, which counts from when it started."""

    car: npt.NDArray[np.float64]
    """(N,6) time, and `_CHANNELS`"""
    frames: npt.NDArray[np.float64]
    """(F,) time of each frame of the video, NaN where the log lacks it"""
    is_cut: bool
    """Whether the log ends within a message."""


class Openpilot(Importer):
    """A log, a segment's folder, or a folder of segments or of files named after their segments."""

    kind = "openpilot"

    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        zone = options.get("zone", ZONE)
        depths = ("", "*/", "*/*/", "*/*/*/")  # as deep as DEVICE/ROUTE/7/rlog.zst
        logs = [path] if path.is_file() else [log for depth in depths for log in path.glob(f"{depth}*log*")]
        routes: dict[str, dict[int, Segment]] = {}
        for log in sorted(logs):  # rlog has every message, qlog a tenth: rlog comes later, and stays
            if _LOG.fullmatch(log.name):
                segment = _segment(log)
                routes.setdefault(segment.route, {})[segment.number] = segment
        drives = []
        for numbered in routes.values():
            segments = [numbered[number] for number in sorted(numbered)]
            start, shift, _ = _beginning(segments, zone)
            name = Clock(start + shift, zone).name(start + shift)
            files = [file for segment in segments for file in (segment.log, segment.camera) if file]
            drives.append(Drive(self.kind, name, path, tuple(files), options))
        return drives

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        zone = drive.options.get("zone", ZONE)
        segments = [_segment(path) for path in drive.files if _LOG.fullmatch(path.name)]
        start, shift, note = _beginning(segments, zone)
        origin = Origin(self.kind, drive=segments[0].route, notes=[note] if note else [])
        minutes: list[Minute] = []
        frames = _frames(segments, shift, minutes, origin, log)
        write_recording(
            folder,
            encoded(half_seconds(frames)),
            lambda: _signals(minutes, shift),
            Clock(start + shift, zone),
            origin,
            log,
            most_without=UNKNOWN_AT_START,
        )


def _segment(log: Path) -> Segment:
    """The segment of a log, by its name or its folder's: ROUTE--7, or 7 in the folder ROUTE."""
    match = _LOG.fullmatch(log.name)
    prefix = match["prefix"] if match else None
    name = prefix or log.parent.name
    if not prefix and name.isdigit():
        name = f"{log.parent.parent.name}--{name}"
    cameras = [log.with_name(f"{prefix}--{camera}" if prefix else camera) for camera in CAMERAS]
    camera = next((each for each in cameras if each.is_file()), None)
    numbered = _SEGMENT.fullmatch(name)
    if numbered is None:
        return Segment(name, 0, log, camera)
    return Segment(numbered["route"], int(numbered["number"]), log, camera)


def _beginning(segments: Sequence[Segment], zone: str) -> tuple[float, float, str]:
    """s of the device's clock at the route's first frame, what to add to it for s since 1970, and a note on that.

    The log's wall time tells; else the route's name, as older ones have a date; else when the log was written.
    """
    first: float | None = None
    for segment in segments:
        try:
            for kind, t, values in _events(segment.log):
                if first is None and kind in _FRAMES:
                    first = values[1]
                if kind == "clocks" and EPOCH < values[0] < LATEST and first is not None:
                    return first, values[0] - t, ""
        except DataError:
            continue  # is reported when the segment is read
    named = time_in_name(segments[0].route.replace("--", "_"), zone)
    if named is not None:
        return first or 0.0, named - (first or 0.0), ""
    written = segments[0].log.stat().st_mtime
    return first or 0.0, written - (first or 0.0), "The date is that of the file: neither the log nor its name has one."


def _frames(
    segments: Sequence[Segment], shift: float, minutes: list[Minute], origin: Origin, log: Log
) -> Iterator[tuple[float, Any]]:
    """The frames of the segments; what their logs say is appended to `minutes`.

    Raises:
        DataError: no segment can be read.
    """
    problems: list[str] = []
    note = origin.notes.append
    for before, segment in zip((None, *segments), segments, strict=False):
        if before is not None and segment.number > before.number + 1:
            note(f"Segments {before.number + 1} to {segment.number - 1} of {segment.route} are missing.")
        try:
            if segment.camera is None:
                raise DataError(f"{segment.log.parent} has no video: expected {' or '.join(CAMERAS)} with the log.")
            minute = read_minute(segment)
            video = probe(segment.camera, ZONE)
            count = 0
            for t, frame in zip(minute.frames + shift, _decoded(segment.camera), strict=False):
                count += 1
                if np.isfinite(t):
                    yield float(t), frame
            if count < len(minute.frames) - 1:
                note(f"{segment.camera} ends early: {count} of {len(minute.frames)} frames.")
            if minute.is_cut:
                note(f"{segment.log} ends early: what comes before is used.")
            minutes.append(minute)
            log(f"Segment {segment.number}: {count} frames")
            origin.videos.append(video.origin(float(np.nanmin(minute.frames)) + shift))
            origin.logs.append(
                {"path": str(segment.log), "bytes": segment.log.stat().st_size, "sha256": sha256(segment.log)}
            )
        except DataError as error:
            problems.append(str(error))
            note(f"Segment {segment.number} of {segment.route} is left out: {error}")
    if not minutes:
        raise DataError(problems[0])


def _decoded(camera: Path) -> Iterator[Any]:
    """The frames up to the first that cannot be decoded: what follows could not be matched to its time."""
    import av

    with open_video(camera) as container, contextlib.suppress(av.error.FFmpegError):
        container.streams.video[0].thread_type = "AUTO"
        yield from container.decode(video=0)


def read_minute(segment: Segment) -> Minute:
    """Read a segment's log.

    Raises:
        DataError: it cannot be read, or has no state of the car or no times of frames.
    """
    video = "roadEncodeIdx" if segment.camera is not None and segment.camera.name.endswith("hevc") else "qRoadEncodeIdx"
    car = array("d")
    engaged: dict[str, bool] = {}
    frames: dict[str, dict[int, float]] = {kind: {} for kind in _FRAMES}
    is_cut = False
    try:
        for kind, t, values in _events(segment.log):
            if kind == "carState":
                *driver, cruises = values
                car.extend((t, *driver, cruises or any(engaged.values())))
            elif kind in _FRAMES and values[0] < MOST_FRAMES:
                frames[kind][values[0]] = values[1]
            elif kind in ("selfdriveState", "controlsState"):
                engaged[kind] = values[0]
    except DataError:
        if not car:
            raise
        is_cut = True
    timed = frames[video] or frames["roadEncodeIdx"]  # logs before 2022 time both videos by one message
    if not car or not timed:
        raise DataError(
            f"{segment.log} has {len(car) // 6} states of the car and the times of {len(timed)} frames: expected both. "
            "Is it the log of a drive?"
        )
    times = np.full(max(timed) + 1, np.nan)
    times[list(timed)] = list(timed.values())
    return Minute(np.array(car).reshape(-1, 6), times, is_cut)


def _events(log: Path) -> Iterator[tuple[str, float, tuple[Any, ...]]]:
    """Kind, s of the device's clock, and content of the messages that are read.

    Raises:
        DataError: what follows cannot be read.
    """
    capnp = library("capnp", "An openpilot log")
    content = _content(log)
    if not content:
        raise DataError(f"{log} is empty: copy it again.")
    try:
        for event in _event_class().read_multiple_bytes(content):
            try:
                kind = str(event.which())
            except capnp.KjException:
                continue  # a kind that only newer versions have
            if kind in _MESSAGES:
                yield kind, event.logMonoTime / 1e9, _values(kind, event)
    except (capnp.KjException, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{log} is no openpilot log, or is damaged ({reason}): copy it again.") from error


def _values(kind: str, event: Any) -> tuple[Any, ...]:
    """Of the car: km/h, accelerator, brake, reverse, cruise control. Of a frame: number and s, when its exposure ended
    or in old logs when it was encoded. Of the clock: s since 1970. Of openpilot: whether it is engaged."""
    content = getattr(event, kind)
    if kind == "carState":
        reverse = content.gearShifter == _REVERSE
        return 3.6 * content.vEgo, content.gasPressed, content.brakePressed, reverse, content.cruiseState.enabled
    if kind in _FRAMES:
        return content.segmentId, (content.timestampEof or event.logMonoTime) / 1e9
    if kind == "clocks":
        return (content.wallTimeNanos / 1e9 if event.valid else 0.0,)
    return (content.enabled,)


def _content(log: Path) -> bytes:
    """The unpacked log; of one that is cut short what can be unpacked."""
    zstandard = library("zstandard", "An openpilot log")
    parts: list[bytes] = []
    try:
        with log.open("rb") as packed:
            file: Any = packed
            if log.suffix == ".zst":
                file = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
            elif log.suffix == ".bz2":
                file = bz2.BZ2File(packed)
            while part := file.read(2**20):
                parts.append(part)
                if len(parts) * 2**20 > LARGEST_LOG:
                    raise DataError(f"{log} unpacks to more than {LARGEST_LOG >> 20} MiB: expected a minute's log.")
    except EOFError:
        pass
    except (OSError, zstandard.ZstdError) as error:
        raise DataError(f"{log} cannot be unpacked ({error}): copy it again.") from error
    return b"".join(parts)


@cache
def _event_class() -> Any:
    capnp = library("capnp", "An openpilot log")
    capnp.remove_import_hook()
    members = {number: f"    u{number} @{number} :Void;" for number in range(1, 131) if number != 67}
    members |= {number: f"    {name} @{number} :{kind};" for name, (number, kind) in _MESSAGES.items()}
    with tempfile.NamedTemporaryFile("w", suffix=".capnp") as file:
        file.write(_SCHEMA.format(members="\n".join(members.values())))
        file.flush()
        return capnp.load(file.name).Event


def _signals(minutes: Sequence[Minute], shift: float) -> dict[str, Found]:
    t, *columns = np.concatenate([minute.car for minute in minutes]).T
    return {
        name: Found.of(t + shift, values, source)
        for (name, source), values in zip(_CHANNELS.items(), columns, strict=True)
    }


IMPORTER = Openpilot()
