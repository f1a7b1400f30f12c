"""What a recording's files hold, as hashes: whether a file is another one is told by its content, not by its size."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model.common.errors import DataError
from model.common.files import sha256
from model.recording.folder import Recording

FRAMES_HASH = "frames_hash"
"""Of the details of annotations: `files_hash` of the frames that were there."""


def content_hash(folder: Path, reading: Path | None = None) -> str:
    """Identifies a recording: the content of its telemetry, region of interest and frames.

    Where the telemetry is not read as recorded, that counts too; `reading` stands in for the file that says so.
    """
    recording = Recording(folder)
    paths = [recording.telemetry_path, recording.roi_path, *recording.frames().values()]
    if (reading := reading or recording.reading_path).is_file():
        paths.append(reading)
    return files_hash(paths)


def files_hash(paths: Iterable[Path]) -> str:
    """Twelve hex digits that identify the names and contents of files; one that is missing counts as that."""
    files = list(paths)
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        hashes = list(pool.map(lambda path: sha256(path) if path.is_file() else "", files))
    names = zip(files, hashes, strict=True)
    return hashlib.sha256("".join(f"{path.name}\0{digest}\n" for path, digest in names).encode()).hexdigest()[:12]


def check_annotated(recording: Recording) -> None:
    """Raises DataError if the region of interest or a frame is not what was annotated.

    Frames are read only where one changed after the annotations were made, as the file system tells. Of annotations
    made elsewhere neither is known.
    """
    details = recording.details
    if not details:
        return
    if (region := recording.region()) not in (None, recording.annotated_region()):
        annotated = recording.annotated_region()
        raise DataError(f"{recording.roi_path} says {region}, {recording.details_path} {annotated}: annotate again.")
    frames = recording.frames().values()
    made = recording.details_path.stat().st_ctime
    changed = FRAMES_HASH in details and any(path.stat().st_ctime > made for path in frames)
    if changed and files_hash(frames) != details[FRAMES_HASH]:
        raise DataError(f"{recording.camera_folder}: frames changed after they were annotated: annotate again.")
