"""The items of a SharePoint library by id, in a SQLite file, since there can be hundreds of thousands.

The sensor's cursor holds the links, this file the rest. Applying a page twice changes nothing, so that a tick that
Dagster lost is repeated without harm.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drive_assets.recordings.files import is_taken
from drive_assets.recordings.sharepoint.library import Place
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
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
# items.seen: when the sensor first saw this version; items.generation: the last round that listed it; items.taken: its
# version when its recording was last requested. asked: the requested recordings of each folder and zip.
_SUBTREE = """
WITH RECURSIVE tree(id) AS (SELECT ? UNION SELECT items.id FROM items JOIN tree ON items.parent = tree.id)
"""
_PENDING = """
WITH RECURSIVE up(item, above, path, depth) AS (
  SELECT id, parent, name, 0 FROM pending JOIN items USING (id)
  UNION ALL
  SELECT up.item, items.parent, items.name || '/' || up.path, depth + 1
  FROM up JOIN items ON items.id = up.above WHERE up.above != :folder AND depth < 100)
SELECT id, coalesce(path, ''), name, folder, size, version, malware, seen FROM pending JOIN items USING (id)
LEFT JOIN up ON up.item = id AND up.above = :folder ORDER BY 2
"""


@dataclass(frozen=True)
class Entry:
    """A folder or zip that may be a recording, or hold some."""

    id: str
    path: str
    """In the library's folder that the sensor watches; empty if outside of it."""
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
    """Whether a file is new or differs from the one that was requested. Deletions are no change."""
    malware: bool


class DriveMap:
    """The map of one library. Use as a context; each method is one transaction."""

    def __init__(self, path: Path) -> None:
        """Raises DataError if SQLite cannot use the file, like leaving the context."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=30.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __enter__(self) -> "DriveMap":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> DataError:
        """An error for any failure of SQLite, whose code decides the advice."""
        advice = "check its disk, its permissions and that no other program holds it"
        if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            advice = "it is damaged: remove it, and the sensor lists the library again"
        return DataError(f"{self._path} cannot be used ({error}): {advice}.")

    def place(self, settings: str = "") -> Place | None:
        """The place that was stored; if it was stored for other settings than these, all is forgotten."""
        if settings and self._meta("settings") != settings:
            with self._db:
                for table in ("items", "pending", "asked", "archives", "meta"):
                    self._db.execute(f"DELETE FROM {table}")
                self._set("settings", settings)
        text = self._meta("place")
        return Place(**json.loads(text)) if text else None

    def set_place(self, place: Place | None) -> None:
        with self._db:
            self._set("place", json.dumps(vars(place)) if place else "")

    @property
    def generation(self) -> int:
        """Number of the last full round; a cursor of another generation is outdated."""
        return int(self._meta("generation") or 0)

    def begin_full_round(self, after: int = 0) -> int:
        """Number of a new full round, larger than `after`. The sensor then lists the whole library."""
        generation = max(self.generation, after) + 1
        with self._db:
            self._set("generation", str(generation))
        return generation

    def end_full_round(self, generation: int) -> list[str]:
        """Remove what the round did not list; returns names of requested recordings that were deleted there."""
        deleted: list[str] = []
        with self._db:
            for (gone,) in self._db.execute("SELECT id FROM items WHERE generation < ?", (generation,)).fetchall():
                deleted += self._remove(gone)
        return deleted

    def apply(self, items: Iterable[Item], generation: int, now: float) -> list[str]:
        """Store a page of items; later ones win. Returns names of requested recordings that were deleted there."""
        deleted: list[str] = []
        with self._db:
            for item in items:
                if item.deleted:
                    deleted += self._remove(item.id)
                else:
                    self._set_pending(self._store(item, generation, now))
        return deleted

    def undo_lost_ticks(self, tick: int) -> None:
        """Forget the requests of ticks after number `tick`: these ended before Dagster stored their results."""
        with self._db:
            for (item,) in self._db.execute("SELECT item FROM asked WHERE tick > ?", (tick,)).fetchall():
                self._db.execute("UPDATE items SET taken = NULL WHERE parent = ?", (item,))
                self._set_pending([item])
            self._db.execute("UPDATE asked SET version = '', number = number - 1, tick = 0 WHERE tick > ?", (tick,))

    def pending(self, folder: str) -> list[Entry]:
        """Folders and zips that changed since they were settled, by path; those outside `folder` have none."""
        rows = self._db.execute(_PENDING, {"folder": folder})
        return [
            Entry(id_, path, name, bool(is_folder), size, version, bool(malware), seen)
            for id_, path, name, is_folder, size, version, malware, seen in rows
        ]

    def settle(self, items: Iterable[str]) -> None:
        """Take these out of the pending ones until they change."""
        with self._db:
            self._db.executemany("DELETE FROM pending WHERE id = ?", [(item,) for item in items])

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

    def requested(self, item: str, name: str) -> tuple[str, int]:
        """The version of a recording that was last requested ("" if none), and the number of requests."""
        row = self._db.execute("SELECT version, number FROM asked WHERE item = ? AND name = ?", (item, name)).fetchone()
        return (row[0], row[1]) if row else ("", 0)

    def requested_names(self, item: str) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT name FROM asked WHERE item = ? AND version != ''", (item,))]

    def record_request(self, item: str, name: str, version: str, tick: int) -> None:
        with self._db:
            values = (item, name, version, self.requested(item, name)[1] + 1, tick)
            self._db.execute("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?)", values)
            self._db.execute("UPDATE items SET taken = version WHERE parent = ? AND folder = 0", (item,))

    def archive(self, item: str, version: str) -> str | None:
        """What `store_archive` stored of this version of a zip."""
        query = "SELECT content FROM archives WHERE item = ? AND version = ?"
        row = self._db.execute(query, (item, version)).fetchone()
        return row[0] if row else None

    def store_archive(self, item: str, version: str, content: str) -> None:
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO archives VALUES (?, ?, ?)", (item, version, content))

    def has(self, item: str) -> bool:
        return self._db.execute("SELECT 1 FROM items WHERE id = ?", (item,)).fetchone() is not None

    def size(self) -> int:
        """Number of items."""
        return int(self._db.execute("SELECT count(*) FROM items").fetchone()[0])

    def _store(self, item: Item, generation: int, now: float) -> list[str]:
        """Store an item; returns ids of folders and zips that thereby become pending."""
        query = "SELECT taken, parent, name, version, malware FROM items WHERE id = ?"
        taken, *old = self._db.execute(query, (item.id,)).fetchone() or (None,)
        is_zip = not item.is_folder and item.name.lower().endswith(".zip")
        if not (item.is_folder or is_zip or is_taken(item.name)):
            self._db.execute("DELETE FROM items WHERE id = ?", (item.id,))
            return []
        version = item.name if item.is_folder else item.version
        if old == [item.parent_id, item.name, version, int(item.malware)]:
            self._db.execute("UPDATE items SET generation = ? WHERE id = ?", (generation, item.id))
            return []
        if old and old[0] != item.parent_id:
            taken = None  # a file that moves to another recording is new there
        facts = (item.is_folder, item.size, version, item.malware, now, generation, taken)
        self._db.execute(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (item.id, item.parent_id, item.name, *facts),
        )
        if is_zip or (item.is_folder and not old):
            return [item.id]
        if not item.is_folder:
            return [item.parent_id or ""]
        # A folder that is renamed or moved is reported alone, and the paths of all its content change.
        query = f"{_SUBTREE} SELECT items.id FROM items JOIN tree USING (id) WHERE folder OR lower(name) LIKE '%.zip'"
        return [row[0] for row in self._db.execute(query, (item.id,))]

    def _remove(self, item: str) -> list[str]:
        row = self._db.execute("SELECT parent, taken FROM items WHERE id = ?", (item,)).fetchone()
        if row is None:
            return []
        ids = [(id_,) for (id_,) in self._db.execute(f"{_SUBTREE} SELECT id FROM tree", (item,)).fetchall()]
        names = [name for (id_,) in ids for name in self.requested_names(id_)]
        if row[1] is not None:
            names += self.requested_names(row[0])
        for table, key in (("items", "id"), ("pending", "id"), ("asked", "item"), ("archives", "item")):
            self._db.executemany(f"DELETE FROM {table} WHERE {key} = ?", ids)
        return names

    def _set_pending(self, items: Iterable[str]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO pending VALUES (?)", [(item,) for item in items])

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _set(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def open_map(storage: Storage) -> DriveMap:
    """The map of the library that the sensor watches."""
    return DriveMap(storage.root / "sharepoint" / "library.sqlite")
