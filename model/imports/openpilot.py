"""Routes of openpilot: rlog or qlog with a camera's video, in segments of a minute."""

import bz2
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model.common.errors import DataError
from model.common.files import sha256
from model.common.progress import Log
from model.imports.extras import library
from model.imports.kinds import Drive, Importer
from model.imports.logs.raw import Found
from model.imports.pictures import decoded, encoded, half_seconds, open_video, probe
from model.imports.signals import in_order
from model.imports.writing import Clock, Origin, write_recording

LOGS = ("rlog.zst", "rlog.bz2", "rlog", "qlog.zst", "qlog.bz2", "qlog")
"""Of a segment, the first that is there is read: rlog has every message, qlog a tenth."""
CAMERAS = {"fcamera.hevc": "roadEncodeIdx", "qcamera.ts": "qRoadEncodeIdx"}
"""Videos, and the messages that time their frames."""
_SEGMENT = re.compile(r"(?:^|.*--)(\d{1,4})")
_STRUCTS = {"carState": 22, "selfdriveState": 130, "roadEncodeIdx": 14, "qRoadEncodeIdx": 90, "clocks": 35}
_SCHEMA = """\
@0xaaaaaaaaaaaaaaa3;
enum GearShifter {{
  unknown @0; park @1; drive @2; neutral @3; reverse @4; sport @5; low @6; brake @7; eco @8; manumatic @9;
}}
struct CruiseState {{ enabled @0 :Bool; speed @1 :Float32; available @2 :Bool; }}
struct CarState {{
  errors @0 :AnyPointer; vEgo @1 :Float32; wheelSpeeds @2 :AnyPointer; gas @3 :Float32; gasPressed @4 :Bool;
  brake @5 :Float32; brakePressed @6 :Bool; steeringAngleDeg @7 :Float32; steeringTorque @8 :Float32;
  steeringPressed @9 :Bool; cruiseState @10 :CruiseState; buttonEvents @11 :AnyPointer; canMonoTimes @12 :AnyPointer;
  events @13 :AnyPointer; gearShifter @14 :GearShifter;
}}
struct SelfdriveState {{ state @0 :UInt16; enabled @1 :Bool; active @2 :Bool; }}
struct EncodeIndex {{
  frameId @0 :UInt32; type @1 :UInt16; encodeId @2 :UInt32; segmentNum @3 :Int32; segmentId @4 :UInt32;
  segmentIdEncode @5 :UInt32; timestampSof @6 :UInt64; timestampEof @7 :UInt64;
}}
struct Clocks {{
  bootTimeNanos @0 :UInt64; monotonicNanos @1 :UInt64; monotonicRawNanos @2 :UInt64; wallTimeNanos @3 :UInt64;
}}
struct Event {{ logMonoTime @0 :UInt64; valid @67 :Bool = true; union {{
{members}
}} }}
"""
"""The part of openpilot's log.capnp and car.capnp that is read. Members of the union that are not are placeholders."""
_MEMBERS = 150


@dataclass
class Segment:
    """What the log of a minute says. Times are s of the car's clock since it started."""

    folder: Path
    log: Path
    camera: Path
    car: list[tuple[float, float, bool, bool, bool, bool]] = field(default_factory=list)
    """s, km/h, accelerator pressed, brake pressed, cruise control on, reverse"""
    engaged: list[tuple[float, bool]] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)
    """s of each frame of the video"""
    wall: float | None = None
    """s since 1970 less the car's clock"""


class Openpilot(Importer):
    """A segment's folder, or a folder of segments."""

    kind = "openpilot"

    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        folders = [path] if _is_segment(path) else sorted(filter(_is_segment, path.iterdir()), key=_order)
        if not folders:
            return []
        routes: dict[str, list[Path]] = {}
        for folder in folders:
            routes.setdefault(_order(folder)[0], []).append(folder)
        zone = options.get("zone", "UTC")
        drives = []
        for segments in routes.values():
            start = _start(segments[0], zone)
            drives.append(Drive(self.kind, Clock(start, zone).name(start), path, tuple(segments), options))
        return drives

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        zone = drive.options.get("zone", "UTC")
        segments = [read_segment(each) for each in drive.files]
        start = _start(drive.files[0], zone)
        shift = start - segments[0].frames[0]
        origin = Origin(self.kind)
        origin.videos = [probe(segment.camera, zone).origin(segment.frames[0] + shift) for segment in segments]
        origin.logs = [{"path": str(s.log), "bytes": s.log.stat().st_size, "sha256": sha256(s.log)} for s in segments]

        def frames() -> Iterator[tuple[float, Any]]:
            for segment in segments:
                with open_video(segment.camera) as container:
                    yield from decoded(container, 0.0, np.array(segment.frames) + shift)

        found = _signals(segments, shift)
        write_recording(folder, encoded(half_seconds(frames())), lambda: found, Clock(start, zone), origin, log)


def _is_segment(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in LOGS)


def _order(folder: Path) -> tuple[str, int]:
    """A segment's route and number: `a2a0ccea32023010|2023-07-27--13-01-19--7` is the seventh of its route."""
    match = re.fullmatch(r"(.*)--(\d{1,4})", folder.name)
    return (match[1], int(match[2])) if match else (folder.name, 0)


def _start(folder: Path, zone: str) -> float:
    """s since 1970 of the route's first frame: by the device's clock, else by the folder's name."""
    segment = read_segment(folder)
    if segment.wall is not None:
        return segment.frames[0] + segment.wall
    from model.imports.pictures import time_in_name

    named = time_in_name(folder.name.replace("--", "_"), zone)
    if named is None:
        raise DataError(
            f"{folder}: neither its log nor its name tells when it begins: name it YYYY-MM-DD--HH-MM-SS--N."
        )
    return named


@cache
def _event() -> Any:
    """The class that reads messages."""
    import tempfile

    capnp = library("capnp", "An openpilot log")
    capnp.remove_import_hook()
    names = {number: name for name, number in _STRUCTS.items()}
    kinds = {"roadEncodeIdx": "EncodeIndex", "qRoadEncodeIdx": "EncodeIndex"}
    members = [
        f"    {names[i]} @{i} :{kinds.get(names[i], names[i][0].upper() + names[i][1:])};"
        if i in names
        else f"    u{i} @{i} :Void;"
        for i in range(1, _MEMBERS)
        if i != 67
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".capnp") as file:
        file.write(_SCHEMA.format(members="\n".join(members)))
        file.flush()
        return capnp.load(file.name).Event


def _content(path: Path) -> bytes:
    try:
        if path.suffix == ".zst":
            zstandard = library("zstandard", "A compressed openpilot log")
            with path.open("rb") as file:
                return bytes(zstandard.ZstdDecompressor().stream_reader(file).read())
        return bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be unpacked ({error}): copy it again.") from error


@cache
def read_segment(folder: Path) -> Segment:
    """Read a minute.

    Raises:
        DataError: no video or no log, or one that cannot be read.
    """
    log = next(folder / name for name in LOGS if (folder / name).is_file())
    cameras = {folder / name: index for name, index in CAMERAS.items() if (folder / name).is_file()}
    if not cameras:
        raise DataError(f"{folder} has no video: expected {' or '.join(CAMERAS)} beside {log.name}.")
    camera, index = next(iter(cameras.items()))
    segment = Segment(folder, log, camera)
    try:
        for event in _event().read_multiple_bytes(_content(log)):
            _read_event(segment, event, index)
    except DataError:
        raise
    except Exception as error:
        if not segment.car:
            raise DataError(f"{log} is no openpilot log ({' '.join(str(error).split())[:120]}).") from error
    if not segment.car or not segment.frames:
        raise DataError(f"{log} has {len(segment.car)} states of the car and times of {len(segment.frames)} frames.")
    return segment


def _read_event(segment: Segment, event: Any, index: str) -> None:
    kind = str(event.which())
    t = event.logMonoTime / 1e9
    if kind == "carState":
        state = event.carState
        reverse = str(state.gearShifter) == "reverse"
        speed = 3.6 * abs(state.vEgo)
        segment.car.append((t, speed, state.gasPressed, state.brakePressed, state.cruiseState.enabled, reverse))
    elif kind == "selfdriveState":
        segment.engaged.append((t, event.selfdriveState.enabled))
    elif kind == index:
        segment.frames.append(getattr(event, kind).timestampEof / 1e9)
    elif kind == "clocks" and event.clocks.wallTimeNanos:
        segment.wall = event.clocks.wallTimeNanos / 1e9 - t


def _signals(segments: Sequence[Segment], shift: float) -> dict[str, Found]:
    car = np.array([row for segment in segments for row in segment.car], float)
    engaged = np.array([row for segment in segments for row in segment.engaged], float).reshape(-1, 2)
    columns = {"SPEED": 1, "ACCELERATOR_PRESSED": 2, "BRAKE_SIGNAL": 3, "REVERSE": 5}
    found = {
        name: Found(in_order(car[:, 0] + shift, car[:, column]), f"carState {name}", len(car), 0, 0)
        for name, column in columns.items()
    }
    t = np.concatenate([car[:, 0], engaged[:, 0]]) + shift
    on = np.concatenate([car[:, 4], engaged[:, 1]])
    found["ASSISTANCE"] = Found(in_order(t, on), "cruiseState.enabled, selfdriveState.enabled", len(t), 0, 0)
    return found


IMPORTER = Openpilot()
