"""Copying a recording into the data root: checked before it becomes visible, never over another, never half."""

import fcntl
import os
import shutil
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drive_assets.recordings.sources import Source, open_zip
from drive_assets.resources.storage import Storage
from model.annotation_config import ROI_FILE
from model.errors import DataError
from model.files import fsync
from model.recording import TELEMETRY, RecordingReport, content_hash, inspect_recording

COPIED = (TELEMETRY, ROI_FILE, "true_annotations.csv")
"""Besides the frames. What is derived from a recording is not taken over."""
SPARE_BYTES = 200 * 1024 * 1024
LARGEST_FILE = 512 * 1024 * 1024
LARGEST_EXPANSION = 200
ABANDONED_S = 24 * 3600
PROGRESS_S = 5.0


@dataclass(frozen=True)
class IngestReport:
    """What became of a recording's source."""

    content: RecordingReport
    version: str
    """Hash of the content."""
    source: str
    change: str
    """new, unchanged, or superseded (the earlier version was moved aside)."""


def ingest(storage: Storage, source: Source, progress: Callable[[str], None] = lambda line: None) -> IngestReport:
    """Copy a recording into the data root. The source is only read.

    The copy is made under a temporary name, flushed, checked and renamed. An earlier version with other content is
    moved whole, with all that was derived from it, to `recordings/.superseded/<name>/<time>/`.

    Raises:
        DataError: the source is no recording that can be used, a zip is hostile, names clash, or the disk is too full.
    """
    storage.check_writable()
    storage.recordings.mkdir(parents=True, exist_ok=True)
    target = storage.recording(source.name)
    _refuse_other_case(storage, source.name)
    with _locked(storage.recordings / ".locks" / source.name):
        _recover(storage, source.name)
        if Path(source.location) == target:
            return IngestReport(inspect_recording(target), content_hash(target), "the data root", "unchanged")
        incoming = storage.recordings / ".incoming" / f"{source.name}.{os.getpid()}"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        try:
            (_copy_folder if source.member is None else _unpack)(source, incoming, progress)
            report, version = inspect_recording(incoming), content_hash(incoming)
            fsync(incoming)
            change = _publish(storage, incoming, target, version)
        except OSError as error:
            raise DataError(f"{source.location} cannot be copied to {incoming}: {error}.") from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return IngestReport(report, version, source.location, change)


def _publish(storage: Storage, incoming: Path, target: Path, version: str) -> str:
    if not target.exists():
        incoming.rename(target)
        fsync(target.parent)
        return "new"
    if content_hash(target) == version:
        return "unchanged"
    aside = storage.recordings / ".superseded" / target.name / time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    aside.parent.mkdir(parents=True, exist_ok=True)
    ready = storage.recordings / ".incoming" / f"{target.name}.ready"
    incoming.rename(ready)
    target.rename(aside)
    ready.rename(target)
    fsync(target.parent)
    return "superseded"


def _recover(storage: Storage, name: str) -> None:
    """Finish a replacement that a crash cut between moving the old version aside and the new one in."""
    ready, target = storage.recordings / ".incoming" / f"{name}.ready", storage.recording(name)
    if ready.exists() and not target.exists():
        ready.rename(target)
    shutil.rmtree(ready, ignore_errors=True)
    for left in (storage.recordings / ".incoming").glob(f"{name}.*"):
        if time.time() - left.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)


def _wanted(name: str) -> bool:
    return name in COPIED or name.lower().endswith(".jpg")


def _copy_folder(source: Source, target: Path, progress: Callable[[str], None]) -> None:
    files = sorted(p for p in Path(source.location).iterdir() if _wanted(p.name) and p.is_file() and not p.is_symlink())
    _check_space(target, sum(path.stat().st_size for path in files), source.name)
    told = time.monotonic()
    for number, path in enumerate(files, 1):
        shutil.copyfile(path, target / path.name)
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            progress(f"{source.name}: {number} of {len(files)} files")


def _unpack(source: Source, target: Path, progress: Callable[[str], None]) -> None:
    with open_zip(Path(source.location)) as archive:
        infos = archive.infolist()
        for info in infos:
            _refuse_hostile(source.location, info)
        prefix = PurePosixPath(source.member or ".")
        chosen = [i for i in infos if not i.is_dir() and PurePosixPath(i.filename).parent == prefix]
        chosen = [i for i in chosen if _wanted(PurePosixPath(i.filename).name)]
        names = [PurePosixPath(i.filename).name.lower() for i in chosen]
        if len(set(names)) < len(names):
            raise DataError(
                f"{source.location} holds files whose names differ only in case, or not at all: mend the zip."
            )
        _check_space(target, sum(info.file_size for info in chosen), source.name)
        try:
            for info in chosen:
                with archive.open(info) as stream, (target / PurePosixPath(info.filename).name).open("wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
        except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{source.location} cannot be unpacked ({error}): copy it again.") from error
    progress(f"{source.name}: {len(chosen)} files unpacked")


def _refuse_hostile(archive: str, info: zipfile.ZipInfo) -> None:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    mode = info.external_attr >> 16
    reason = ""
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        reason = "leads out of the archive"
    elif mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
        reason = "is a link or a device"
    elif info.file_size > LARGEST_FILE or info.file_size > LARGEST_EXPANSION * max(info.compress_size, 1024):
        reason = "expands to an absurd size"
    if reason:
        raise DataError(f"{archive}: entry {info.filename!r} {reason}. Nothing of this archive was kept.")


def _check_space(target: Path, wanted: int, name: str) -> None:
    free = shutil.disk_usage(target).free
    if free < wanted + SPARE_BYTES:
        raise DataError(
            f"{name} needs {wanted / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free at {target}: free some, or choose "
            "another data root with DRIVE_ASSETS_DATA."
        )


def _refuse_other_case(storage: Storage, name: str) -> None:
    clash = [p.name for p in storage.recordings.iterdir() if p.name.lower() == name.lower() and p.name != name]
    if clash:
        raise DataError(f"Recording {name} differs from {clash[0]} only in case: rename one.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time for a recording. The system frees the lock when its holder ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
