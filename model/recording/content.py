"""What a recording's files hold, as hashes: whether a file is another one is told by its content, not by its size."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model.common.errors import DataError
from model.common.files import sha256
from model.recording.folder import Recording

FRAME_HASHES = "frame_hashes"
"""Of the details of annotations: `file_hashes` of the frames that were annotated."""


def content_hash(folder: Path, reading: Path | None = None) -> str:
    """Twelve hex digits that identify a recording: the content of its telemetry, region of interest and frames.

    Where the telemetry is not read as recorded, that counts too; `reading` stands in for the file that says so.
    """
    recording = Recording(folder)
    paths = [recording.telemetry_path, recording.roi_path, *recording.frames().values()]
    if (reading := reading or recording.reading_path).is_file():
        paths.append(reading)
    hashes = "".join(f"{name}\0{digest}\n" for name, digest in file_hashes(paths).items())
    return hashlib.sha256(hashes.encode()).hexdigest()[:12]


def file_hashes(paths: Sequence[Path]) -> dict[str, str]:
    """The hash of each file's content by its name; empty for one that is missing."""
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        hashes = pool.map(lambda path: sha256(path) if path.is_file() else "", paths)
        return {path.name: digest for path, digest in zip(paths, hashes, strict=True)}


def check_annotated(recording: Recording) -> None:
    """Raises DataError if the region of interest or a frame is not what was annotated.

    Frames are read only where they changed after the annotations were made, as the file system tells. Of annotations
    made elsewhere neither is known.
    """
    details = recording.details
    if not details:
        return
    if (region := recording.region()) not in (None, recording.annotated_region()):
        annotated = recording.annotated_region()
        raise DataError(f"{recording.roi_path} says {region}, {recording.details_path} {annotated}: annotate again.")
    known, made = details.get(FRAME_HASHES, {}), recording.details_path.stat().st_ctime
    younger = [path for path in recording.frames().values() if path.name in known and path.stat().st_ctime > made]
    changed = [name for name, digest in file_hashes(younger).items() if digest != known[name]]
    if changed:
        raise DataError(
            f"{recording.camera_folder}: {len(changed)} frames changed after they were annotated, as {changed[0]}: "
            "annotate again."
        )
