"""Zips of recordings: which they hold, whether they may be unpacked, and unpacking one."""

import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from drive_assets.recordings.disk import Progress, check_space
from model.common.config import fingerprint
from model.common.errors import DataError
from model.recording.folder import READING, ROI, TELEMETRY, TRUE_ANNOTATIONS
from model.recording.frame_files import is_frame

TAKEN = (TELEMETRY, ROI, READING, TRUE_ANNOTATIONS)
"""Files of a recording besides its frames. What is derived from a recording is not taken over."""
ENCRYPTED = 0x1
"""Flag of a zip's entry."""
LARGEST_FILE = 512 * 1024 * 1024
LARGEST_EXPANSION = 200
_BROKEN = (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError, struct.error, zlib.error)
"""What zipfile raises for archives that are cut, encrypted, of an unknown kind or that lie about themselves."""


def taken_as(name: str) -> str:
    """The name under which a file of a recording is taken, such as telemetry.csv for Telemetry.CSV.

    Empty if it does not belong to a recording, as those that a desktop leaves, such as ._x.jpg.
    """
    return name.lower() if name.lower() in TAKEN else name if is_frame(name) else ""


def is_taken(name: str) -> bool:
    """Whether a file of this name belongs to a recording."""
    return bool(taken_as(name))


def listing(files: Sequence[tuple[str, int]]) -> str:
    """Identity of a recording's files by name and size in bytes; of those that are taken."""
    return fingerprint(sorted((taken_as(name), size) for name, size in files if is_taken(name)))


def same_names(names: Iterable[str]) -> list[str]:
    """Those that another one differs from in case alone, or not at all: one file of them would be lost."""
    by_name = Counter(name.lower() for name in names)
    return sorted(name for name in names if by_name[name.lower()] > 1)


class Archive:
    """The directory of a zip, of which no entry is hostile."""

    def __init__(self, archive: zipfile.ZipFile, label: str) -> None:
        self._zip = archive
        self._label = label
        self._folders: dict[str, list[zipfile.ZipInfo]] = {}
        _refuse_hostile(label, archive)
        for info in archive.infolist():
            path = _path(info)
            if not info.is_dir() and not info.filename.endswith("\\") and is_taken(path.name):
                if info.flag_bits & ENCRYPTED:
                    raise DataError(f"{label} is encrypted: unpack it with its password, and ingest the folder.")
                self._folders.setdefault("" if str(path.parent) == "." else str(path.parent), []).append(info)

    def recordings(self) -> dict[str, str]:
        """Folder in the zip of each recording, by name; that of files at the top is empty, and named as the zip.

        Raises:
            DataError: a name comes twice.
        """
        found: dict[str, str] = {}
        for folder, infos in sorted(self._folders.items()):
            if TELEMETRY in (taken_as(_path(info).name) for info in infos):
                name = PurePosixPath(folder).name if folder else PurePosixPath(self._label).stem
                if name in found:
                    raise DataError(f"{self._label} holds {name} more than once: leave one of each.")
                found[name] = folder
        return found

    def files(self, folder: str) -> list[tuple[str, int]]:
        """Name and size in bytes of a recording's files.

        Raises:
            DataError: two differ only in case.
        """
        files = [(_path(info).name, info.file_size) for info in self._folders.get(folder, [])]
        if same := same_names([name for name, _ in files]):
            raise DataError(f"{self._label} holds {', '.join(same[:4])}, which differ only in case, or not at all.")
        return files

    def unpack(self, folder: str, target: Path, progress: Callable[[int], None]) -> None:
        """Write a recording's files to the folder `target`; `progress` gets the bytes written so far.

        Raises:
            DataError: an entry is broken.
        """
        written = 0
        self.files(folder)
        try:
            for info in self._folders.get(folder, []):
                with self._zip.open(info) as stream, (target / taken_as(_path(info).name)).open("wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
                written += info.file_size
                progress(written)
        except _BROKEN as error:
            raise DataError(f"{self._label} cannot be unpacked ({error}): copy it again.") from error


@contextmanager
def open_archive(file: Path | IO[bytes], label: str = "") -> Iterator[Archive]:
    """Open a zip, given by path or as a stream that can seek.

    Raises:
        DataError: it is no whole zip, or an entry is hostile: then nothing of it may be used.
    """
    label = label or str(file)
    if isinstance(file, Path) and not file.is_file():
        raise DataError(f"{file} is no regular file: expected a zip.")
    try:
        opened = zipfile.ZipFile(file)
    except (*_BROKEN, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{label} is no whole zip ({error}): copy it again.") from error
    with opened:
        yield Archive(opened, label)


def _path(info: zipfile.ZipInfo) -> PurePosixPath:
    # Archives made on Windows may separate with backslashes.
    return PurePosixPath(info.filename.replace("\\", "/"))


def _refuse_hostile(label: str, archive: zipfile.ZipFile) -> None:
    for info in archive.infolist():
        path, mode = _path(info), info.external_attr >> 16
        reason = ""
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            reason = "leads out of the archive"
        elif mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
            reason = "is a link or a device"
        elif info.file_size > LARGEST_FILE or info.file_size > LARGEST_EXPANSION * max(info.compress_size, 1024):
            reason = "expands to an absurd size"
        elif is_taken(path.name) and any(character < " " for character in info.filename):
            reason = "has a name with control characters"
        if reason:
            raise DataError(f"{label}: entry {info.filename!r} {reason}. Nothing of this archive was kept.")
    # Entries that share bytes each expand by a harmless factor, and together without end.
    if sum(info.compress_size for info in archive.infolist()) > archive.start_dir:
        raise DataError(f"{label}: its entries overlap. Nothing of this archive was kept.")


def unpack(path: Path, label: str, folder: str, target: Path, progress: Progress) -> dict[str, float | str]:
    """Unpack one recording of a zip into the folder `target`; returns size and seconds.

    Raises:
        DataError: the zip is broken or hostile, or the disk is too full.
    """
    started = time.monotonic()
    with open_archive(path, label) as archive:
        total = sum(size for _, size in archive.files(folder))
        check_space(target, total, target.name)
        archive.unpack(folder, target, lambda done: progress(done, total))
    progress.tell(f"{progress.label}: {total / 1e6:,.1f} MB unpacked")
    return {"unpacked_megabytes": total / 1e6, "unpack_s": time.monotonic() - started}
