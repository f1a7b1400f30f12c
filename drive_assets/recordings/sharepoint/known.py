"""What the sensor knows of the watched folder: the folders and zips in it, and what was requested of them."""

from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.files import is_taken
from drive_assets.recordings.sharepoint.library import Place
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import explained_errors, write_text

AT_ONCE = 0.0
"""The time of a change that needs no settling."""


class Entry(BaseModel):
    """A folder or zip."""

    parent: str
    name: str = ""
    is_folder: bool = True
    changed: float | None = AT_ONCE
    """When the sensor saw its last change, in seconds since 1970; None once nothing is to be done until the next."""
    version: str = ""
    """Of the content: of a zip, as listed; of a folder, as last requested."""
    requested: list[str] = []
    """Recordings of this version that were requested."""
    number: int = 0
    """Versions requested before this one, so that content that returns is requested again."""
    notes: list[tuple[str, str]] = []
    """What each tick reports until the next change: kind and text."""

    def set_changed(self, now: float) -> None:
        """A recording settles first; any other folder is listed at once, for the recordings in it."""
        self.changed = now if is_recording_name(self.name) or not self.is_folder else AT_ONCE
        self.notes = []

    def set_version(self, version: str) -> None:
        if version != self.version:
            self.number += bool(self.requested)
            self.version, self.requested = version, []


class Known(BaseModel):
    """The watched folder and, by id, all folders and zips in it, itself included."""

    settings: str
    """`settings_key` of the settings that name the folder."""
    place: Place
    entries: dict[str, Entry]
    link: str | None = None
    """Graph's link to later changes."""
    written: str = ""
    """Identifies the tick that wrote this. Dagster's cursor names the last tick that counts."""

    @property
    def is_complete(self) -> bool:
        """Whether the watched folder was found, and all folders in it are listed."""
        return bool(self.entries) and all(entry.changed != AT_ONCE for entry in self.entries.values())

    def path(self, item: str) -> str:
        """Path in the watched folder."""
        names: list[str] = []
        # What moved out has a parent that is not known; changes that are half read may form a circle.
        while item in self.entries and item != self.place.folder and len(names) < len(self.entries):
            names.append(self.entries[item].name)
            item = self.entries[item].parent
        return "/".join(reversed(names))

    def see_change(self, item: Item, now: float) -> None:
        """Note which folders an item of the list of changes affects: that which holds it and that which held it."""
        entry = self.entries.get(item.id)
        if not (entry or item.deleted or item.is_folder or item.is_zip or is_taken(item.name)):
            return
        affected = {item.parent_id or "", entry.parent if entry else ""}
        if entry is not None and item.parent_id and item.id != self.place.folder:
            entry.parent = item.parent_id
        for folder in affected & self.entries.keys():
            self.entries[folder].set_changed(now)

    def see_all_change(self, now: float) -> None:
        """Have all folders listed again."""
        for entry in self.entries.values():
            if entry.is_folder and entry.changed is None:
                entry.set_changed(now)

    def update(self, folder: str, items: list[Item], now: float) -> tuple[list[str], list[str]]:
        """Compare with the items in a folder.

        Returns:
            Ids of the folders and zips in it that are new or changed; names of requested recordings that are gone.
        """
        changed: list[str] = []
        listed = {item.id: item for item in items if item.is_folder or item.is_zip}
        inside = [id_ for id_, entry in self.entries.items() if entry.parent == folder and id_ != folder]
        gone = [name for id_ in inside if id_ not in listed for name in self.remove(id_)]
        for item in listed.values():
            entry = self.entries.setdefault(item.id, Entry(parent=folder, is_folder=item.is_folder))
            entry.parent = folder
            if entry.name != item.name or (item.is_zip and entry.version != item.version):
                entry.name = item.name
                entry.set_version(item.version if item.is_zip else entry.version)
                entry.set_changed(now)
                changed.append(item.id)
        return changed, gone

    def remove_orphans(self) -> list[str]:
        """Remove what moved out of the watched folder; returns names of requested recordings in it."""
        orphans = [id_ for id_, entry in self.entries.items() if entry.parent not in self.entries]
        return [name for id_ in orphans for name in self.remove(id_)]

    def remove(self, item: str) -> list[str]:
        """Remove a folder or zip with all in it; returns the recordings that were requested of it."""
        names = self.entries.pop(item).requested
        for inside in [id_ for id_, entry in self.entries.items() if entry.parent == item]:
            names += self.remove(inside)
        return names

    def write(self, storage: Storage) -> None:
        self.written = uuid4().hex
        write_text(_file(storage), self.model_dump_json())


def read_known(storage: Storage) -> Known | None:
    """None before the first tick.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    path = _file(storage)
    if not path.is_file():
        return None
    with explained_errors(path, "read"):
        content = path.read_bytes()
    try:
        return Known.model_validate_json(content)
    except ValueError as error:
        raise DataError(f"{path} is damaged: remove it, and the sensor lists the library again.") from error


def full_listing_request(storage: Storage) -> Path:
    """A file that asks the sensor to list everything."""
    return storage.root / "sharepoint" / "list_everything"


def _file(storage: Storage) -> Path:
    return storage.root / "sharepoint" / "library.json"
