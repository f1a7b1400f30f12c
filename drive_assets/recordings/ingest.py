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
from model.common.files import fsync, fsync_folder, locked, locked_after, write_json
from model.common.progress import Tell
from model.recording.content import content_hash
from model.recording.dialect import ReadingConfig
from model.recording.folder import ORIGIN, READING, Recording, RecordingReport, inspect_recording

_DEFAULT = ReadingConfig()
READ_ANEW = "read anew"


@dataclass(frozen=True)
class IngestReport:
    """What became of a recording's source."""

    content: RecordingReport
    version: str
    """Hash of the content."""
    source: str
    change: str
    """new, unchanged, read anew (otherwise than before), or superseded (the earlier version was moved aside)."""
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
    waits = f"{source.name} is being taken by {{holder}}: waits until that has ended."
    with locked_after(lock_of(storage, source.name), tell, waits):
        _recover(storage, source.name)
        in_place = Path(source.location) == target
        if in_place or _is_there(target, source):
            return _read_again(target, source, config, in_place)
        incoming = storage.recordings / ".incoming" / f"{source.name}.{os.getpid()}"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        try:
            transfer = source.fetch(storage, incoming, tell)
            _decide_reading(incoming, target, config)
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


def _read_again(target: Path, source: Source, config: ReadingConfig, in_place: bool) -> IngestReport:
    """What is there, from now on read as the config says."""
    before = content_hash(target) if config.declared() else ""
    Recording(target).keep_reading(config)
    report, version = _look(target, config)
    change = READ_ANEW if before not in ("", version) else "unchanged"
    if change == READ_ANEW and not in_place:
        write_json(target / ORIGIN, {**to_dict(source), "version": version})
    return IngestReport(report, version, "the data root" if in_place else source.location, change)


def _decide_reading(incoming: Path, target: Path, config: ReadingConfig) -> None:
    """How the copy is read: as the config says, else as its source does, else as the recording was until now."""
    if not (incoming / READING).is_file():
        Recording(incoming).keep_reading(Recording(target).reading())
    Recording(incoming).keep_reading(config)


def _publish(storage: Storage, incoming: Path, target: Path, version: str) -> str:
    if not target.exists():
        incoming.rename(target)
        fsync(target.parent)
        return "new"
    if content_hash(target, incoming / READING) == version:
        change = "unchanged" if content_hash(target) == version else READ_ANEW
        (target / READING).unlink(missing_ok=True)
        Recording(target).keep_reading(Recording(incoming).reading())
        (incoming / ORIGIN).replace(target / ORIGIN)
        return change
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
            with contextlib.suppress(DataError), locked(lock_of(storage, name), wait_s=0):
                _recover(storage, name)


def lock_of(storage: Storage, name: str) -> Path:
    """The file that is locked while a recording's folder changes."""
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
