"""What a document library holds: items with ids, and what changed in it since a version. From a folder, or made up."""

import base64
import hashlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from drive_assets_tests.graph_server.quickxor import quick_xor_hash

FORBIDDEN = set('"*:<>?/\\|')


@dataclass(frozen=True)
class Entry:
    """An item as it was at one time."""

    id: str
    name: str
    parent_id: str | None
    is_folder: bool
    size: int
    modified_ns: int
    version: int
    """The library's version in which it last changed."""
    revision: int = 1
    """Counts its changes: the eTag."""
    inode: int = 0
    deleted: bool = False


class Drive:
    """A library in memory: what `put` and `remove` make it, in versions. Thread-safe under `lock`."""

    def __init__(self, name: str = "Documents") -> None:
        self.name = name
        self.id = "b!" + base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).decode().rstrip("=")
        self.lock = threading.RLock()
        self.version = 1
        self.root_id = _make_id(f"{name}/root")
        self.entries = {self.root_id: Entry(self.root_id, "root", None, True, 0, 0, 1)}
        self.removed: dict[str, Entry] = {}
        self._children: dict[str, dict[str, str]] = defaultdict(dict)  # folder's id -> name in lower case -> id

    def put(self, entry: Entry) -> None:
        before = self.entries.get(entry.id)
        if before is not None and before.parent_id is not None:
            siblings = self._children[before.parent_id]
            if siblings.get(before.name.lower()) == entry.id:
                del siblings[before.name.lower()]
        self.entries[entry.id] = entry
        self.removed.pop(entry.id, None)
        if entry.parent_id is not None:
            self._children[entry.parent_id][entry.name.lower()] = entry.id

    def remove(self, item_id: str) -> None:
        """Take an item out, with all that is in it; each leaves a tombstone."""
        for child in self.children(item_id):
            self.remove(child.id)
        entry = self.entries.pop(item_id)
        siblings = self._children[entry.parent_id or ""]
        if siblings.get(entry.name.lower()) == item_id:
            del siblings[entry.name.lower()]
        self.removed[item_id] = replace(entry, deleted=True, version=self.version)

    def refresh(self) -> None:
        """See what changed outside. Nothing here: only `put` and `remove` change this library."""

    def children(self, item_id: str) -> list[Entry]:
        """A folder's items by name, without regard to case."""
        return [self.entries[child] for _, child in sorted(self._children[item_id].items())]

    def child_count(self, item_id: str) -> int:
        return len(self._children[item_id])

    def total_size(self, entry: Entry) -> int:
        if not entry.is_folder:
            return entry.size
        return sum(self.total_size(self.entries[child]) for child in self._children[entry.id].values())

    def find(self, path: str, start: str) -> Entry | None:
        """The item at a path from a folder, without regard to case."""
        item_id: str | None = start
        for name in filter(None, path.split("/")):
            item_id = self._children[item_id].get(name.lower()) if item_id else None
        return self.entries.get(item_id) if item_id else None

    def path(self, item_id: str) -> str:
        """`folder/name` in the library; "" for the root and for what is not there."""
        names = []
        entry = self.entries.get(item_id) or self.removed.get(item_id)
        while entry is not None and entry.parent_id is not None:
            names.append(entry.name)
            entry = self.entries.get(entry.parent_id) or self.removed.get(entry.parent_id)
        return "/".join(reversed(names))

    def changes(self, since: int) -> list[Entry]:
        """The root, what changed after version `since` (0: all there is), parents first, then tombstones."""
        if since == self.version:
            return []
        changed = [entry for entry in self._walk(self.root_id) if entry.version > since or entry.parent_id is None]
        gone = [entry for entry in self.removed.values() if entry.version > since] if since else []
        return changed + gone

    def _walk(self, item_id: str) -> Iterator[Entry]:
        yield self.entries[item_id]
        for child in self.children(item_id):
            if child.is_folder:
                yield from self._walk(child.id)
            else:
                yield child

    def hash(self, entry: Entry) -> str | None:
        """quickXorHash of a file. Made up here: an item of this library has no content."""
        return base64.b64encode(hashlib.sha1(f"{entry.id}/{entry.revision}".encode()).digest()).decode()

    def file(self, item_id: str) -> Path | None:
        """Where an item's content is on disk, if it has any."""
        return None


class SyntheticDrive(Drive):
    """Recordings that have no files on disk, to list: `recordings` folders of `frames` frames and a telemetry.csv."""

    def __init__(self, recordings: int, frames: int, modified_ns: int = 1_700_000_000 * 10**9) -> None:
        super().__init__()
        self.modified_ns = modified_ns
        for number in range(recordings):
            name = f"20{24 + number // 372:02}-{1 + number // 31 % 12:02}-{1 + number % 31:02}_10-00-00"
            folder = self.add(name, folder=True)
            self.add("telemetry.csv", folder, 100 * frames)
            for frame in range(frames):
                tenths = 5 * frame
                clock = f"{10 + tenths // 36000:02}-{tenths // 600 % 60:02}-{tenths // 10 % 60:02}-{tenths % 10}"
                self.add(f"{name[:10]} {clock}.jpg", folder, 320_000)

    def add(self, name: str, parent: str | None = None, size: int = 0, folder: bool = False) -> str:
        """A new item, in a version of its own; returns its id."""
        with self.lock:
            parent_id = parent or self.root_id
            self.version += 1
            item_id = _make_id(f"{parent_id}/{name}/{self.version}")
            self.put(Entry(item_id, name, parent_id, folder, size, self.modified_ns, self.version))
            return item_id

    def change(self, item_id: str, **values: object) -> None:
        """Give an item other values (name, parent_id, size, modified_ns), in a new version."""
        with self.lock:
            self.version += 1
            entry = self.entries[item_id]
            self.put(replace(entry, version=self.version, revision=entry.revision + 1, **values))  # type: ignore[arg-type]

    def delete(self, item_id: str) -> None:
        with self.lock:
            self.version += 1
            self.remove(item_id)


@dataclass
class _Node:
    """A file or folder as the disk shows it."""

    name: str
    inode: int
    size: int
    modified_ns: int
    links: int
    children: "list[_Node] | None"


class FolderDrive(Drive):
    """A real folder as a library. What SharePoint could not hold (links, forbidden and twin names) is left out.

    An item is known again by its inode (renamed, moved) or by its place (replaced by another file of that name).
    """

    def __init__(self, folder: Path, name: str = "Documents") -> None:
        super().__init__(name)
        self.folder = folder
        self._hashes: dict[tuple[int, int, int], str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Compare the folder with what was known; whatever differs makes a new version."""
        with self.lock:
            top = _scan(self.folder)
            on_disk = {node.inode: node for node in _flatten(top)}
            known = {entry.inode: entry for entry in self.entries.values()}
            self.version += 1
            kept = {self.root_id}
            changed = self._compare(top, self.root_id, on_disk, known, kept)
            for item_id in [item_id for item_id in self.entries if item_id not in kept]:
                if item_id in self.entries:
                    self._remove_one(item_id)
                    changed = True
            if not changed:
                self.version -= 1

    def _compare(
        self, nodes: list[_Node], parent_id: str, on_disk: dict[int, _Node], known: dict[int, Entry], kept: set[str]
    ) -> bool:
        changed = False
        for node in nodes:
            before = self._recognise(node, parent_id, on_disk, known, kept)
            item_id = before.id if before else self._new_id(node)
            kept.add(item_id)
            folder = node.children is not None
            now = Entry(item_id, node.name, parent_id, folder, node.size, node.modified_ns, self.version, 1, node.inode)
            if before is not None:
                same = replace(before, modified_ns=node.modified_ns) if folder else before
                now = replace(now, version=before.version, revision=before.revision)
                if now != same:
                    now = replace(now, version=self.version, revision=before.revision + 1)
            changed |= now.version == self.version
            if now is not before:
                self.put(now)
            changed |= self._compare(node.children or [], item_id, on_disk, known, kept)
        return changed

    def _recognise(
        self, node: _Node, parent_id: str, on_disk: dict[int, _Node], known: dict[int, Entry], kept: set[str]
    ) -> Entry | None:
        folder = node.children is not None
        place = self._children[parent_id].get(node.name.lower())
        here = self.entries[place] if place else None
        if here is not None and (here.id in kept or here.is_folder != folder):
            here = None
        if here is not None and here.inode == node.inode:
            return here
        if folder:
            here = None  # a folder made anew is another item; a file written anew is not
        moved = known.get(node.inode)
        if moved is not None and moved.id not in kept and node.links == 1 and self._same(moved, node):
            return moved
        if here is not None and here.inode in on_disk and self._same(here, on_disk[here.inode]):
            return None  # what was here is now elsewhere
        return here

    def _same(self, entry: Entry, node: _Node) -> bool:
        """Whether a node with the inode of an entry is that entry: inodes of deleted files are given out again."""
        if entry.is_folder != (node.children is not None):
            return False
        if node.children is None:
            return (entry.size, entry.modified_ns) == (node.size, node.modified_ns)
        inside = {(child.inode, child.size, child.modified_ns) for child in node.children}
        before = {(child.inode, child.size, child.modified_ns) for child in self.children(entry.id)}
        return entry.modified_ns == node.modified_ns or bool(inside & before)

    def _remove_one(self, item_id: str) -> None:
        entry = self.entries.pop(item_id)
        siblings = self._children[entry.parent_id or ""]
        if siblings.get(entry.name.lower()) == item_id:
            del siblings[entry.name.lower()]
        self.removed[item_id] = replace(entry, deleted=True, version=self.version)

    def _new_id(self, node: _Node) -> str:
        number = 0
        while (item_id := _make_id(f"{self.id}/{node.inode}/{number}")) in self.entries or item_id in self.removed:
            number += 1
        return item_id

    def hash(self, entry: Entry) -> str | None:
        key = (entry.inode, entry.modified_ns, entry.size)
        if key not in self._hashes:
            path = self.file(entry.id)
            if path is None or not path.is_file():
                return None
            self._hashes[key] = quick_xor_hash(path)
        return self._hashes[key]

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
            except FileNotFoundError:  # deleted while we look
                continue
            size = 0 if inside is not None else stat.st_size
            links = 1 if inside is not None else stat.st_nlink
            nodes[item.name.lower()] = _Node(item.name, stat.st_ino, size, stat.st_mtime_ns, links, inside)
    return list(nodes.values())


def _flatten(nodes: list[_Node]) -> Iterator[_Node]:
    for node in nodes:
        yield node
        yield from _flatten(node.children or [])


def _make_id(text: str) -> str:
    """An id of the form that SharePoint gives."""
    return "01" + base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:32]
