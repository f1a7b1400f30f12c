"""A folder or zip of a SharePoint library as a source of recordings, downloaded into a cache that survives retries."""

import os
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.archives import open_archive, unpack
from drive_assets.recordings.disk import Progress, check_space
from drive_assets.recordings.files import clashing_names, is_taken, listing, missing_files, taken_as
from drive_assets.recordings.sharepoint.known import read_known
from drive_assets.recordings.sharepoint.library import connect, read_settings
from drive_assets.recordings.source import Source, Transfer
from drive_assets.resources.sharepoint.errors import NotFound
from drive_assets.resources.storage import Storage
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import locked
from model.common.progress import Log

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

ABANDONED_S = 7 * 24 * 3600
"""Downloads that have not changed for this long are removed."""
PATIENCE_S = 10.0
"""The longest wait for SharePoint's answer whether an item exists."""


@dataclass(frozen=True)
class SharePointSource(Source):
    """An item of a library. Holds no download address, which would be a secret."""

    kind: ClassVar[str] = "sharepoint"
    member: str | None
    """Folder in the zip that holds the files, empty for its top; None if the item is a folder."""
    drive: str
    item: str
    sizes: str
    """Identity of the content by names and sizes alone, which Graph always reports."""

    @property
    def place(self) -> str:
        return f"{self.drive}/{self.item}"

    def fetch(self, storage: Storage, target: Path, log: Log) -> Transfer:
        settings, started = read_settings(), time.monotonic()
        client, cache = connect(settings), self._cache(storage)
        _remove_abandoned(cache.parent)
        with self._locked(storage):
            cache.mkdir(parents=True, exist_ok=True)
            if self.member is None:
                size = self._download_folder(client, cache, settings.workers, log)
                for file in filter(lambda file: is_taken(file.name), cache.iterdir()):
                    os.link(file, target / taken_as(file.name))  # not moved: a try after a kill downloads nothing twice
            else:
                path, size = self._download_zip(client, cache, log)
        transfer: Transfer = {"downloaded_megabytes": size / 1e6, "download_s": time.monotonic() - started}
        log(f"{self.name}: {size / 1e6:,.1f} MB downloaded in {transfer['download_s']:.1f} s")
        if self.member is None:
            return transfer
        return transfer | unpack(path, self.location, self.member, target, Progress(self.name, log))

    def release(self, storage: Storage) -> None:
        """Recordings of one zip share its download, which goes with the last of them."""
        cache = self._cache(storage)
        with self._locked(storage):
            sharing: list[str] = []
            for path in cache.glob("*.zip"):
                with open_archive(path, self.location) as archive:
                    sharing += filter(is_recording_name, archive.recordings())
            if cache.is_dir():
                (cache / f"{self.name}.done").touch()
            if all((cache / f"{name}.done").is_file() for name in sharing):
                shutil.rmtree(cache, ignore_errors=True)

    def is_gone(self, storage: Storage) -> bool:
        known = read_known(storage)
        if known is None or not known.is_complete or known.place.drive != self.drive or self.item in known.entries:
            return False
        try:  # it may be outside the watched folder
            connect(read_settings(), patience_s=PATIENCE_S).item(self.drive, self.item)
        except NotFound:
            return True
        except DataError:  # without an answer it counts as there
            return False
        return False

    def _download_folder(self, client: "GraphClient", cache: Path, workers: int, log: Log) -> int:
        """Download a folder's files into `cache`; returns their bytes."""
        everything = client.children(self.drive, self.item)
        items = sorted((i for i in everything if not i.is_folder and is_taken(i.name)), key=lambda item: item.name)
        names = [item.name for item in items]
        wrong = {name for name in names if "/" in name or "\\" in name}.union(clashing_names(names))
        if wrong:
            raise DataError(f"{self.location} has names that cannot be files, or differ only in case: {sorted(wrong)}.")
        files = [(item.name, item.size) for item in items]
        if missing := missing_files(files):
            raise DataError(f"{self.location} now lacks {missing}: the sensor waits until it is complete.")
        self._require_unchanged(listing(files))
        for path in cache.iterdir():
            if is_taken(path.name) and path.name not in names:
                path.unlink()  # of an earlier version
        size, progress = sum(item.size for item in items), Progress(self.name, log)
        check_space(cache, size - sum(path.stat().st_size for path in cache.iterdir()), self.name)
        targets = [(item, cache / item.name) for item in items]
        items = client.download_all(self.drive, targets, workers, lambda done: progress(done, size))
        self._require_unchanged(listing([(item.name, item.size) for item in items]))
        return size

    def _download_zip(self, client: "GraphClient", cache: Path, log: Log) -> tuple[Path, int]:
        """Returns the zip and its bytes."""
        item = client.item(self.drive, self.item)
        self._require_unchanged(listing_of_zip(item.size))
        # The name identifies the content, so that a download of an earlier version is not continued.
        path = cache / f"{fingerprint(item.identity)}.zip"
        for outdated in cache.glob("*.zip*"):
            if not outdated.name.startswith(path.name):
                outdated.unlink()
        if not path.is_file():
            # JPEGs do not shrink in a zip: what is unpacked needs the same space again.
            check_space(cache, 2 * item.size - sum(part.stat().st_size for part in cache.glob("*.partial")), self.name)
            progress = Progress(self.name, log)
            now = client.download(self.drive, item, path, lambda done: progress(done, item.size))
            if now.identity != item.identity:
                path.unlink()
                self._require_unchanged("")
        try:
            with open_archive(path, self.location) as archive:
                archive.recordings()
        except DataError:
            shutil.rmtree(cache, ignore_errors=True)
            raise
        return path, item.size

    def _require_unchanged(self, sizes: str) -> None:
        if sizes != self.sizes:
            raise DataError(
                f"{self.location} changed since it was requested: the SharePoint sensor, if it is on, requests it "
                "again once it is settled."
            )

    def _cache(self, storage: Storage) -> Path:
        return storage.cache / "downloads" / quote(self.item, safe="!")

    def _locked(self, storage: Storage) -> AbstractContextManager[None]:
        cache = self._cache(storage)
        return locked(cache.parent / ".locks" / cache.name)


def listing_of_zip(size: int) -> str:
    """The `sizes` of a zip of `size` bytes."""
    return str(size)


def _remove_abandoned(downloads: Path) -> None:
    for folder in downloads.glob("[!.]*"):
        newest = max((path.stat().st_mtime for path in (folder, *folder.iterdir())), default=0.0)
        if time.time() - newest > ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)
