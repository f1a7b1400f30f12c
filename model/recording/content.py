"""Hashes of a recording's files: their content, not their size, decides whether they changed."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model.common.errors import DataError
from model.common.files import sha256
from model.recording.folder import Recording

FRAME_HASHES = "frame_hashes"
"""Key in the details of annotations: `file_hashes` of the annotated frames."""


def content_hash(folder: Path, reading: Path | None = None) -> str:
    """Twelve hex digits that identify a recording: the content of its telemetry, region of interest and frames.

    reading.json counts too, since it changes what the telemetry says; `reading` stands in for it.
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
    """Raises DataError if the region of interest or a frame is not the annotated one.

    Frames are read only if the file system says that they changed after they were annotated. Annotations made elsewhere
    record neither.
    """
    details = recording.details
    if not details:
        return
    annotated = recording.annotated_region()
    if (region := recording.region()) not in (None, annotated):
        raise DataError(f"{recording.roi_path} says {region}, {recording.details_path} {annotated}: annotate again.")
    known, annotated_at = details.get(FRAME_HASHES, {}), recording.details_path.stat().st_ctime
    younger = [p for p in recording.frames().values() if p.name in known and p.stat().st_ctime > annotated_at]
    changed = [name for name, digest in file_hashes(younger).items() if digest != known[name]]
    if changed:
        raise DataError(
            f"{recording.folder}: {len(changed)} frames changed after they were annotated, as {changed[0]}: "
            "annotate again."
        )
