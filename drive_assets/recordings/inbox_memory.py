"""What the inbox sensor remembers between ticks, and how it inspects a folder or zip: briefly or completely."""

import base64
import bz2
import contextlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from model.common.config import fingerprint
from model.recording.folder import TELEMETRY

Note = tuple[str, str]
"""Kind and text of a report, such as ("refused", "week.zip is no complete zip")."""


@dataclass
class Memory:
    """The sensor's cursor. Folders and zips are named by their path in the inbox, such as week/2024-05-01_10-00-00."""

    requested: dict[str, str] = field(default_factory=dict)
    """Version of the content that was last requested, by the recording's name."""
    scanned: dict[str, tuple[str, list[Note]]] = field(default_factory=dict)
    """Folders and zips that need no request: `glance`, and what each tick reports. The oldest scan comes first."""
    next: str = ""
    """Where the next tick starts; empty for the first."""

    @classmethod
    def parse(cls, cursor: str | None) -> "Memory":
        if not cursor:
            return cls()
        if cursor.startswith("{"):  # of an early version
            return cls(requested=json.loads(cursor))
        content = json.loads(bz2.decompress(base64.b64decode(cursor)))
        return cls(**{name: content[name] for name in ("requested", "scanned", "next") if name in content})

    def text(self) -> str:
        """The cursor; compressed, since Dagster keeps that of each tick for a day or longer."""
        return base64.b64encode(bz2.compress(json.dumps(asdict(self)).encode())).decode()

    def in_turn(self, units: Sequence[str]) -> list[str]:
        """`units`, which are sorted by their parts, starting with `next`; those before it come last."""
        before = [unit for unit in units if unit.split("/") < self.next.split("/")]
        return [*units[len(before) :], *before]


@dataclass(frozen=True)
class Content:
    """A folder or zip after a complete scan."""

    version: str
    """Identity of its files: paths, sizes and times."""
    changed: float
    """Its last change in seconds since 1970, by the inodes: copying tools keep the modification times of files."""
    names: list[str] | None
    """Of the entries of a folder, without those in its folders; None for a zip."""


def glance(unit: Path) -> str:
    """A short hash that changes with a zip, with the names in a folder, and with its telemetry."""
    seen = [os.lstat(unit)]
    if stat.S_ISDIR(seen[0].st_mode):
        with contextlib.suppress(FileNotFoundError):
            seen.append(os.lstat(unit / TELEMETRY))
    return fingerprint([(each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in seen])[:8]


def read_content(unit: Path) -> Content:
    """Scans each file, which is slow on a network file system.

    Raises:
        OSError: it cannot be read. Folders in it that this user may not read are ignored.
    """

    def check(error: OSError) -> None:
        if not isinstance(error, PermissionError) or error.filename == str(unit):
            raise error

    stats, names = [(unit.name, os.lstat(unit))], None
    if stat.S_ISDIR(stats[0][1].st_mode):
        for folder, folders, files in os.walk(unit, onerror=check):
            inside = os.path.relpath(folder, unit.parent)
            names = [*folders, *files] if names is None else names
            stats += [(f"{inside}/{name}", os.lstat(f"{folder}/{name}")) for name in (*folders, *files)]
    regular = [(path, s.st_size, s.st_mtime_ns) for path, s in stats if stat.S_ISREG(s.st_mode)]
    # Sorted as paths: the run keys of earlier requests depend on this order.
    ordered = sorted(regular, key=lambda each: each[0].split("/"))
    return Content(fingerprint(ordered), max(s.st_ctime for _, s in stats), names)
