"""Copying a recording into the data root: verified before it becomes visible, never over another one, never partly."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from drive_assets.recordings.source import Source, Transfer
from drive_assets.recordings.sources import read_origin, register, to_dict
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import fsync, fsync_folder, locked, temporary_folder, write_json
from model.common.progress import Log
from model.recording.content import content_hash
from model.recording.dialect import ReadingConfig
from model.recording.folder import ORIGIN, READING, Recording, RecordingReport, inspect_recording

_DEFAULT = ReadingConfig()
REREAD = "reread"


@dataclass(frozen=True)
class IngestReport:
    """The result of an ingestion."""

    content: RecordingReport
    version: str
    """Hash of the content."""
    source: str
    change: str
    """new, unchanged, reread (with other options), or superseded (the earlier version was moved aside)."""
    transfer: Transfer = field(default_factory=dict)
    """Sizes, hash and seconds of the download and the copy or unpacking; empty if nothing was transferred."""


def ingest(
    storage: Storage,
    source: Source,
    log: Log = lambda line: None,
    config: ReadingConfig = _DEFAULT,
) -> IngestReport:
    """Copy a recording into the data root. The source is only read.

    The copy is made under a temporary name, flushed, checked and renamed. An earlier version with other content is
    moved, with all that was derived from it, to `recordings/.superseded/<name>/<time>/`.

    Raises:
        DataError: the source is no usable recording, a zip is hostile, the name is in use, or the disk is too full;
            PassingError: a retry may succeed.
    """
    storage.check_writable()
    target = storage.recording(source.name)
    waiting = f"{source.name} is being ingested by {{holder}}: waiting for that to end."
    with locked(lock_of(storage, source.name), 0.0, waiting, log):
        _end_move(storage, target)
        in_place = Path(source.location).resolve() == target.resolve()
        if in_place or _is_there(target, source):
            return _reread(target, source, config, in_place)
        try:
            with temporary_folder(storage.recordings / ".incoming" / source.name) as incoming:
                transfer = source.fetch(storage, incoming, log)
                report, version = _verify(storage, source, incoming, config)
                write_json(incoming / ORIGIN, {**to_dict(source), "version": version})
                fsync_folder(incoming)
                change = _publish(storage, incoming, target, version)
                _end_move(storage, target)
                source.release(storage)
        except OSError as error:
            raise DataError(f"{source.location} cannot be copied to {storage.recordings}: {error}.") from error
    return IngestReport(report, version, source.location, change, transfer)


def _is_there(target: Path, source: Source) -> bool:
    """Whether the recording holds this content of this source, as far as its identity shows."""
    if not source.identity or not target.is_dir():
        return False
    made_from = read_origin(target / ORIGIN)
    return made_from is not None and made_from[0] == source and made_from[1] == content_hash(target)


def _reread(target: Path, source: Source, config: ReadingConfig, in_place: bool) -> IngestReport:
    """The report of a recording that is there already, from now on read with the options of `config`."""
    before = content_hash(target) if config.declared() else ""
    Recording(target).keep_reading(config)
    report, version = _inspect(target, config)
    change = REREAD if before not in ("", version) else "unchanged"
    if change == REREAD and not in_place:
        write_json(target / ORIGIN, {**to_dict(source), "version": version})
    return IngestReport(report, version, "the data root" if in_place else source.location, change)


def _verify(storage: Storage, source: Source, incoming: Path, config: ReadingConfig) -> tuple[RecordingReport, str]:
    """Inspect a copy. It is read by `config`, else by the source's own file, else as the recording was read so far."""
    try:
        if not (incoming / READING).is_file():
            Recording(incoming).keep_reading(Recording(storage.recording(source.name)).reading())
        Recording(incoming).keep_reading(config)
        report, version = _inspect(incoming, config)
        _refuse_other_origin(storage, source, incoming, version)
    except DataError as error:
        source.release(storage)
        # The error names the source: the copy is removed.
        raise DataError(str(error).replace(str(incoming), source.location)) from error
    return report, version


def _publish(storage: Storage, incoming: Path, target: Path, version: str) -> str:
    if not target.exists():
        incoming.rename(target)
        fsync(target.parent)
        return "new"
    if content_hash(target, incoming / READING) == version:
        change = "unchanged" if content_hash(target) == version else REREAD
        (target / READING).unlink(missing_ok=True)
        Recording(target).keep_reading(Recording(incoming).reading())
        (incoming / ORIGIN).replace(target / ORIGIN)
        return change
    moving = _moving(storage, target)
    moving.parent.mkdir(parents=True, exist_ok=True)
    target.rename(moving)
    incoming.rename(target)
    fsync(target.parent)
    return "superseded"


def _moving(storage: Storage, target: Path) -> Path:
    """Where an earlier version is until the new one is in its place."""
    return storage.recordings / ".superseded" / target.name / "moving"


def _end_move(storage: Storage, target: Path) -> None:
    """Give an earlier version its final place; put it back if a kill came before the new one was in its place."""
    moving = _moving(storage, target)
    if moving.is_dir():
        final = moving.with_name(time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime()))
        moving.rename(final if target.is_dir() else target)


def lock_of(storage: Storage, name: str) -> Path:
    """The lock file that a process holds while it changes a recording's folder."""
    return storage.recordings / ".locks" / name


def _inspect(folder: Path, config: ReadingConfig) -> tuple[RecordingReport, str]:
    return inspect_recording(folder, most_unreadable=config.most_unreadable), content_hash(folder)


def _refuse_other_origin(storage: Storage, source: Source, incoming: Path, version: str) -> None:
    """Raises DataError if the recording has other content from another existing source, such as another car."""
    target = storage.recording(source.name)
    earlier, _ = read_origin(target / ORIGIN) or (None, "")
    if earlier is None or earlier.place == source.place or earlier.is_gone(storage):
        return
    if content_hash(target, incoming / READING) != version:
        register(storage, [earlier])
        raise DataError(
            f"{source.name} exists already from {earlier.location} with other content than {source.location}. "
            f"Rename one if they are two drives; run `drive-assets forget {source.name}` first to replace it."
        )
