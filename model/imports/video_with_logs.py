"""Drives of any video with any log, joined by a mapping file."""

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model.common.errors import DataError
from model.common.files import sha256
from model.common.progress import Log
from model.imports.kinds import MAPPING, VIDEOS, Drive, Importer
from model.imports.logs.raw import Found
from model.imports.logs.reading import log_files, read_channels
from model.imports.mapping import ESTIMATE, ImportMapping, checked_moment, read_mapping
from model.imports.offset import estimate_offset
from model.imports.pictures import PICTURES, Video, picture_frames, probe, video_frames
from model.imports.signals import is_since_1970
from model.imports.writing import Clock, Origin, write_recording

LONGEST_GAP_S = 120.0
"""Videos further apart belong to different drives."""


class VideoWithLogs(Importer):
    """A folder with a video or several, logs, and mapping.yaml."""

    kind = "video"

    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        folder = path if path.is_dir() else path.parent
        mapping_path = Path(options["mapping"]) if "mapping" in options else folder / MAPPING
        if not mapping_path.is_file():
            if "mapping" in options:
                raise DataError(f"{mapping_path} does not exist: expected a mapping file.")
            return []
        mapping = read_mapping(mapping_path)
        start = _start_of(folder, mapping, [path] if path.is_file() else [])
        name = Clock(start, mapping.zone).name(start)
        return [Drive(self.kind, name, path, (mapping_path,), {"mapping": str(mapping_path)})]

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        mapping = read_mapping(Path(drive.options["mapping"]))
        place = drive.place if drive.place.is_dir() else drive.place.parent
        chosen = [drive.place] if drive.place.is_file() else []
        start = _start_of(place, mapping, chosen)
        found = read_channels(place, mapping)
        origin = Origin(self.kind, mapping.drivetrain, mapping=mapping.model_dump(mode="json", exclude_defaults=True))
        found = {name: _on_clock(name, each, start, origin) for name, each in found.items()}
        videos = _videos(place, mapping, chosen)
        starts = _starts(videos, start, origin)
        if mapping.offset_s == ESTIMATE:
            offset = estimate_offset(starts, found["SPEED"].signal, log)
            origin.offset_s, origin.offset_doubt_s = offset.seconds, offset.doubt_s
        else:
            origin.offset_s = float(mapping.offset_s)
        moved = {name: replace(each, signal=each.signal.moved(origin.offset_s)) for name, each in found.items()}
        origin.videos = [video.origin(at) for video, at in starts]
        origin.logs = [
            {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
            for path, _ in log_files(place, mapping)
        ]
        origin.drive = origin.logs[0]["sha256"]
        frames = (
            video_frames(starts, origin.notes)
            if starts
            else picture_frames(_picture_folder(place, mapping), mapping.zone)
        )
        write_recording(
            folder,
            frames,
            lambda: moved,
            Clock(start, mapping.zone),
            origin,
            log,
            region=mapping.region,
            holds_s={name: channel.holds_s for name, channel in mapping.channels.items()},
        )


def _on_clock(name: str, each: Found, start: float, origin: Origin) -> Found:
    """A signal whose clock knows no date begins with the video."""
    if is_since_1970(each.signal.t):
        return each
    origin.notes.append(f"{name}: the log's times are since its start, which is taken for the video's; see `offset_s`.")
    return replace(each, signal=each.signal.moved(start))


def _videos(folder: Path, mapping: ImportMapping, chosen: Sequence[Path]) -> list[Video]:
    paths = chosen or sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS)
    if mapping.video and not chosen:
        paths = [
            path
            for pattern in mapping.video
            for path in sorted(folder.iterdir())
            if fnmatch.fnmatch(path.name, pattern)
        ]
        if not paths:
            raise DataError(f"{folder} has no video {', '.join(mapping.video)}.")
    return [probe(path, mapping.zone) for path in paths if path.is_file()]


def _picture_folder(folder: Path, mapping: ImportMapping) -> Path:
    """The folder of pictures that stand in for a video: a named one, the one that has some, or the drive's own."""
    named = [folder / name for name in mapping.video if (folder / name).is_dir()]
    for place in (*named, folder, *sorted(filter(Path.is_dir, folder.iterdir()))):
        if any(path.suffix.lower() in PICTURES for path in place.iterdir()):
            return place
    raise DataError(f"{folder} has no video and no pictures: expected one of {', '.join(VIDEOS + PICTURES)}.")


def _start_of(folder: Path, mapping: ImportMapping, chosen: Sequence[Path]) -> float:
    """s since 1970 of the first frame.

    Raises:
        DataError: nothing tells it.
    """
    if mapping.video_start is not None:
        return checked_moment(mapping.video_start, mapping.zone)
    videos = _videos(folder, mapping, chosen)
    if not videos:
        return next(picture_frames(_picture_folder(folder, mapping), mapping.zone))[0]
    known = [video.start for video in videos if video.start is not None]
    if not known:
        raise DataError(
            f"{videos[0].path} says not when it begins, nor does its name: set `video_start` in the mapping."
        )
    return min(known)


def _starts(videos: Sequence[Video], start: float, origin: Origin) -> list[tuple[Video, float]]:
    """Each video with s since 1970 of its first frame, in order; one that says nothing follows the one before.

    Raises:
        DataError: two overlap, or lie so far apart that they are two drives.
    """
    placed: list[tuple[Video, float]] = []
    end = start
    for number, video in enumerate(sorted(videos, key=lambda each: each.start or 0.0)):
        at = start if number == 0 else video.start if video.start is not None else end
        if number and at < end - 1.0:
            raise DataError(f"{video.path} begins {end - at:.0f} s before {placed[-1][0].path} ends: name one of them.")
        if number and at > end + LONGEST_GAP_S:
            raise DataError(
                f"{video.path} begins {at - end:.0f} s after {placed[-1][0].path} ends: import the drives one by one."
            )
        if number == 0 and video.start_is_from:
            origin.notes.append(
                f"The video's start is from {video.start_is_from}, which has whole seconds; see offset_s."
            )
        placed.append((video, at))
        end = at + video.duration_s
    return placed


IMPORTER = VideoWithLogs()
