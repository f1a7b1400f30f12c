"""Clips of a Tesla's front camera, with the signals that the car stores in the video's stream.

The signals are SEI messages of the H.264 stream, which github.com/teslamotors/dashcam describes.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model.common.errors import DataError
from model.common.progress import Log
from model.imports.kinds import Drive, Importer
from model.imports.logs.raw import Found
from model.imports.pictures import decoded, encoded, half_seconds, open_video, probe, time_in_name
from model.imports.writing import Clock, Origin, write_recording

CLIP_S, LONGEST_GAP_S = 60.0, 120.0
"""A drive's clips last a minute and follow each other; one or two may be missing."""
NAME_ERROR_S = 1.0
"""Clips are named by whole seconds: a clip that starts this close to the end of the one before follows it at once."""
ZONE = "UTC"
_CLIP = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}-front\.mp4")
_FIELDS = (
    ("version", 1, "uint32"),
    ("gear_state", 2, "int32"),
    ("frame_seq_no", 3, "uint64"),
    ("vehicle_speed_mps", 4, "float"),
    ("accelerator_pedal_position", 5, "float"),
    ("steering_wheel_angle", 6, "float"),
    ("blinker_on_left", 7, "bool"),
    ("blinker_on_right", 8, "bool"),
    ("brake_applied", 9, "bool"),
    ("autopilot_state", 10, "int32"),
)
"""Name, number and type of the message's fields. Enumerations are read as numbers."""
_REVERSE = 2
_LARGEST_RATIO = 1.2
"""Tesla's own viewer takes pedal positions up to this for a ratio, larger ones for percent."""
_CHANNELS = {
    "SPEED": "vehicle_speed_mps",
    "ACCELERATOR_POS_D": "accelerator_pedal_position",
    "BRAKE_SIGNAL": "brake_applied",
    "ASSISTANCE": "autopilot_state is not none",
    "REVERSE": "gear_state is reverse",
}
"""What each channel is made from."""


class Tesla(Importer):
    """A clip `...-front.mp4`, or a folder such as TeslaCam with clips in it or in its folders."""

    kind = "tesla"

    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        zone = options.get("zone", ZONE)
        drives: list[list[tuple[float, Path]]] = []
        for start, clip in sorted((_start(clip, zone), clip) for clip in _clips(path)):
            if drives and start - drives[-1][-1][0] < CLIP_S + LONGEST_GAP_S:
                drives[-1].append((start, clip))
            else:
                drives.append([(start, clip)])
        return [
            Drive(
                self.kind,
                Clock(clips[0][0], zone).name(clips[0][0]),
                path,
                tuple(clip for _, clip in clips),
                options,
            )
            for clips in drives
        ]

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        zone = drive.options.get("zone", ZONE)
        start = _start(drive.files[0], zone)
        origin = Origin(self.kind, "electric", self._whole(drive))
        if not _CLIP.fullmatch(drive.files[0].name):
            origin.notes.append(f"The date is that of the file: {drive.files[0].name} has none in its name.")
        rows = array("d")
        frames = _frames(drive.files, zone, rows, origin, log)
        write_recording(
            folder, encoded(half_seconds(frames)), lambda: _signals(rows, drive), Clock(start, zone), origin, log
        )

    def _whole(self, drive: Drive) -> str:
        """Name of the drive that the clip is of, by the clips that lie beside it: it may be imported alone."""
        clip = drive.files[0].name
        place = drive.place if drive.place.is_dir() else drive.place.parent
        beside = self.find(place, drive.options) if _CLIP.fullmatch(clip) else []
        return next((each.name for each in beside if clip in {file.name for file in each.files}), drive.name)


def _clips(path: Path) -> list[Path]:
    """Front clips, each name once: saved clips are copies of recent ones. Of two, the longer file."""
    if path.is_file():
        return [path] if _CLIP.fullmatch(path.name) or (path.suffix.lower() == ".mp4" and _has_signals(path)) else []
    videos = [clip for depth in ("", "*/", "*/*/") for clip in path.glob(f"{depth}*.mp4")]
    clips = {
        clip.name: clip for clip in sorted(videos, key=lambda clip: clip.stat().st_size) if _CLIP.fullmatch(clip.name)
    }
    return list(clips.values()) or [clip for clip in sorted(path.glob("*.mp4")) if _is_renamed(clip)]


def _is_renamed(clip: Path) -> bool:
    try:
        return _has_signals(clip)
    except DataError:
        return False


def _has_signals(path: Path) -> bool:
    with open_video(path) as container:
        first = zip(range(60), decoded(container, 0.0), strict=False)
        return any(_message(frame) is not None for _, (_, frame) in first)


def _start(clip: Path, zone: str) -> float:
    """s since 1970, from the clip's name, else from when the file was written."""
    named = time_in_name(clip.name, zone)
    return clip.stat().st_mtime if named is None else named


def _frames(
    clips: Sequence[Path], zone: str, rows: "array[float]", origin: Origin, log: Log
) -> Iterator[tuple[float, Any]]:
    """The frames of the clips. Time and `_CHANNELS` of those that carry a message are appended to `rows`.

    Raises:
        DataError: no clip can be read.
    """
    problems: list[str] = []
    end = -np.inf
    for clip in clips:
        named = _start(clip, zone)
        start = end if abs(named - end) <= NAME_ERROR_S else named
        missing_s, count = start - end, 0
        try:
            _check(clip)
            video = probe(clip, zone)
            with open_video(clip) as container:
                for t, frame in decoded(container, start, notes=origin.notes):
                    count += 1
                    end = t + 1 / (video.rate_hz or 30)
                    if (m := _message(frame)) is not None:
                        assisted, reverse = m.autopilot_state != 0, m.gear_state == _REVERSE
                        speed = 3.6 * m.vehicle_speed_mps
                        rows.extend((t, speed, m.accelerator_pedal_position, m.brake_applied, assisted, reverse))
                    yield t, frame
            if not count:
                raise DataError(_encrypted(clip))
            if 0 < missing_s < np.inf:
                origin.notes.append(f"{missing_s:.0f} s are missing before {clip.name}.")
            origin.videos.append(video.origin(start))
            log(f"{clip.name}: {count} frames")
        except DataError as error:
            problems.append(str(error))
            origin.notes.append(f"{clip.name} is left out: {error}")
    if not np.isfinite(end):
        raise DataError(problems[0])


def _check(clip: Path) -> None:
    """Raises DataError if the clip is empty or no MP4."""
    with clip.open("rb") as file:
        head = file.read(8)
    if not head:
        raise DataError(f"{clip} is empty: copy it again.")
    if head[4:] != b"ftyp":
        raise DataError(_encrypted(clip))


def _encrypted(clip: Path) -> str:
    return (
        f"{clip} is encrypted or damaged: expected an MP4 with frames. Save a decrypted copy with Tesla's own viewer "
        "or app, then import that."
    )


@cache
def _message_class() -> Any:
    """The protobuf's class, built from its fields."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="dashcam.proto", package="dashcam", syntax="proto3")
    message = file.message_type.add(name="SeiMetadata")
    for name, number, kind in _FIELDS:
        message.field.add(name=name, number=number, type=f"TYPE_{kind.upper()}", label="LABEL_OPTIONAL")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dashcam.SeiMetadata"))


def _message(frame: Any) -> Any | None:
    """The message in a frame's user data: bytes B up to one i, then the protobuf."""
    from google.protobuf.message import DecodeError

    for data in frame.side_data:
        if str(data.type).endswith("SEI_UNREGISTERED"):
            content = bytes(data)
            protobuf = content.lstrip(b"B")
            if len(protobuf) < len(content) and protobuf[:1] == b"i":
                try:
                    return _message_class().FromString(protobuf[1:])
                except DecodeError:
                    continue
    return None


def _signals(rows: "array[float]", drive: Drive) -> dict[str, Found]:
    if not rows:
        raise DataError(
            f"{drive.files[0]} has no signals in its stream: cars store them since firmware 2025.44.25, while they are "
            "driven. Use `import video` with a log of your own."
        )
    t, *columns = np.array(rows).reshape(-1, 1 + len(_CHANNELS)).T
    if columns[1].max() <= _LARGEST_RATIO:
        columns[1] = columns[1] * 100
    return {
        name: Found.of(t, values, source) for (name, source), values in zip(_CHANNELS.items(), columns, strict=True)
    }


IMPORTER = Tesla()
