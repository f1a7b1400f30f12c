"""Recordings in folders and zips of this machine, or of a file system that it mounts."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from drive_assets.recordings.archives import open_archive, unpack
from drive_assets.recordings.disk import Progress, check_space
from drive_assets.recordings.files import clashing_names, is_taken, taken_as
from drive_assets.recordings.sources import Source, Transfer
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.printable import is_printable, printable
from model.common.progress import Log
from model.recording.folder import TELEMETRY, parse_recording_name
from model.recording.frame_files import is_frame

LINKS_VARIABLE = "DRIVE_ASSETS_LINKS"
"""Names a folder, such as the cache of DVC or git-annex, that files of a recording may link into."""
NOT_A_ZIP = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zst")
UNFINISHED = (".crdownload", ".filepart", ".part", ".partial")
"""Suffixes of downloads and uploads in progress."""


@dataclass(frozen=True)
class LocalSource(Source):
    """A folder of a recording, or a zip of one or several; `location` is its absolute path."""

    kind: ClassVar[str] = "local"
    member: str | None = None
    """Folder in the zip that holds the files, empty for its top; None if the source is a folder."""

    def fetch(self, storage: Storage, target: Path, log: Log) -> Transfer:
        if self.member is None:
            return _copy_folder(Path(self.location), target, Progress(self.name, log))
        return unpack(Path(self.location), self.location, self.member, target, Progress(self.name, log))

    def is_gone(self, storage: Storage) -> bool:
        return not Path(self.location).exists()


def _copy_folder(folder: Path, target: Path, progress: Progress) -> Transfer:
    started = time.monotonic()
    inside = list(folder.iterdir())
    files = sorted(path for path in inside if is_taken(path.name))
    for path in files:
        _require_file(path)
    if skipped := [printable(path.name) for path in inside if is_frame(path.name) and not is_taken(path.name)]:
        progress.log(f"{folder}: {len(skipped)} frames skipped, whose names cannot be printed: {skipped[:4]}")
    if clashes := clashing_names(path.name for path in files):
        raise DataError(f"{folder} has {', '.join(clashes[:4])}, which differ only in case: remove all but one.")
    if not any(is_frame(path.name) for path in files):
        raise DataError(f"{folder} has no frame{_other_files(folder)}: expected JPEG or PNG files beside telemetry.")
    total, done = sum(path.stat().st_size for path in files), 0
    check_space(target, total, folder.name)
    for path in files:
        try:
            shutil.copyfile(path, target / taken_as(path.name))
        except OSError as error:
            error.filename = error.filename or str(path)  # a failed read does not name the file
            raise
        done += path.stat().st_size
        progress(done, total)
    transfer: Transfer = {"copied_megabytes": total / 1e6, "copy_s": time.monotonic() - started}
    return transfer | ({"skipped_frames": ", ".join(skipped)} if skipped else {})


def _other_files(folder: Path) -> str:
    """In brackets, what a folder without frames holds instead; empty if nothing of interest."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in filter(Path.is_dir, inside):
        if any(is_frame(inner.name) for inner in path.iterdir()):
            return f" (its folder {path.name} holds pictures: move them up)"
    suffixes = Counter(path.suffix.lower() for path in inside if path.is_file() and not is_taken(path.name))
    kinds = [f"{count} {suffix} files" for suffix, count in suffixes.most_common(3) if suffix]
    return f" ({', '.join(kinds)})" if kinds else ""


def _require_file(path: Path) -> None:
    """Raises DataError unless it is a regular file, or a link to one that may be followed.

    Reading a FIFO or a device would never end. A link in a folder that others write to may point to anything that this
    user can read: it is followed within the folder that holds the recordings, and where LINKS_VARIABLE allows it.
    """
    allowed = os.environ.get(LINKS_VARIABLE, "")
    roots = [_real(path.parent.parent), *([_real(Path(allowed))] if allowed else [])]
    if path.is_symlink() and not any(_real(path).is_relative_to(root) for root in roots):
        raise DataError(
            f"{path} is a link to {_real(path)}: copy the recording with what its links point to (cp -rL), or set "
            f"{LINKS_VARIABLE} to the folder that links may point into."
        )
    if not path.is_file():
        raise DataError(f"{path} is no regular file (a folder, pipe, device or broken link): remove it.")


def _real(path: Path) -> Path:
    """The path with links resolved; in a circle of links the path itself, where Path.resolve would raise."""
    return Path(os.path.realpath(path))


def find_all(paths: Sequence[Path]) -> tuple[list[LocalSource], list[str]]:
    """The recordings at `paths` (folders of recordings, zips, folders of these), and one error for each thing refused.

    An error in one does not affect the others.
    """
    found: dict[str, LocalSource] = {}
    refused: list[str] = []
    for path in paths:
        try:
            for unit in _units(_real(path.expanduser()), refused):
                for source in _in_unit(unit, refused):
                    if source != found.setdefault(source.name, source):
                        refused.append(f"{source.location} holds {source.name}, as {found[source.name].location} does.")
        except DataError as error:
            refused.append(str(error))
        except OSError as error:
            refused.append(f"{error.filename or path} cannot be read: {error.strerror}.")
    return list(found.values()), [printable(reason) for reason in refused]


def _units(path: Path, refused: list[str]) -> list[Path]:
    """The folders and zips of recordings at a path: itself, or those in it.

    Raises:
        DataError: there are none.
    """
    expected = "expected a recording, a zip of some, or a folder of them."
    if not path.exists():
        raise DataError(f"{path} does not exist: {expected}")
    if problem := _problem(path):
        raise DataError(problem)
    if (is_zip(path) and path.is_file()) or is_recording(path):
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} is no folder and no zip: {expected}")
    inside = sorted(inner for inner in path.iterdir() if not inner.name.startswith("."))
    units = [inner for inner in inside if is_recording(inner) or (is_zip(inner) and inner.is_file())]
    problems = {inner: _problem(inner) for inner in inside}
    refused += filter(None, problems.values())
    if not units and not any(problems.values()):
        text = f"{path} holds no recording: expected folders YYYY-MM-DD_HH-MM-SS with {TELEMETRY}."
        is_deeper = any(is_recording(inner) for folder in inside if folder.is_dir() for inner in folder.iterdir())
        raise DataError(f"{text} They lie one folder deeper: pass that." if is_deeper else text)
    return [unit for unit in units if not problems[unit]]


def _problem(path: Path) -> str:
    """Why a file or folder cannot be a recording; empty if it may be one, or is something else."""
    if not is_printable(str(path)):
        return f"{path} has control characters in its path: rename it."
    if path.suffix.lower() in NOT_A_ZIP:
        return f"{path} is no zip: unpack it, and ingest the folder."
    if path.suffix.lower() in UNFINISHED:
        return f"{path} is an unfinished download or copy: wait until it is complete, or remove it."
    return ""


def _in_unit(unit: Path, refused: list[str]) -> Iterator[LocalSource]:
    """The recordings of a folder or zip that have valid names."""
    try:
        sources = in_zip(unit) if unit.is_file() else [LocalSource(unit.name, str(unit))]
        if not sources:
            raise DataError(f"{unit} holds no recording: expected folders YYYY-MM-DD_HH-MM-SS with {TELEMETRY}.")
    except DataError as error:
        refused.append(str(error))
        return
    for source in sources:
        try:
            parse_recording_name(source.name)
            yield source
        except DataError as error:
            refused.append(f"{source.location}: {error}")


def is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def is_recording(path: Path) -> bool:
    """Whether it is a folder with telemetry; a link counts, so that `ingest` names it."""
    if not path.is_dir():
        return False
    telemetry = path / TELEMETRY
    return telemetry.is_symlink() or telemetry.is_file() or any(taken_as(p.name) == TELEMETRY for p in path.iterdir())


def in_zip(path: Path) -> list[LocalSource]:
    """Raises DataError if the zip is broken or hostile."""
    with open_archive(path) as archive:
        return [LocalSource(name, str(path), folder) for name, folder in archive.recordings().items()]


def find_folder(folder: Path) -> Source | None:
    """The recording that a folder is, if it is one."""
    return LocalSource(folder.name, str(folder)) if is_recording(folder) else None
