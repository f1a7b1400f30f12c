"""What the sensor knows of the watched folder: the folders and zips in it, and what was requested of them.

Each tick that learns something writes a new file, which Dagster's cursor then names. A tick whose result Dagster loses
is repeated from the state before it.
"""

import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.files import is_taken
from drive_assets.recordings.sharepoint.library import Place
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import explained_errors, write_text

AT_ONCE = 0.0
"""The time of a change that needs no settling."""
MAX_DEPTH = 100


@dataclass
class Entry:
    """A folder or zip."""

    parent: str
    name: str
    is_folder: bool
    changed: float | None = AT_ONCE
    """When the sensor saw its last change, in seconds since 1970; None once nothing is to be done until the next."""
    version: str = ""
    """Of the content: of a zip, as listed; of a folder, as last requested."""
    requested: list[str] = field(default_factory=list)
    """Recordings of this version that were requested."""
    number: int = 0
    """Versions requested before this one, so that content that returns is requested again."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """What each tick reports until the next change: kind and text."""

    def set_changed(self, now: float) -> None:
        """A recording settles first; any other folder is listed at once, for the recordings in it."""
        self.changed = now if is_recording_name(self.name) or not self.is_folder else AT_ONCE
        self.notes = []

    def set_version(self, version: str) -> None:
        self.number += bool(self.requested)
        self.version, self.requested = version, []


@dataclass
class Known:
    """The watched folder and, by id, all folders and zips in it, itself included."""

    settings: str
    """`settings_key` of the settings that name the folder."""
    place: Place
    entries: dict[str, Entry]
    listed_for: float = 0.0
    """Time of the last request to list everything that was followed."""

    @classmethod
    def of(cls, settings: str, place: Place) -> "Known":
        """With the folder itself, which is not listed yet."""
        return cls(settings, place, {place.folder: Entry(place.folder, "", is_folder=True)})

    @property
    def is_complete(self) -> bool:
        """Whether all folders are listed."""
        return all(entry.changed != AT_ONCE for entry in self.entries.values())

    def path(self, item: str) -> str:
        """Path in the watched folder."""
        names: list[str] = []
        while item != self.place.folder and len(names) < MAX_DEPTH:
            names.append(self.entries[item].name)
            item = self.entries[item].parent
        return "/".join(reversed(names))

    def see_change(self, item: Item, now: float) -> None:
        """Note which folders an item of the list of changes affects: that which holds it and that which held it."""
        entry = self.entries.get(item.id)
        if not (entry or item.deleted or item.is_folder or is_zip(item) or is_taken(item.name)):
            return
        affected = {item.parent_id or ""}
        if entry is not None:
            affected.add(entry.parent)
            if item.parent_id in self.entries and item.id != self.place.folder:
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
        listed = {item.id: item for item in items if item.is_folder or is_zip(item)}
        inside = [id_ for id_, entry in self.entries.items() if entry.parent == folder and id_ != folder]
        gone = [name for id_ in inside if id_ not in listed for name in self.remove(id_)]
        for item in listed.values():
            version = "" if item.is_folder else item.version
            entry = self.entries.setdefault(item.id, Entry(folder, "", item.is_folder))
            entry.parent = folder
            if entry.name != item.name or (version and entry.version != version):
                entry.name = item.name
                if version:
                    entry.set_version(version)
                entry.set_changed(now)
                changed.append(item.id)
        return changed, gone

    def remove(self, item: str) -> list[str]:
        """Remove a folder or zip with all in it; returns the recordings that were requested of it."""
        names = self.entries.pop(item).requested
        for inside in [id_ for id_, entry in self.entries.items() if entry.parent == item]:
            names += self.remove(inside)
        return names

    def text(self) -> str:
        entries = {id_: vars(entry) for id_, entry in self.entries.items()}
        return json.dumps({**vars(self), "place": asdict(self.place), "entries": entries})

    def write(self, storage: Storage, number: int) -> None:
        """Write the file of this number, and remove those that no tick needs any more."""
        file = _file(storage, number)
        write_text(file, self.text())
        for other in file.parent.glob("library-*.json"):
            if other not in (file, _file(storage, number - 1)):
                other.unlink(missing_ok=True)


def read_known(storage: Storage, number: int) -> Known | None:
    """The state in the file of this number; None if it is lost.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    path = _file(storage, number)
    return _parse(path) if path.is_file() else None


def newest_known(storage: Storage) -> Known | None:
    """The newest state, for readers without a cursor, which must not change it; None if there is none."""
    files = [(path.stat().st_mtime_ns, path) for path in (storage.root / "sharepoint").glob("library-*.json")]
    return _parse_once(*max(files)) if files else None


def full_listing_request(storage: Storage) -> Path:
    """A file whose time tells the sensor to list everything."""
    return storage.root / "sharepoint" / "list_everything"


def is_zip(item: Item) -> bool:
    return not item.is_folder and item.name.lower().endswith(".zip")


def _file(storage: Storage, number: int) -> Path:
    return storage.root / "sharepoint" / f"library-{number}.json"


def _parse(path: Path) -> Known:
    with explained_errors(path, "read"):
        text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        content["place"] = Place(**content["place"])
        content["entries"] = {id_: Entry(**values) for id_, values in content["entries"].items()}
        return Known(**content)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it, and the sensor lists the library again.") from error


@lru_cache(1)
def _parse_once(modified_ns: int, path: Path) -> Known:
    return _parse(path)
