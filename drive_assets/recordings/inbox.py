"""Recordings that are dropped into the inbox as folders or zips."""

import base64
import bz2
import contextlib
import json
import os
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dagster as dg

from drive_assets.recordings.arrivals import INTERVAL_S, REFUSED, ArrivalRules, Tick
from drive_assets.recordings.files import TAKEN
from drive_assets.recordings.local import OTHER, find_units, sources_in
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import error_text
from model.common.config import fingerprint
from model.common.errors import DataError
from model.imports.kinds import MAPPING


@dataclass
class Memory:
    """The sensor's cursor. Folders and zips are named by their path in the inbox, such as week/2024-05-01_10-00-00."""

    requested: dict[str, str] = field(default_factory=dict)
    """Version of the content that was last requested, by the recording's name."""
    scanned: dict[str, str] = field(default_factory=dict)
    """`glance` of the folders and zips all of whose recordings are requested."""
    left: str = ""
    """The first folder or zip for which there was no time: the next tick starts there."""

    @classmethod
    def parse(cls, cursor: str | None) -> "Memory":
        """The memory in a cursor; an empty one without a cursor, or with one of another version of this product.

        Dagster starts no run twice for the same content, since the run keys stay the same.
        """
        try:
            return cls(**json.loads(bz2.decompress(base64.b64decode(cursor or ""))))
        except (OSError, ValueError, TypeError):
            return cls()

    def text(self) -> str:
        """The cursor; compressed, since Dagster keeps that of each tick for a day or longer."""
        return base64.b64encode(bz2.compress(json.dumps(asdict(self)).encode())).decode()


def glance(unit: Path) -> str:
    """A short hash that changes with a zip, or with the names in a folder and its files besides the frames."""
    seen = []
    for path in (unit, *(unit / name for name in (*TAKEN, MAPPING))):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            seen.append(os.lstat(path))
    return fingerprint([(each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in seen])[:8]


def read_version(unit: Path) -> tuple[str, float]:
    """Identity of the files of a folder or zip, from paths, sizes and times; and its last change, seconds since 1970.

    Scans each file, which is slow on a network file system. The change is that of inodes: copying tools keep the
    modification times of files.
    """
    stats: list[tuple[tuple[str, ...], os.stat_result]] = [((unit.name,), os.lstat(unit))]
    for folder, folders, files in os.walk(unit):
        parts = Path(folder).relative_to(unit.parent).parts
        stats += [((*parts, name), os.lstat(f"{folder}/{name}")) for name in (*folders, *files)]
    regular = sorted((parts, s.st_size, s.st_mtime_ns) for parts, s in stats if stat.S_ISREG(s.st_mode))
    version = fingerprint([("/".join(parts), *rest) for parts, *rest in regular])
    return version, max(s.st_ctime for _, s in stats)


@dg.sensor(
    target=dg.AssetSelection.assets("recording"),
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests recordings in the inbox folder once they are complete and settled.",
)
def inbox_sensor(
    context: dg.SensorEvaluationContext, storage: Storage, arrival_rules: ArrivalRules
) -> dg.SensorResult | dg.SkipReason:
    """One run request for each complete, settled recording whose content was not requested yet."""
    memory, tick = Memory.parse(context.cursor), Tick(storage, arrival_rules)
    if not storage.inbox.is_dir():
        return dg.SkipReason(f"{storage.inbox} is no folder; create it and drop recordings there.")
    try:
        units = list(find_units(storage.inbox))
    except OSError as error:
        return dg.SkipReason(f"{storage.inbox} cannot be read: {error.strerror}.")
    before, memory.scanned, scans = memory.scanned, {}, 0
    names = [str(unit.relative_to(storage.inbox)) for unit, _ in units]
    start = names.index(memory.left) if memory.left in names else 0
    memory.left = ""
    for unit, problem in units[start:] + units[:start]:
        name = str(unit.relative_to(storage.inbox))
        if problem:
            tick.note("without a recording" if problem == OTHER else REFUSED, f"{name} {problem}")
            continue
        try:
            glanced = glance(unit)
            if before.get(name) != glanced:
                if tick.is_full or (scans and tick.spent_s >= arrival_rules.slice_s):
                    tick.note("left for the next tick", name)
                    memory.left = memory.left or name
                    continue
                scans += 1
                if not _scan(unit, tick, memory.requested):
                    continue
            memory.scanned[name] = glanced
        except Exception as error:  # a failure of one does not stop the others
            tick.note(REFUSED, f"{name}: {error_text(error)}")
    return tick.result(context, memory.text(), f"Nothing new in {storage.inbox}")


def _scan(unit: Path, tick: Tick, requested: dict[str, str]) -> bool:
    """Request what is new in a folder or zip; returns whether nothing more is to be done until it changes.

    Raises:
        DataError: it is a link, a broken zip, or the source of a recording of that name is unreadable.
    """
    if unit.is_symlink():
        raise DataError(f"it is a link to {os.path.realpath(unit)}: put what it points to into the inbox.")
    version, changed = read_version(unit)
    if not tick.is_settled(unit.name, changed):
        return False
    is_done = True
    for source, files in sources_in(unit):
        where = source.name if source.name == unit.name else f"{source.name} in {unit.name}"
        if requested.get(source.name) == version:
            continue
        if tick.request(source, f"{source.name}:{version}", files, where):
            is_done = False
        else:
            requested[source.name] = version
    return is_done
