"""Drives of other recorders, which become recordings when they are ingested."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from drive_assets.recordings.files import require_file, sizes_of
from drive_assets.recordings.source import Source, Transfer
from drive_assets.resources.storage import Storage
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.progress import Log
from model.imports.kinds import KINDS, NO_MAPPING, Drive, folders_of, has_video, importer


@dataclass(frozen=True)
class ImportSource(Source):
    """A drive that `model.imports` reads; `location` is the path that holds it."""

    kind: ClassVar[str] = "import"
    importer: str
    """One of KINDS"""
    files: list[str]
    """Files and folders that the drive is read from"""
    options: dict[str, str] = field(default_factory=dict)

    def fetch(self, storage: Storage, target: Path, log: Log) -> Transfer:
        started = time.monotonic()
        _require_files(self.files, Path(self.location))
        files = tuple(map(Path, self.files))
        drive = Drive(self.importer, self.name, Path(self.location), files, self.options)
        importer(self.importer).write(drive, target, log)
        written = sum(size for _, size in sizes_of(target))
        return {"imported_megabytes": written / 1e6, "import_s": time.monotonic() - started}

    def is_gone(self, storage: Storage) -> bool:
        return not all(Path(path).exists() for path in self.files)


def imports_in(path: Path, kind: str, options: dict[str, str]) -> list[ImportSource]:
    """The drives of a kind at a path.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    _require_files([str(path)], path)
    drives = importer(kind).find(path, options)
    if not drives:
        raise DataError(f"{path} {_problem(kind, path)}.")
    return [_source(drive) for drive in drives]


def find_imports(kind: str, paths: Sequence[Path], options: dict[str, str]) -> tuple[list[ImportSource], list[str]]:
    """The drives of a kind at `paths` and in folders there, and one error for each thing refused.

    An error in one does not affect the others.
    """
    found: dict[str, ImportSource] = {}
    refused: list[str] = []
    for path in (Path(os.path.realpath(path.expanduser())) for path in paths):
        try:
            for unit in _units(kind, path, options):
                try:
                    for source in imports_in(unit, kind, options):
                        if (other := found.setdefault(source.name, source)) != source:
                            refused.append(f"{source.location} holds {source.name}, as {other.location} does.")
                except DataError as error:
                    refused.append(str(error))
        except (DataError, OSError) as error:
            refused.append(str(error) if isinstance(error, DataError) else f"{path} cannot be read: {error.strerror}.")
    return list(found.values()), refused


def _units(kind: str, path: Path, options: dict[str, str]) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path} does not exist: check the path.")
    return [path] if path.is_file() or "mapping" in options else list(folders_of(kind, path)) or [path]


def _problem(kind: str, path: Path) -> str:
    if kind == "video" and has_video(path):
        return NO_MAPPING
    return f"holds no drive of kind {kind}: expected {KINDS[kind].expected}"


def _source(drive: Drive) -> ImportSource:
    files = [str(path) for path in drive.files]
    stats = [(path, Path(path).stat()) for path in _walk(files)]
    identity = fingerprint([drive.options, [(path, s.st_size, s.st_mtime_ns) for path, s in stats]])
    return ImportSource(drive.name, str(drive.place), drive.kind, files, drive.options, identity=identity)


def _require_files(files: Sequence[str], place: Path) -> None:
    for path in _walk(files):
        require_file(Path(path), place.parent)


def _walk(files: Sequence[str]) -> Iterator[str]:
    """The files, and those in the folders among them."""
    for file in files:
        if Path(file).is_dir():
            for folder, folders, names in os.walk(file):
                folders.sort()
                yield from (f"{folder}/{name}" for name in sorted(names))
        else:
            yield file
