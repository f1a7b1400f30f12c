"""Zips of recordings: the recordings in them, hostile entries, and unpacking."""

import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from drive_assets.recordings.disk import Progress, check_space
from drive_assets.recordings.files import Files, clashing_names, is_taken, taken_as
from model.common.errors import DataError
from model.common.printable import is_printable
from model.recording.folder import TELEMETRY
from model.recording.frame_files import is_frame

ENCRYPTED = 0x1
"""Flag of a zip's entry."""
MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_EXPANSION = 200
_BROKEN = (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError, struct.error, zlib.error)
"""What zipfile raises for archives that are cut, encrypted, of an unknown kind or inconsistent."""


class Archive:
    """The directory of a zip without hostile entries."""

    def __init__(self, archive: zipfile.ZipFile, label: str) -> None:
        self.zip, self.label = archive, label
        self.entries: dict[str, list[zipfile.ZipInfo]] = {}
        """Files of recordings by their folder in the zip, empty for its top."""
        _refuse_hostile(label, archive)
        for info in archive.infolist():
            path = _path(info)
            if not info.is_dir() and not info.filename.endswith("\\") and is_taken(path.name):
                if info.flag_bits & ENCRYPTED:
                    raise DataError(f"{label} is encrypted: unpack it with its password, and ingest the folder.")
                self.entries.setdefault("/".join(path.parent.parts), []).append(info)

    def recordings(self) -> dict[str, tuple[str, Files]]:
        """Folder in the zip and files of each recording, by name. Files at the top form a recording named as the zip.

        Raises:
            DataError: a name occurs twice.
        """
        found: dict[str, tuple[str, Files]] = {}
        for folder, infos in sorted(self.entries.items()):
            files = [(_path(info).name, info.file_size) for info in infos]
            if TELEMETRY in (taken_as(name) for name, _ in files):
                name = PurePosixPath(folder).name if folder else PurePosixPath(self.label).stem
                if name in found:
                    raise DataError(f"{self.label} holds {name} more than once: remove all but one.")
                found[name] = folder, files
        return found


@contextmanager
def open_archive(file: Path | IO[bytes], label: str = "") -> Iterator[Archive]:
    """Open a zip, given by path or as a seekable stream.

    Raises:
        DataError: it is no complete zip, or an entry is hostile: then nothing of it may be used.
    """
    label = label or str(file)
    if isinstance(file, Path) and not file.is_file():
        raise DataError(f"{file} is no regular file: expected a zip.")
    try:
        opened = zipfile.ZipFile(file)
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{label} is no complete zip ({error}): copy it again.") from error
    except OSError as error:
        raise DataError(f"{label} cannot be read: {error.strerror}. Check the disk, or copy it again.") from error
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
        elif info.file_size > MAX_FILE_BYTES or info.file_size > MAX_EXPANSION * max(info.compress_size, 1024):
            reason = "expands to an absurd size"
        elif is_frame(path.name) and not is_printable(info.filename):
            reason = "has a name with control characters"
        if reason:
            raise DataError(f"{label}: entry {info.filename!r} {reason}. Nothing of this archive is used.")
    # Entries that share bytes each expand by a harmless factor, and together without limit.
    if sum(info.compress_size for info in archive.infolist()) > archive.start_dir:
        raise DataError(f"{label}: its entries overlap. Nothing of this archive is used.")


def unpack(path: Path, label: str, folder: str, target: Path, progress: Progress) -> dict[str, float | str]:
    """Unpack one recording of a zip into the folder `target`; returns size and seconds.

    Raises:
        DataError: the zip is broken or hostile, two names differ only in case, or the disk is too full.
    """
    started, written = time.monotonic(), 0
    with open_archive(path, label) as archive:
        infos = archive.entries.get(folder, [])
        if clashes := clashing_names(_path(info).name for info in infos):
            raise DataError(f"{label} holds {' and '.join(clashes[:2])}: remove all but one, and zip the rest again.")
        total = sum(info.file_size for info in infos)
        check_space(target, total, target.name)
        try:
            for info in infos:
                with archive.zip.open(info) as stream, (target / taken_as(_path(info).name)).open("wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
                written += info.file_size
                progress(written, total)
        except _BROKEN as error:
            raise DataError(f"{label} cannot be unpacked ({error}): copy it again.") from error
    progress.log(f"{progress.label}: {total / 1e6:,.1f} MB unpacked")
    return {"unpacked_megabytes": total / 1e6, "unpack_s": time.monotonic() - started}
