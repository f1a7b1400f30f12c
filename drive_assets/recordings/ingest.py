"""Copying a recording into the data root: checked before it becomes visible, never over another, never half."""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.sources import Source, Transfer, read_origin, to_dict
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import fsync, fsync_folder, locked, write_json
from model.common.progress import Tell
from model.recording.folder import ORIGIN, RecordingReport, content_hash, inspect_recording
from model.recording.telemetry import ReadingConfig

_DEFAULT = ReadingConfig()


@dataclass(frozen=True)
class IngestReport:
    """What became of a recording's source."""

    content: RecordingReport
    version: str
    """Hash of the content."""
    source: str
    change: str
    """new, unchanged, or superseded (the earlier version was moved aside)."""
    transfer: Transfer = field(default_factory=dict)
    """Sizes, hash and seconds of the download and the copy or unpacking; empty if nothing had to be moved."""


def ingest(
    storage: Storage,
    source: Source,
    tell: Tell = lambda line: None,
    config: ReadingConfig = _DEFAULT,
) -> IngestReport:
    """Take a recording into the data root. The source is only read.

    The copy is made under a temporary name, flushed, checked and renamed. An earlier version with other content is
    moved whole, with all that was derived from it, to `recordings/.superseded/<name>/<time>/`.

    Raises:
        DataError: the source is no recording that can be used, a zip is hostile, names clash, or the disk is too full;
            PassingError: the same may succeed later.
    """
    storage.check_writable()
    storage.recordings.mkdir(parents=True, exist_ok=True)
    target = storage.recording(source.name)
    _refuse_other_case(storage, source.name)
    with locked(_lock(storage, source.name)):
        _recover(storage, source.name)
        if Path(source.location) == target:
            return IngestReport(*_look(target, config), "the data root", "unchanged")
        if _is_there(target, source):
            return IngestReport(*_look(target, config), source.location, "unchanged")
        incoming = storage.recordings / ".incoming" / f"{source.name}.{os.getpid()}"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        try:
            transfer = source.fetch(storage, incoming, tell)
            report, version = _inspect(storage, source, incoming, config)
            write_json(incoming / ORIGIN, {**to_dict(source), "version": version})
            fsync_folder(incoming)
            change = _publish(storage, incoming, target, version)
            source.release(storage)
        except OSError as error:
            raise DataError(f"{source.location} cannot be copied to {incoming}: {error}.") from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return IngestReport(report, version, source.location, change, transfer)


def _is_there(target: Path, source: Source) -> bool:
    """Whether just this content of this source is what the recording holds, as far as that shows without reading it."""
    if not source.identity or not target.is_dir():
        return False
    made_from = read_origin(target / ORIGIN)
    return made_from is not None and made_from[0] == source and made_from[1] == content_hash(target)


def _publish(storage: Storage, incoming: Path, target: Path, version: str) -> str:
    if not target.exists():
        incoming.rename(target)
        fsync(target.parent)
        return "new"
    if content_hash(target) == version:
        (incoming / ORIGIN).replace(target / ORIGIN)
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
    """Finish what a crash cut, and remove what it left. The caller holds the recording's lock.

    A replacement may be cut between moving the old version aside and the new one in.
    """
    ready, target = storage.recordings / ".incoming" / f"{name}.ready", storage.recording(name)
    if ready.exists() and not target.exists():
        ready.rename(target)
    for left in (storage.recordings / ".incoming").glob(f"{name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def sweep(storage: Storage) -> None:
    """Remove what killed processes left of recordings that nobody takes now."""
    for name in {left.name.rpartition(".")[0] for left in (storage.recordings / ".incoming").glob("*.*")}:
        if is_recording_name(name):
            with contextlib.suppress(DataError), locked(_lock(storage, name), wait_s=0):
                _recover(storage, name)


def _lock(storage: Storage, name: str) -> Path:
    return storage.recordings / ".locks" / name


def _look(folder: Path, config: ReadingConfig) -> tuple[RecordingReport, str]:
    return inspect_recording(folder, most_unreadable=config.most_unreadable), content_hash(folder)


def _inspect(storage: Storage, source: Source, folder: Path, config: ReadingConfig) -> tuple[RecordingReport, str]:
    try:
        return _look(folder, config)
    except DataError as error:
        source.release(storage)
        # The user looks for the fault where the recording came from: the copy is gone by then.
        raise DataError(str(error).replace(str(folder), source.location)) from error


def _refuse_other_case(storage: Storage, name: str) -> None:
    clash = [p.name for p in storage.recordings.iterdir() if p.name.lower() == name.lower() and p.name != name]
    if clash:
        raise DataError(f"Recording {name} differs from {clash[0]} only in case: rename one.")
