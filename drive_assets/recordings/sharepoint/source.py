"""A folder or zip of a SharePoint library as a source of recordings."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from drive_assets.recordings.archives import taken_as, unpack
from drive_assets.recordings.disk import Progress
from drive_assets.recordings.sharepoint.downloads import download, release
from drive_assets.recordings.sharepoint.drive_map import open_map
from drive_assets.recordings.sharepoint.library import is_passing
from drive_assets.recordings.sources import Transfer
from drive_assets.resources.sharepoint.items import SharePointError
from drive_assets.resources.storage import Storage
from model.common.errors import PassingError
from model.common.progress import Tell


@dataclass(frozen=True)
class SharePointSource:
    """An item of a library: never an address to download it from, which is a secret of some minutes."""

    kind: ClassVar[str] = "sharepoint"
    name: str
    location: str
    """`sharepoint:` and the item's path in the library."""
    member: str | None
    """Folder in the zip that holds the files, empty for its top; None if the item is a folder."""
    drive: str
    item: str
    identity: str
    """Of the content that was seen there: hashes where there are some."""
    sizes: str
    """Of the same, by names and sizes alone, which are never missing."""

    @property
    def place(self) -> str:
        return f"{self.drive}/{self.item}"

    def fetch(self, storage: Storage, target: Path, tell: Tell) -> Transfer:
        try:
            got = download(storage, self, tell)
        except SharePointError as error:
            if is_passing(error):
                raise PassingError(str(error)) from error
            raise
        speed = got.bytes / 1e6 / max(got.seconds, 1e-9)
        tell(f"{self.name}: {got.bytes / 1e6:,.1f} MB downloaded in {got.seconds:.1f} s, {speed:.1f} MB/s")
        transfer: Transfer = {
            "downloaded_megabytes": got.bytes / 1e6,
            "download_s": got.seconds,
            "fingerprint" if self.member is None else "quick_xor_hash": got.content,
        }
        if self.member is not None:
            return transfer | unpack(got.path, self.location, self.member, target, Progress(self.name, tell))
        for name in got.files:
            # Linked, not moved: a run that is killed before the recording is published finds its download again.
            os.link(got.path / name, target / taken_as(name))
        return transfer

    def release(self, storage: Storage) -> None:
        release(storage, self)

    def is_gone(self, storage: Storage) -> bool:
        with open_map(storage) as known:
            return known.looks_at(self.drive) and not known.has(self.item)
