"""The items of a document library and their versions, from a folder."""

import base64
import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from drive_assets.resources.sharepoint.quickxorhash import hash_file

FORBIDDEN = set('"*:<>?/\\|')


@dataclass(frozen=True)
class Entry:
    """An item at one time."""

    id: str
    name: str
    parent_id: str | None
    is_folder: bool
    size: int
    modified_ns: int
    version: int
    """The library's version in which it last changed."""
    revision: int = 1
    """Number of its changes: the eTag."""
    inode: int = 0
    deleted: bool = False


class Drive:
    """A library in memory, which `put` and `remove` change."""

    def __init__(self, name: str = "Documents") -> None:
        self.name = name
        self.id = "b!" + base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).decode().rstrip("=")
        self.version = 1
        self.root_id = create_id(f"{name}/root")
        self.entries = {self.root_id: Entry(self.root_id, "root", None, True, 0, 0, 1)}
        self.removed: dict[str, Entry] = {}
        self._children: dict[str, dict[str, str]] = defaultdict(dict)  # folder's id -> name in lower case -> id

    def put(self, entry: Entry) -> None:
        if entry.id in self.entries:
            self._unlink(self.entries[entry.id])
        self.entries[entry.id] = entry
        self.removed.pop(entry.id, None)
        self._children[entry.parent_id or ""][entry.name.lower()] = entry.id

    def remove(self, item_id: str) -> None:
        """Replace an item by a tombstone."""
        entry = self.entries.pop(item_id)
        self._unlink(entry)
        self.removed[item_id] = replace(entry, deleted=True, version=self.version)

    def _unlink(self, entry: Entry) -> None:
        siblings = self._children[entry.parent_id or ""]
        if siblings.get(entry.name.lower()) == entry.id:
            del siblings[entry.name.lower()]

    def refresh(self) -> None:
        """See what changed outside of this object."""

    def children(self, item_id: str) -> list[Entry]:
        """A folder's items by name, ignoring case."""
        return [self.entries[child] for _, child in sorted(self._children[item_id].items())]

    def total_size(self, entry: Entry) -> int:
        return entry.size + sum(self.total_size(child) for child in self.children(entry.id))

    def find(self, path: str, start: str) -> Entry | None:
        """The item at a path from a folder, ignoring case."""
        item_id: str | None = start
        for name in filter(None, path.split("/")):
            item_id = self._children[item_id].get(name.lower()) if item_id else None
        return self.entries.get(item_id) if item_id else None

    def path(self, item_id: str) -> str:
        """`folder/name` in the library; "" for the root and for unknown items."""
        entry = self.entries.get(item_id) or self.removed.get(item_id)
        if entry is None or entry.parent_id is None:
            return ""
        return f"{self.path(entry.parent_id)}/{entry.name}".lstrip("/")

    def changes(self, since: int) -> list[Entry]:
        """The root, what changed after version `since` (0: everything), parents first, then tombstones."""
        if since == self.version:
            return []
        changed = [entry for entry in self._walk(self.root_id) if entry.version > since or entry.parent_id is None]
        return changed + [entry for entry in self.removed.values() if entry.version > since > 0]

    def _walk(self, item_id: str) -> Iterator[Entry]:
        yield self.entries[item_id]
        for child in self.children(item_id):
            yield from self._walk(child.id)

    def hash(self, entry: Entry) -> str | None:
        """quickXorHash of a file. Random here: an item of this library has no content."""
        return base64.b64encode(hashlib.sha1(f"{entry.id}/{entry.revision}".encode()).digest()).decode()

    def file(self, item_id: str) -> Path | None:
        """The path of an item's content, if it has any."""
        return None


class FolderDrive(Drive):
    """A folder as a library, without what SharePoint could not hold (links, forbidden and clashing names).

    An item keeps its id at its path, and when it is renamed or moved, by its inode.
    """

    def __init__(self, folder: Path, name: str = "Documents") -> None:
        super().__init__(name)
        self.folder = folder
        self._hashes: dict[tuple[int, int, int], str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Compare the folder with the entries; any difference creates a new version."""
        known, kept = {entry.inode: entry for entry in self.entries.values()}, {self.root_id}
        self.version += 1
        self._scan(self.folder, self.root_id, known, kept)
        for item_id in self.entries.keys() - kept:
            self.remove(item_id)
        if all(entry.version < self.version for entry in (*self.entries.values(), *self.removed.values())):
            self.version -= 1

    def _scan(self, folder: Path, parent_id: str, known: dict[int, Entry], kept: set[str]) -> None:
        """Store what is in a folder as entries, and add their ids to `kept`."""
        names: set[str] = set()
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or FORBIDDEN & set(path.name) or path.name.lower() in names:
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                entry = self._entry(path, parent_id, known, kept)
                names.add(path.name.lower())
                kept.add(entry.id)
                self.put(entry)
                if entry.is_folder:
                    self._scan(path, entry.id, known, kept)

    def _entry(self, path: Path, parent_id: str, known: dict[int, Entry], kept: set[str]) -> Entry:
        """What a path is now."""
        stat, is_folder = path.stat(), path.is_dir()
        size = 0 if is_folder else stat.st_size
        now = Entry("", path.name, parent_id, is_folder, size, stat.st_mtime_ns, self.version, 1, stat.st_ino)
        before = self._recognise(path, now, known.get(now.inode), kept)
        if before is None:
            number = 0
            while (item_id := create_id(f"{self.id}/{now.inode}/{number}")) in self.entries or item_id in self.removed:
                number += 1
            return replace(now, id=item_id)
        same = replace(now, id=before.id, version=before.version, revision=before.revision)
        if same == (replace(before, modified_ns=now.modified_ns) if is_folder else before):
            return same
        return replace(same, version=self.version, revision=before.revision + 1)

    def _recognise(self, path: Path, now: Entry, moved: Entry | None, kept: set[str]) -> Entry | None:
        """The entry that something on the disk continues: the one at its path, or `moved`, the one with its inode."""
        here = self.entries.get(self._children[now.parent_id or ""].get(now.name.lower(), ""))
        if here is None or here.inode != now.inode:
            if moved and moved.id not in kept and self._is_same(path, now, moved):
                return moved
            if now.is_folder:  # a replaced file keeps its id, a replaced folder does not
                return None
        return here if here and here.id not in kept and here.is_folder == now.is_folder else None

    def _is_same(self, path: Path, now: Entry, moved: Entry) -> bool:
        """Whether a path with an entry's inode is that item: the inodes of deleted files are used again."""
        if (now.is_folder, now.size, now.modified_ns) == (moved.is_folder, moved.size, moved.modified_ns):
            return True
        before = {(child.inode, child.modified_ns) for child in self.children(moved.id)}
        inside = map(Path.stat, path.iterdir()) if now.is_folder else ()
        return any((stat.st_ino, stat.st_mtime_ns) in before for stat in inside)

    def hash(self, entry: Entry) -> str | None:
        key, path = (entry.inode, entry.modified_ns, entry.size), self.file(entry.id)
        if key not in self._hashes and path is not None and path.is_file():
            self._hashes[key] = hash_file(path)
        return self._hashes.get(key)

    def file(self, item_id: str) -> Path | None:
        return self.folder / self.path(item_id) if item_id in self.entries else None


def create_id(text: str) -> str:
    """An id in SharePoint's format."""
    return "01" + base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:32]
