"""Frames at 2 Hz of videos and of folders of pictures, as JPEG, one at a time."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.common.errors import DataError
from model.common.files import sha256

STEP_S = 0.5
NEAR_S = 0.3
"""A frame stands for a half second that is at most this far away; farther ones leave a gap."""
LEAST_MISSING_S = 2.0
"""A video that ends so much before its length says is cut."""
MOST_DAMAGED = 1000
"""Packets of a video that cannot be decoded, after which it is given up."""
QUALITY = 90
"""Of the JPEG files."""
_DEMUXERS = {".mkv": "matroska", ".webm": "matroska", ".avi": "avi", ".ts": "mpegts", ".hevc": "hevc"}
_DEMUXERS |= dict.fromkeys((".mp4", ".mov", ".m4v"), "mov")
PICTURES = (".jpg", ".jpeg", ".png")
_CLOCK_TIME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_ T.]?(\d\d)[-_.:]?(\d\d)[-_.:]?(\d\d)(?:[-_.](\d{1,6}))?(?!\d)"
)
_EPOCH = re.compile(r"(?<!\d)(1\d{9})(\d{0,9})(?!\d)")

Frame = tuple[float, bytes]
"""s since 1970, and the JPEG."""


@dataclass(frozen=True)
class Video:
    """What a video's file says of itself."""

    path: Path
    start: float | None
    """s since 1970 of the first frame, from the file's metadata or its name; None if neither has it"""
    start_is_from: str
    duration_s: float
    rate_hz: float
    width: int
    height: int
    codec: str

    def origin(self, start: float) -> dict[str, Any]:
        """For the recording's origin: how to find the frames again."""
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "sha256": sha256(self.path),
            "start": start,
            "rate_hz": round(self.rate_hz, 3),
            "size": [self.width, self.height],
            "codec": self.codec,
        }


def time_in_name(name: str, zone: str) -> float | None:
    """s since 1970 of the moment in a file's name, a date with a time in `zone` or seconds since 1970; None without."""
    if match := _CLOCK_TIME.search(name):
        *parts, fraction = match.groups()
        try:
            moment = datetime.strptime(" ".join(parts), "%Y %m %d %H %M %S").replace(tzinfo=ZoneInfo(zone))
        except ValueError:
            return None
        return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    if match := _EPOCH.search(name):
        return float(f"{match[1]}.{match[2] or 0}")
    return None


def open_video(path: Path) -> Any:
    """PyAV's container, with a video.

    Raises:
        DataError: it cannot be read or holds no video.
    """
    import av

    try:
        # A playlist under the name of a video would read other files, or addresses.
        container = av.open(
            str(path.absolute()),
            format=_DEMUXERS.get(path.suffix.lower()),
            container_options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): expected a video; one without its index (moov), as after a "
            "crash of the camera, needs repair first, for instance with untrunc."
        ) from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{path} holds no video: found {', '.join(s.type for s in container.streams) or 'nothing'}.")
    if container.streams.video[0].codec_context is None:
        container.close()
        raise DataError(f"{path} holds a video that no decoder is known for: it is damaged or encrypted.")
    return container


def probe(path: Path, zone: str) -> Video:
    """Raises DataError if it cannot be read or holds no video."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        created = container.metadata.get("creation_time", "") or stream.metadata.get("creation_time", "")
        named = time_in_name(path.name, zone)
        start, source = named, "its name"
        if named is None and created:
            with contextlib.suppress(ValueError, OverflowError):  # damaged
                start, source = datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp(), "its creation time"
            if start is not None and start < 1e8:  # cameras without a clock write 1904 or 1970
                start = None
        return Video(
            path,
            start,
            source if start is not None else "",
            _duration(container),
            float(stream.average_rate or 0),
            stream.width,
            stream.height,
            stream.codec_context.name,
        )


def _duration(container: Any) -> float:
    """s that a video says it lasts; 0 if it says nothing."""
    stream = container.streams.video[0]
    return float(stream.duration * stream.time_base) if stream.duration else float(container.duration or 0) / 1e6


def half_seconds(frames: Iterable[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """Of frames with rising times, the nearest to each half second since the first."""
    before: tuple[float, Any] | None = None
    start, step, last = 0.0, 0, -np.inf
    for t, frame in frames:
        if before is None:
            start = t
        elif t <= before[0]:
            continue  # twice, or back in time
        while start + step * STEP_S <= t:
            wanted = start + step * STEP_S
            nearest = before if before is not None and wanted - before[0] <= t - wanted else (t, frame)
            if abs(nearest[0] - wanted) <= NEAR_S and nearest[0] > last:
                last = nearest[0]
                yield nearest
            step += 1
        before = (t, frame)


def decoded(
    container: Any, start: float, times: npt.NDArray[np.float64] | None = None, notes: list[str] | None = None
) -> Iterator[tuple[float, Any]]:
    """Time and PyAV frame of each picture of a video. What is damaged is left out.

    Args:
        start: s since 1970 of the first frame.
        times: (F,) s of each frame, where something else than the video knows them.
        notes: gets a sentence if the video is damaged.
    """
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    first, last = None, 0.0
    damaged: list[str] = []
    for number, frame in enumerate(_pictures(container, stream, damaged)):
        if times is not None:
            if number >= len(times):
                return
            yield float(times[number]), frame
        elif frame.pts is not None:
            last = float(frame.pts * stream.time_base)
            first = last if first is None else first
            yield start + last - first, frame
    missing_s = _duration(container) - (last - (first or 0.0))
    if damaged:
        notes = [] if notes is None else notes
        notes.append(f"{container.name}: {len(damaged)} packets cannot be decoded ({damaged[0]}); they are left out.")
    if notes is not None and times is None and missing_s > LEAST_MISSING_S:
        notes.append(f"{container.name} is cut: its last {missing_s:.0f} s are missing.")


def _pictures(container: Any, stream: Any, damaged: list[str]) -> Iterator[Any]:
    """Frames of the packets that can be decoded; the errors of the others are added to `damaged`."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            frames = next(packets).decode()
        except StopIteration:
            return
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            damaged.append(str(error.strerror))
            if len(damaged) > MOST_DAMAGED:
                return
            continue
        yield from frames


def jpeg(frame: Any) -> bytes:
    """The picture of a PyAV frame, upright."""
    import cv2

    picture = frame.to_ndarray(format="bgr24")
    if turns := round(frame.rotation / 90) % 4:
        picture = np.ascontiguousarray(np.rot90(picture, turns))
    done, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return content.tobytes()


def encoded(frames: Iterable[tuple[float, Any]], encode: Callable[[Any], bytes] = jpeg) -> Iterator[Frame]:
    """Frames as JPEG, encoded beside the decoding of the next ones."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[tuple[float, Future[bytes]]] = []
        for t, frame in frames:
            waiting.append((t, pool.submit(encode, frame)))
            if len(waiting) > 4:  # each holds a decoded frame
                t, future = waiting.pop(0)
                yield t, future.result()
        for t, future in waiting:
            yield t, future.result()


def video_frames(videos: Sequence[tuple[Video, float]], notes: list[str]) -> Iterator[Frame]:
    """Frames at 2 Hz of videos with their starts, one after the other; `notes` gets a sentence for a damaged one."""

    def one_after_the_other() -> Iterator[tuple[float, Any]]:
        for video, start in videos:
            with open_video(video.path) as container:
                yield from decoded(container, start, notes=notes)

    yield from encoded(half_seconds(one_after_the_other()))


def picture_frames(folder: Path, zone: str) -> Iterator[Frame]:
    """Frames at 2 Hz of pictures whose names hold their times.

    Raises:
        DataError: a name holds no time.
    """
    times = []
    for path in folder.iterdir():
        if path.suffix.lower() in PICTURES:
            t = time_in_name(path.name, zone)
            if t is None:
                raise DataError(f"{path}: its name holds no time: expected a date with a time, or seconds since 1970.")
            times.append((t, path))
    for t, path in half_seconds(sorted(times)):
        try:
            with Image.open(path) as picture:
                picture.verify()
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path} is no picture: copy it again, or remove it.") from error
        yield t, path.read_bytes()
