"""What is known of a SharePoint library: its items by id, in a SQLite file, since there can be hundreds of thousands.

The sensor's cursor holds the links, this file the rest. Applying a page twice changes nothing, so that a tick that is
lost between the two is repeated without harm.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drive_assets.recordings.archives import is_taken
from drive_assets.recordings.sharepoint.library import Place, version_of
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.storage import Storage
from model.common.errors import DataError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items(
  id TEXT PRIMARY KEY, parent TEXT, name TEXT, folder INTEGER, size INTEGER, version TEXT, malware INTEGER,
  seen REAL, generation INTEGER, taken TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_parent ON items(parent);
CREATE TABLE IF NOT EXISTS pending(id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked(
  item TEXT, name TEXT, version TEXT, number INTEGER, tick INTEGER, PRIMARY KEY(item, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archives(item TEXT PRIMARY KEY, version TEXT, content TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links(hash TEXT PRIMARY KEY, page INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
# items.seen: when this version was first seen; items.generation: the round it was last seen in; items.taken: its
# version when its recording was requested. asked: the recordings that were requested, of folders and zips.
_SUBTREE = """
WITH RECURSIVE tree(id) AS (SELECT ? UNION SELECT items.id FROM items JOIN tree ON items.parent = tree.id)
"""


@dataclass(frozen=True)
class Entry:
    """A folder or zip that may be a recording, or hold some."""

    id: str
    path: str
    """In the library's folder that is looked at; empty if outside of it."""
    name: str
    is_folder: bool
    size: int
    version: str
    malware: bool
    seen: float


@dataclass(frozen=True)
class Content:
    """The files of a folder, together."""

    files: list[tuple[str, int]]
    versions: list[str]
    seen: float
    is_changed: bool
    """Whether one is new, or another than when the recording was requested. Deletions are no change."""
    malware: bool


class DriveMap:
    """The map of one library. Use as a context; each method is one transaction."""

    def __init__(self, path: Path) -> None:
        """Raises DataError if the file is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=30.0)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise DataError(f"{path} is damaged ({error}): remove it; the sensor lists the library anew.") from error

    def __enter__(self) -> "DriveMap":
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    @property
    def generation(self) -> int:
        """Number of the last full round that was started; 0 if none was."""
        return int(self._meta("generation") or 0)

    def place(self, settings: str) -> Place | None:
        """The place that was found for these settings, or None; what is known of another one is forgotten."""
        if self._meta("settings") != settings:
            with self._db:
                for table in ("items", "pending", "asked", "archives", "links", "meta"):
                    self._db.execute(f"DELETE FROM {table}")
                self._set("settings", settings)
        text = self._meta("place")
        return Place(**json.loads(text)) if text else None

    def looks_at(self, drive: str) -> bool:
        """Whether this is the drive that is looked at."""
        text = self._meta("place")
        return bool(text) and json.loads(text or "")["drive"] == drive

    def set_place(self, place: Place | None) -> None:
        with self._db:
            self._set("place", json.dumps(vars(place)) if place else "")

    def want_full_round(self) -> None:
        """Have the next tick list the whole library anew."""
        with self._db:
            self._set("wanted", str(self.generation + 1))

    @property
    def wants_full_round(self) -> bool:
        return int(self._meta("wanted") or 0) > self.generation

    def count_refusal(self) -> int:
        """Note that the service refused a link; how often in a row it did."""
        count = int(self._meta("refusals") or 0) + 1
        with self._db:
            self._set("refusals", str(count))
        return count

    def forget_refusals(self) -> None:
        if self._meta("refusals") not in (None, "0"):
            with self._db:
                self._set("refusals", "0")

    def begin_full_round(self, after: int) -> int:
        """Number of a new full round, larger than `after`."""
        generation = max(self.generation, after) + 1
        with self._db:
            self._set("generation", str(generation))
        return generation

    def begin_round(self, link: str | None) -> None:
        with self._db:
            self._db.execute("DELETE FROM links")
            self._db.execute("INSERT INTO links VALUES (?, 0)", (_hash(link or ""),))

    def is_repeated(self, link: str, page: int) -> bool:
        """Note the link that page number `page` of a round leads to; whether an earlier page led there already."""
        with self._db:
            row = self._db.execute("SELECT page FROM links WHERE hash = ?", (_hash(link),)).fetchone()
            self._db.execute("INSERT OR REPLACE INTO links VALUES (?, ?)", (_hash(link), page))
        return row is not None and row[0] < page

    def apply(self, items: Iterable[Item], generation: int, now: float) -> list[str]:
        """Take a page of items over; later ones win. Returns names of requested recordings that were deleted there."""
        deleted: list[str] = []
        with self._db:
            pending: set[str] = set()
            for item in items:
                if item.deleted:
                    deleted += self._remove(item.id)
                else:
                    pending |= self._take_over(item, generation, now)
            self._pend(pending)
        return deleted

    def end_full_round(self, generation: int) -> list[str]:
        """Remove what the round did not list; returns names of requested recordings that were deleted there."""
        deleted: list[str] = []
        with self._db:
            for (lost,) in self._db.execute("SELECT id FROM items WHERE generation < ?", (generation,)).fetchall():
                deleted += self._remove(lost)
        return deleted

    def confirm(self, tick: int) -> None:
        """Take back what was asked for by ticks after number `tick`: they were lost before Dagster heard of them."""
        with self._db:
            for (item,) in self._db.execute("SELECT item FROM asked WHERE tick > ?", (tick,)).fetchall():
                self._db.execute("UPDATE items SET taken = NULL WHERE parent = ?", (item,))
                self._pend([item])
            self._db.execute("UPDATE asked SET version = '', number = number - 1, tick = 0 WHERE tick > ?", (tick,))

    def pending(self, folder: str) -> list[Entry]:
        """What changed since it was settled, by path; that in `folder` has one."""
        paths: dict[str, str | None] = {folder: ""}
        found = []
        query = "SELECT items.* FROM pending JOIN items USING (id)"
        for id_, parent, name, is_folder, size, version, malware, seen, *_ in self._db.execute(query):
            above = self._path(parent, paths) if id_ != folder else None
            path = "" if above is None else f"{above}/{name}".lstrip("/")
            found.append(Entry(id_, path, name, bool(is_folder), size, version, bool(malware), seen))
        return sorted(found, key=lambda entry: entry.path)

    def content(self, folder: str) -> Content:
        """The files of a folder that belong to a recording."""
        query = "SELECT name, size, version, seen, taken, malware FROM items WHERE parent = ? AND folder = 0"
        rows = [row for row in self._db.execute(query, (folder,)) if is_taken(row[0])]
        return Content(
            files=[(row[0], row[1]) for row in rows],
            versions=sorted(row[2] for row in rows),
            seen=max((row[3] for row in rows), default=0.0),
            is_changed=any(row[2] != row[4] for row in rows),
            malware=any(row[5] for row in rows),
        )

    def asked(self, item: str, name: str) -> tuple[str, int]:
        """The version of a recording that was requested last ("" if none), and how often it was."""
        row = self._db.execute("SELECT version, number FROM asked WHERE item = ? AND name = ?", (item, name)).fetchone()
        return (row[0], row[1]) if row else ("", 0)

    def asked_names(self, item: str) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT name FROM asked WHERE item = ? AND version != ''", (item,))]

    def ask(self, item: str, name: str, version: str, tick: int) -> None:
        """Note that a recording was requested."""
        with self._db:
            number = self.asked(item, name)[1] + 1
            values = (item, name, version, number, tick)
            self._db.execute("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?)", values)
            self._db.execute("UPDATE items SET taken = version WHERE parent = ? AND folder = 0", (item,))

    def settle(self, items: Iterable[str]) -> None:
        """Look at these no more until they change."""
        with self._db:
            self._db.executemany("DELETE FROM pending WHERE id = ?", [(item,) for item in items])

    def archive(self, item: str, version: str) -> str | None:
        """What was noted of this version of a zip."""
        row = self._db.execute(
            "SELECT content FROM archives WHERE item = ? AND version = ?", (item, version)
        ).fetchone()
        return row[0] if row else None

    def note_archive(self, item: str, version: str, content: str) -> None:
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO archives VALUES (?, ?, ?)", (item, version, content))

    def has(self, item: str) -> bool:
        return self._db.execute("SELECT 1 FROM items WHERE id = ?", (item,)).fetchone() is not None

    def size(self) -> int:
        """Number of items."""
        return int(self._db.execute("SELECT count(*) FROM items").fetchone()[0])

    def _take_over(self, item: Item, generation: int, now: float) -> set[str]:
        """Returns ids of folders and zips to look at again."""
        query = "SELECT parent, name, version, malware FROM items WHERE id = ?"
        old = self._db.execute(query, (item.id,)).fetchone()
        is_zip = not item.is_folder and item.name.lower().endswith(".zip")
        if not (item.is_folder or is_zip or is_taken(item.name)):
            if old:
                self._db.execute("DELETE FROM items WHERE id = ?", (item.id,))
            return set()
        version = item.name if item.is_folder else version_of(item)
        if old == (item.parent_id, item.name, version, int(item.malware)):
            self._db.execute("UPDATE items SET generation = ? WHERE id = ?", (generation, item.id))
            return set()
        flags = (int(item.is_folder), item.size, version, int(item.malware), now, generation)
        self._db.execute(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT(id) DO UPDATE SET "
            "parent = excluded.parent, name = excluded.name, folder = excluded.folder, size = excluded.size, "
            "version = excluded.version, malware = excluded.malware, seen = excluded.seen, "
            "generation = excluded.generation, "
            # What moves from one recording to another is new there.
            "taken = CASE WHEN parent IS excluded.parent THEN taken END",
            (item.id, item.parent_id, item.name, *flags),
        )
        if is_zip:
            return {item.id}
        if not item.is_folder:
            return {item.parent_id or ""}
        if old is None:
            return {item.id}
        # A folder that is renamed or moved is reported alone: all in it has another path now.
        query = f"{_SUBTREE} SELECT items.id FROM items JOIN tree USING (id) WHERE folder OR lower(name) LIKE '%.zip'"
        return {row[0] for row in self._db.execute(query, (item.id,))}

    def _remove(self, item: str) -> list[str]:
        row = self._db.execute("SELECT parent, taken FROM items WHERE id = ?", (item,)).fetchone()
        if row is None:
            return []
        query = f"{_SUBTREE} SELECT asked.name FROM asked JOIN tree ON asked.item = tree.id WHERE version != ''"
        names = [name for (name,) in self._db.execute(query, (item,))]
        if row[1] is not None:
            names += self.asked_names(row[0])
        ids = [(id_,) for (id_,) in self._db.execute(f"{_SUBTREE} SELECT id FROM tree", (item,)).fetchall()]
        for table, key in (("items", "id"), ("pending", "id"), ("asked", "item"), ("archives", "item")):
            self._db.executemany(f"DELETE FROM {table} WHERE {key} = ?", ids)
        return names

    def _path(self, folder: str | None, paths: dict[str, str | None]) -> str | None:
        """Path of a folder below the one that `paths` begins with; None if it is not below it."""
        chain: list[tuple[str, str]] = []
        here, above = folder, None
        while here is not None:
            if here in paths:
                above = paths[here]
                break
            row = self._db.execute("SELECT parent, name FROM items WHERE id = ?", (here,)).fetchone()
            if row is None or here in (known for known, _ in chain):
                break
            chain.append((here, row[1]))
            here = row[0]
        for known, name in reversed(chain):
            above = None if above is None else f"{above}/{name}".lstrip("/")
            paths[known] = above
        return above

    def _pend(self, items: Iterable[str]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO pending VALUES (?)", [(item,) for item in items])

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _set(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def open_map(storage: Storage) -> DriveMap:
    """The map of the library that is looked at."""
    return DriveMap(storage.root / "sharepoint" / "library.sqlite")


def _hash(link: str) -> str:
    return hashlib.sha256(link.encode()).hexdigest()[:24]
