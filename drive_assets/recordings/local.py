"""Recordings in folders and zips of this machine, or of a file system that it mounts."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from drive_assets.recordings.archives import is_taken, open_archive, unpack
from drive_assets.recordings.disk import Progress, check_space
from drive_assets.recordings.sources import Source, Tell, Transfer
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.recording.folder import TELEMETRY, parse_recording_name


@dataclass(frozen=True)
class LocalSource:
    """A folder of a recording, or a zip of one or several."""

    kind: ClassVar[str] = "local"
    name: str
    location: str
    """Absolute path of the folder or zip."""
    member: str | None = None
    """Folder in the zip that holds the files, empty for its top; None if the source is a folder."""

    @property
    def place(self) -> str:
        return self.location

    @property
    def identity(self) -> str:
        return ""

    def fetch(self, storage: Storage, target: Path, tell: Tell) -> Transfer:
        if self.member is None:
            return _copy_folder(Path(self.location), target, Progress(self.name, tell))
        return unpack(Path(self.location), self.location, self.member, target, Progress(self.name, tell))

    def release(self, storage: Storage) -> None:
        pass

    def is_gone(self, storage: Storage) -> bool:
        return not Path(self.location).exists()


def _copy_folder(folder: Path, target: Path, progress: Progress) -> Transfer:
    started = time.monotonic()
    files = sorted(p for p in folder.iterdir() if is_taken(p.name) and p.is_file() and not p.is_symlink())
    total, done = sum(path.stat().st_size for path in files), 0
    check_space(target, total, folder.name)
    for path in files:
        shutil.copyfile(path, target / path.name)
        done += path.stat().st_size
        progress(done, total)
    return {"copied_megabytes": total / 1e6, "copy_s": time.monotonic() - started}


def find_recordings(path: Path) -> list[LocalSource]:
    """The recordings at `path`: a recording's folder, a zip, or a folder that holds some of these.

    Raises:
        DataError: nothing is there, a zip is broken or hostile, a name is no timestamp, or a name comes twice.
    """
    path = path.expanduser().resolve()
    if not path.exists():
        raise DataError(f"{path} does not exist: expected a recording, a zip of some, or a folder of them.")
    if path.is_file() and path.suffix.lower() != ".zip":
        raise DataError(f"{path} is no folder and no zip: expected a recording, a zip of some, or a folder of them.")
    found: list[LocalSource] = []
    for unit in _units(path):
        found += [LocalSource(unit.name, str(unit))] if (unit / TELEMETRY).is_file() else in_zip(unit)
    if not found:
        raise DataError(f"{path} holds no recording: expected folders YYYY-MM-DD_HH-MM-SS with {TELEMETRY}.")
    for source in found:
        parse_recording_name(source.name)
    names = [source.name for source in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} holds {', '.join(twice)} more than once: leave one of each.")
    return found


def find_all(paths: Sequence[Path]) -> tuple[list[LocalSource], list[str]]:
    """The recordings at `paths`, and why others there are none: a bad one does not take the good ones with it."""
    found: dict[str, LocalSource] = {}
    refused: list[str] = []
    for unit in (unit for path in paths for unit in _units(path) or [path]):
        try:
            sources = find_recordings(unit)
        except DataError as error:
            refused.append(str(error))
            continue
        for source in sources:
            if source != found.setdefault(source.name, source):
                refused.append(f"{source.location} holds {source.name}, as {found[source.name].location} does.")
    return list(found.values()), refused


def _units(path: Path) -> list[Path]:
    """The folders and zips of recordings in a folder that is no recording itself; else the path."""
    if not path.is_dir() or (path / TELEMETRY).is_file():
        return [path]
    inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    return [p for p in inside if (p / TELEMETRY).is_file() or p.suffix.lower() == ".zip"]


def in_zip(path: Path) -> list[LocalSource]:
    """Raises DataError if the zip is broken or hostile."""
    with open_archive(path) as archive:
        return [LocalSource(name, str(path), folder) for name, folder in archive.recordings().items()]


def find_folder(folder: Path) -> Source | None:
    """The recording that a folder is, if it is one."""
    return LocalSource(folder.name, str(folder)) if (folder / TELEMETRY).is_file() else None
