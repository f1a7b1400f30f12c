"""Clips of a Tesla's front camera, with the signals that the car stores in the video's stream (SEI messages)."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model.common.errors import DataError
from model.common.progress import Log
from model.imports.kinds import Drive, Importer
from model.imports.logs.raw import Found
from model.imports.pictures import Video, decoded, encoded, half_seconds, open_video, probe
from model.imports.signals import in_order
from model.imports.writing import Clock, Origin, write_recording

LONGEST_GAP_S = 120.0
"""A drive's clips are minutes that follow each other; one or two may be missing."""
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
"""Of the message that github.com/teslamotors/dashcam documents: name, number, type."""
_REVERSE = 2


class Tesla(Importer):
    """A clip `...-front.mp4`, or a folder of them."""

    kind = "tesla"

    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        zone = options.get("zone", ZONE)
        paths = [path] if path.is_file() else sorted(p for p in path.iterdir() if _CLIP.fullmatch(p.name))
        if path.is_file() and not (_CLIP.fullmatch(path.name) or _has_signals(path)):
            return []
        drives: list[list[Video]] = []
        for video in (probe(each, zone) for each in paths):
            before = drives[-1][-1] if drives else None
            if before is not None and _start(video) - _start(before) - before.duration_s < LONGEST_GAP_S:
                drives[-1].append(video)
            else:
                drives.append([video])
        return [
            Drive(
                self.kind,
                Clock(_start(clips[0]), zone).name(_start(clips[0])),
                path,
                tuple(c.path for c in clips),
                options,
            )
            for clips in drives
        ]

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        zone = drive.options.get("zone", ZONE)
        clips = [probe(path, zone) for path in drive.files]
        seen: list[tuple[float, Any]] = []
        origin = Origin(self.kind, "electric", videos=[clip.origin(_start(clip)) for clip in clips])
        write_recording(
            folder,
            encoded(half_seconds(_frames(clips, seen, log))),
            lambda: _signals(seen, drive),
            Clock(_start(clips[0]), zone),
            origin,
            log,
        )


def _start(video: Video) -> float:
    if video.start is None:
        raise DataError(f"{video.path}: expected a name with its start, such as 2024-05-31_08-15-00-front.mp4.")
    return video.start


def _frames(clips: Sequence[Video], seen: list[tuple[float, Any]], log: Log) -> Iterator[tuple[float, Any]]:
    """The frames of the clips; time and message of those that carry one are added to `seen`."""
    for clip in clips:
        count = 0
        with open_video(clip.path) as container:
            for t, frame in decoded(container, _start(clip)):
                count += 1
                if (message := _message(frame)) is not None:
                    seen.append((t, message))
                yield t, frame
        if not count:
            raise DataError(
                f"{clip.path} holds no frame that can be decoded: export clips that the car encrypted from the car or "
                "the app first."
            )
        log(f"{clip.path.name}: {count} frames")


def _has_signals(path: Path) -> bool:
    with open_video(path) as container:
        return any(
            _message(frame) is not None for _, (_, frame) in zip(range(60), decoded(container, 0.0), strict=False)
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
    for data in frame.side_data:
        if str(data.type).endswith("SEI_UNREGISTERED"):
            content = bytes(data).lstrip(b"\x42")
            if content[:1] == b"\x69" and len(content) < len(bytes(data)):
                message = _message_class()()
                try:
                    message.ParseFromString(content[1:])
                except Exception:
                    continue
                return message
    return None


def _signals(seen: Sequence[tuple[float, Any]], drive: Drive) -> dict[str, Found]:
    if not seen:
        raise DataError(
            f"{drive.files[0]} has no signals in its stream: cars store them since firmware 2025.44.25. Use "
            "`import video` with a log of your own."
        )
    t = np.array([each for each, _ in seen])
    messages = [message for _, message in seen]
    columns = {
        "SPEED": [3.6 * abs(m.vehicle_speed_mps) for m in messages],
        "ACCELERATOR_POS_D": [m.accelerator_pedal_position for m in messages],
        "BRAKE_SIGNAL": [float(m.brake_applied) for m in messages],
        "ASSISTANCE": [float(m.autopilot_state != 0) for m in messages],
        "REVERSE": [float(m.gear_state == _REVERSE) for m in messages],
    }
    found = {}
    for name, values in columns.items():
        signal = in_order(t, np.array(values, float))
        found[name] = Found(signal, name, len(values), len(values) - len(signal.t), 0)
    return found


IMPORTER = Tesla()
