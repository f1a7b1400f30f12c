"""Copying a recording into the data root: checked before it becomes visible, never over another, never half."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from drive_assets.recordings.archives import is_taken, open_archive
from drive_assets.recordings.sharepoint.downloads import Progress, check_space, download, locked, release
from drive_assets.recordings.sources import ORIGIN_FILE, Source, read_origin
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import fsync, fsync_folder, write_json
from model.recording.folder import RecordingReport, content_hash, inspect_recording

ABANDONED_S = 24 * 3600


@dataclass(frozen=True)
class IngestReport:
    """What became of a recording's source."""

    content: RecordingReport
    version: str
    """Hash of the content."""
    source: str
    change: str
    """new, unchanged, or superseded (the earlier version was moved aside)."""
    transfer: dict[str, float | str] = field(default_factory=dict)
    """Sizes, hash and seconds of the download and the copy or unpacking; empty if nothing had to be moved."""


def ingest(storage: Storage, source: Source, progress: Callable[[str], None] = lambda line: None) -> IngestReport:
    """Copy, unpack or download a recording into the data root. The source is only read.

    The copy is made under a temporary name, flushed, checked and renamed. An earlier version with other content is
    moved whole, with all that was derived from it, to `recordings/.superseded/<name>/<time>/`.

    Raises:
        DataError: the source is no recording that can be used, a zip is hostile, names clash, or the disk is too full.
        SharePointError: it is in SharePoint and cannot be downloaded.
    """
    storage.check_writable()
    storage.recordings.mkdir(parents=True, exist_ok=True)
    target = storage.recording(source.name)
    _refuse_other_case(storage, source.name)
    with locked(storage.recordings / ".locks" / source.name):
        _recover(storage, source.name)
        if Path(source.location) == target:
            return IngestReport(inspect_recording(target), content_hash(target), "the data root", "unchanged")
        if _is_there(target, source):
            return IngestReport(inspect_recording(target), content_hash(target), source.location, "unchanged")
        incoming = storage.recordings / ".incoming" / f"{source.name}.{os.getpid()}"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        try:
            if source.remote is not None:
                transfer = _download(storage, source, incoming, progress)
            elif source.member is None:
                transfer = _copy_folder(source, incoming, progress)
            else:
                transfer = _unpack(Path(source.location), source, incoming, progress)
            report, version = _inspect(storage, source, incoming)
            write_json(incoming / ORIGIN_FILE, {**source.to_dict(), "version": version})
            fsync_folder(incoming)
            change = _publish(storage, incoming, target, version)
            if source.remote is not None:
                release(storage, source)
        except OSError as error:
            raise DataError(f"{source.location} cannot be copied to {incoming}: {error}.") from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return IngestReport(report, version, source.location, change, transfer)


def _is_there(target: Path, source: Source) -> bool:
    """Whether just this content of this item of SharePoint is what the recording holds."""
    if source.remote is None or not target.is_dir():
        return False
    made_from = read_origin(target / ORIGIN_FILE)
    return made_from is not None and made_from[0] == source and made_from[1] == content_hash(target)


def _publish(storage: Storage, incoming: Path, target: Path, version: str) -> str:
    if not target.exists():
        incoming.rename(target)
        fsync(target.parent)
        return "new"
    if content_hash(target) == version:
        (incoming / ORIGIN_FILE).replace(target / ORIGIN_FILE)
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


def _copy_folder(source: Source, target: Path, tell: Callable[[str], None]) -> dict[str, float | str]:
    started = time.monotonic()
    files = sorted(
        p for p in Path(source.location).iterdir() if is_taken(p.name) and p.is_file() and not p.is_symlink()
    )
    total, done = sum(path.stat().st_size for path in files), 0
    check_space(target, total, source.name)
    progress = Progress(source.name, total, tell)
    for path in files:
        shutil.copyfile(path, target / path.name)
        done += path.stat().st_size
        progress(done)
    return {"copied_megabytes": total / 1e6, "copy_s": time.monotonic() - started}


def _unpack(path: Path, source: Source, target: Path, tell: Callable[[str], None]) -> dict[str, float | str]:
    started = time.monotonic()
    with open_archive(path, source.location) as archive:
        total = sum(size for _, size in archive.files(source.member or ""))
        check_space(target, total, source.name)
        progress = Progress(f"{source.name}: unpacking", total, tell)
        archive.unpack(source.member or "", target, lambda files, size: progress(size))
    tell(f"{source.name}: {total / 1e6:,.1f} MB unpacked")
    return {"unpacked_megabytes": total / 1e6, "unpack_s": time.monotonic() - started}


def _download(storage: Storage, source: Source, target: Path, tell: Callable[[str], None]) -> dict[str, float | str]:
    got = download(storage, source, tell)
    speed = got.bytes / 1e6 / max(got.seconds, 1e-9)
    tell(f"{source.name}: {got.bytes / 1e6:,.1f} MB downloaded in {got.seconds:.1f} s, {speed:.1f} MB/s")
    transfer: dict[str, float | str] = {
        "downloaded_megabytes": got.bytes / 1e6,
        "download_s": got.seconds,
        "fingerprint" if source.member is None else "quick_xor_hash": got.content,
    }
    if source.member is not None:
        return transfer | _unpack(got.path, source, target, tell)
    for name in got.files:
        # Linked, not moved: a run that is killed before the recording is published finds its download again.
        os.link(got.path / name, target / name)
    return transfer


def _inspect(storage: Storage, source: Source, folder: Path) -> tuple[RecordingReport, str]:
    try:
        return inspect_recording(folder), content_hash(folder)
    except DataError as error:
        if source.remote is not None:
            release(storage, source)
        # The user looks for the fault where the recording came from: the copy is gone by then.
        place = source.location if source.member is None else f"{source.location}, {source.member or 'top'}"
        raise DataError(str(error).replace(str(folder), place)) from error


def _refuse_other_case(storage: Storage, name: str) -> None:
    clash = [p.name for p in storage.recordings.iterdir() if p.name.lower() == name.lower() and p.name != name]
    if clash:
        raise DataError(f"Recording {name} differs from {clash[0]} only in case: rename one.")
