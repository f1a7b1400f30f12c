"""Downloads from SharePoint into a cache that survives retries, so that a cut one is gone on with."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.archives import is_taken, listing, open_archive
from drive_assets.recordings.disk import Progress, check_space
from drive_assets.recordings.sharepoint.library import connect, version_of
from drive_assets.recordings.sources import missing
from drive_assets.resources.sharepoint.settings import SharePointSettings
from drive_assets.resources.storage import Storage
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import locked
from model.common.progress import Tell

if TYPE_CHECKING:
    from drive_assets.recordings.sharepoint.source import SharePointSource

ABANDONED_S = 7 * 24 * 3600
"""A download that nobody went on with for this long is removed."""


@dataclass(frozen=True)
class Download:
    """What was downloaded for a recording."""

    path: Path
    """A folder with just the recording's files, or a zip."""
    files: list[str]
    bytes: int
    """Size of all, of which some may have been there from an earlier try."""
    seconds: float
    content: str
    """quickXorHash of a zip (base64), or fingerprint of the hashes of a folder's files."""


def download(storage: Storage, source: "SharePointSource", tell: Tell) -> Download:
    """Download a recording's folder or zip. Several recordings of one zip share its one download.

    Raises:
        DataError: the item is gone or changed since it was requested, or the disk is too full; SharePointError: the
            service failed. What is there already stays for the next try.
    """
    cache = _folder(storage, source)
    _remove_abandoned(cache.parent)
    with locked(cache.parent / ".locks" / cache.name):
        cache.mkdir(parents=True, exist_ok=True)
        return (_download_folder if source.member is None else _download_zip)(cache, source, tell)


def release(storage: Storage, source: "SharePointSource") -> None:
    """Say that `source` needs its download no more; it is removed once that is so for all recordings that share it."""
    cache = _folder(storage, source)
    with locked(cache.parent / ".locks" / cache.name):
        sharing: list[str] = []
        for path in cache.glob("*.zip"):
            with open_archive(path, source.location) as archive:
                sharing += filter(is_recording_name, archive.recordings())
        if cache.is_dir():
            (cache / f"{source.name}.done").touch()
        if all((cache / f"{name}.done").is_file() for name in sharing):
            shutil.rmtree(cache, ignore_errors=True)


def _remove_hostile(path: Path, label: str) -> None:
    """Raises DataError if a zip is broken or hostile; then it is removed."""
    try:
        with open_archive(path, label) as archive:
            archive.recordings()
    except DataError:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise


def _download_folder(cache: Path, source: "SharePointSource", tell: Tell) -> Download:
    client, settings = connect(), SharePointSettings.from_environment()
    started = time.monotonic()
    everything = client.children(source.drive, source.item)
    items = sorted((i for i in everything if not i.is_folder and is_taken(i.name)), key=lambda item: item.name)
    names = [item.name for item in items]
    wrong = sorted(name for name in names if "/" in name or "\\" in name)
    if wrong or len({name.lower() for name in names}) < len(names):
        raise DataError(f"{source.location} holds names that cannot be files here, or differ only in case: {wrong}.")
    if missing(names):
        raise DataError(f"{source.location} lacks {missing(names)} by now: it is taken anew once it is complete.")
    _refuse_changed(source, listing([(item.name, item.size) for item in items]))
    total = sum(item.size for item in items)
    there = sum((cache / item.name).stat().st_size for item in items if (cache / item.name).is_file())
    check_space(cache, total - there, source.name)
    progress = Progress(source.name, tell)
    items = client.download_all(
        source.drive,
        [(item, cache / item.name) for item in items],
        settings.workers if settings else 1,
        lambda files, size: progress(size, total),
    )
    _refuse_changed(source, listing([(item.name, item.size) for item in items]))
    content = fingerprint(sorted(version_of(item) for item in items))
    return Download(cache, names, total, time.monotonic() - started, content)


def _download_zip(cache: Path, source: "SharePointSource", tell: Tell) -> Download:
    client, started = connect(), time.monotonic()
    item = client.item(source.drive, source.item)
    _refuse_changed(source, listing_of_zip(item.size))
    # The name says which content it is, so that a changed zip is not continued where the earlier one was cut.
    path = cache / f"{fingerprint(item.identity)}.zip"
    for left in cache.glob("*.zip*"):
        if not left.name.startswith(path.name):
            left.unlink()
    if not path.is_file():
        partial = path.with_name(f"{path.name}.partial")
        there = partial.stat().st_size if partial.is_file() else 0
        # JPEGs do not shrink in a zip: what is unpacked is as large again.
        check_space(cache, 2 * item.size - there, source.name)
        progress = Progress(source.name, tell)
        made = client.download(source.drive, item, path, lambda done: progress(done, item.size))
        if made.identity != item.identity:
            path.unlink()
            _refuse_changed(source, "")
    _remove_hostile(path, source.location)
    return Download(path, [path.name], item.size, time.monotonic() - started, item.quick_xor_hash or item.identity)


def listing_of_zip(size: int) -> str:
    """The `sizes` of a zip of `size` bytes."""
    return str(size)


def _refuse_changed(source: "SharePointSource", sizes: str) -> None:
    if sizes != source.sizes:
        raise DataError(
            f"{source.location} changed since it was requested: the SharePoint sensor requests it anew once it is "
            "settled. Switch the sensor on if it is off."
        )


def _folder(storage: Storage, source: "SharePointSource") -> Path:
    return storage.cache / "downloads" / quote(source.item, safe="!")


def _remove_abandoned(downloads: Path) -> None:
    for folder in downloads.glob("[!.]*"):
        newest = max((path.stat().st_mtime for path in (folder, *folder.iterdir())), default=0.0)
        if time.time() - newest > ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)
