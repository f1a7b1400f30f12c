"""The files of a recording: which are ingested, and under which names."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.printable import is_printable
from model.recording.folder import IMPORTED, READING, ROI, SHADOW, TELEMETRY, TRUE_ANNOTATIONS
from model.recording.frame_files import is_frame

LINKS_VARIABLE = "DRIVE_ASSETS_LINKS"
"""Names a folder, such as the cache of DVC or git-annex, that files of a recording may link into."""
TAKEN = (TELEMETRY, ROI, READING, TRUE_ANNOTATIONS, IMPORTED, SHADOW)
"""Files of a recording besides its frames. Files derived from a recording are not ingested."""
Files = Sequence[tuple[str, int]]
"""Name and size in bytes of each."""


def taken_as(name: str) -> str:
    """The name under which a file of a recording is ingested, such as telemetry.csv for Telemetry.CSV.

    Empty if it belongs to no recording, such as ._x.jpg of macOS, or if its name cannot be printed.
    """
    if name.lower() in TAKEN:
        return name.lower()
    return name if is_frame(name) and is_printable(name) else ""


def is_taken(name: str) -> bool:
    return bool(taken_as(name))


def listing(files: Files) -> str:
    """Identity of a recording's files by name and size; others are ignored."""
    return fingerprint(sorted((taken_as(name), size) for name, size in files if is_taken(name)))


def sizes_of(folder: Path) -> Files:
    with os.scandir(folder) as entries:
        return [(entry.name, entry.stat().st_size) for entry in entries if entry.is_file()]


def clashing_names(names: Iterable[str]) -> list[str]:
    """Names that differ only in case, or not at all: only one of their files could be kept."""
    names = sorted(names)
    count = Counter(name.lower() for name in names)
    return [name for name in names if count[name.lower()] > 1]


def missing_files(files: Files) -> str:
    """What a recording with these files lacks to be complete; empty if nothing."""
    names = [name for name, _ in files]
    missing = [] if TELEMETRY in map(taken_as, names) else [TELEMETRY]
    missing += [] if any(is_frame(name) for name in names) else ["a frame (.jpg)"]
    return " and ".join(missing)


def require_file(path: Path, root: Path) -> None:
    """Raises DataError unless it is a regular file, or a link to one that may be followed.

    Reading a FIFO or a device would never end. A link in a folder that others write to may point to anything that this
    user can read: it is followed within `root`, the folder that holds the recordings, and where LINKS_VARIABLE allows
    it.
    """
    allowed = os.environ.get(LINKS_VARIABLE, "")
    roots = [real_path(root), *([real_path(Path(allowed))] if allowed else [])]
    if path.is_symlink() and not any(real_path(path).is_relative_to(root) for root in roots):
        raise DataError(
            f"{path} is a link to {real_path(path)}: copy the recording with what its links point to (cp -rL), or set "
            f"{LINKS_VARIABLE} to the folder that links may point into."
        )
    if not path.is_file():
        raise DataError(f"{path} is no regular file (a folder, pipe, device or broken link): remove it.")


def real_path(path: Path) -> Path:
    """The path with links resolved; in a circle of links the path itself, where Path.resolve would raise."""
    return Path(os.path.realpath(path))
