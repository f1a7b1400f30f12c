"""The items of a document library and their versions, from a folder."""

import base64
import hashlib
import os
import threading
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
    """A library in memory, which `put` and `remove` change. Thread-safe under `lock`."""

    def __init__(self, name: str = "Documents") -> None:
        self.name = name
        self.id = "b!" + base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).decode().rstrip("=")
        self.lock = threading.RLock()
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
        if not entry.is_folder:
            return entry.size
        return sum(self.total_size(child) for child in self.children(entry.id))

    def find(self, path: str, start: str) -> Entry | None:
        """The item at a path from a folder, ignoring case."""
        item_id: str | None = start
        for name in filter(None, path.split("/")):
            item_id = self._children[item_id].get(name.lower()) if item_id else None
        return self.entries.get(item_id) if item_id else None

    def path(self, item_id: str) -> str:
        """`folder/name` in the library; "" for the root and for unknown items."""
        names = []
        entry = self.entries.get(item_id) or self.removed.get(item_id)
        while entry is not None and entry.parent_id is not None:
            names.append(entry.name)
            entry = self.entries.get(entry.parent_id) or self.removed.get(entry.parent_id)
        return "/".join(reversed(names))

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


@dataclass
class _Node:
    """A file or folder on the disk."""

    name: str
    inode: int
    size: int
    modified_ns: int
    children: "list[_Node] | None"


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
        with self.lock:
            nodes = _scan(self.folder)
            known = {entry.inode: entry for entry in self.entries.values()}
            self.version += 1
            kept = {self.root_id}
            changed = self._compare(nodes, self.root_id, known, kept)
            for item_id in self.entries.keys() - kept:
                self.remove(item_id)
                changed = True
            self.version -= not changed

    def _compare(self, nodes: list[_Node], parent_id: str, known: dict[int, Entry], kept: set[str]) -> bool:
        """Store the nodes of a folder as entries, and add their ids to `kept`; returns whether one changed."""
        changed = False
        for node in nodes:
            before = self._recognise(node, parent_id, known, kept)
            item_id = before.id if before else self._new_id(node)
            kept.add(item_id)
            is_folder = node.children is not None
            now = Entry(
                item_id, node.name, parent_id, is_folder, node.size, node.modified_ns, self.version, 1, node.inode
            )
            if before is not None:
                now = replace(now, version=before.version, revision=before.revision)
                if now != (replace(before, modified_ns=node.modified_ns) if is_folder else before):
                    now = replace(now, version=self.version, revision=before.revision + 1)
            changed |= now.version == self.version
            self.put(now)
            changed |= self._compare(node.children or [], item_id, known, kept)
        return changed

    def _recognise(self, node: _Node, parent_id: str, known: dict[int, Entry], kept: set[str]) -> Entry | None:
        """The entry that a node on the disk continues."""
        here = self.entries.get(self._children[parent_id].get(node.name.lower(), ""))
        for entry in (here, known.get(node.inode)):
            if entry is None or entry.id in kept or entry.is_folder != (node.children is not None):
                continue
            if entry.inode == node.inode and (entry is here or self._is_same(entry, node)):
                return entry
        is_file_here = here is not None and here.id not in kept and not here.is_folder and node.children is None
        return here if is_file_here else None  # a replaced file keeps its id, a replaced folder does not

    def _is_same(self, entry: Entry, node: _Node) -> bool:
        """Whether a node with an entry's inode is that item: the inodes of deleted files are used again."""
        if node.children is None:
            return (entry.size, entry.modified_ns) == (node.size, node.modified_ns)
        before = {(child.inode, child.size, child.modified_ns) for child in self.children(entry.id)}
        inside = {(child.inode, child.size, child.modified_ns) for child in node.children}
        return entry.modified_ns == node.modified_ns or bool(inside & before)

    def _new_id(self, node: _Node) -> str:
        number = 0
        while (item_id := create_id(f"{self.id}/{node.inode}/{number}")) in self.entries or item_id in self.removed:
            number += 1
        return item_id

    def hash(self, entry: Entry) -> str | None:
        key = (entry.inode, entry.modified_ns, entry.size)
        path = self.file(entry.id)
        if key not in self._hashes and path is not None and path.is_file():
            self._hashes[key] = hash_file(path)
        return self._hashes.get(key)

    def file(self, item_id: str) -> Path | None:
        with self.lock:
            return self.folder / self.path(item_id) if item_id in self.entries else None


def _scan(folder: Path) -> list[_Node]:
    nodes: dict[str, _Node] = {}
    with os.scandir(folder) as listing:
        for item in sorted(listing, key=lambda item: item.name):
            if item.is_symlink() or FORBIDDEN & set(item.name) or item.name.lower() in nodes:
                continue
            try:
                stat = item.stat(follow_symlinks=False)
                inside = _scan(Path(item.path)) if item.is_dir(follow_symlinks=False) else None
            except FileNotFoundError:  # deleted meanwhile
                continue
            size = 0 if inside is not None else stat.st_size
            nodes[item.name.lower()] = _Node(item.name, stat.st_ino, size, stat.st_mtime_ns, inside)
    return list(nodes.values())


def create_id(text: str) -> str:
    """An id in SharePoint's format."""
    return "01" + base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:32]
