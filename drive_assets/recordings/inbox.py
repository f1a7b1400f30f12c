"""Recordings that are dropped into the inbox as folders or zips."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.archives import open_archive
from drive_assets.recordings.arrivals import INTERVAL_S, Arrival, ArrivalRules, Tick
from drive_assets.recordings.files import listing, missing_files, sizes_of
from drive_assets.recordings.inbox_memory import Memory, Note, glance, read_content
from drive_assets.recordings.local import LocalSource, find_all, find_folder, in_zip, is_recording, is_zip
from drive_assets.recordings.sources import Kind, Source
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import error_text
from model.common.errors import DataError
from model.recording.folder import TELEMETRY

RESCAN_S = 1.0
"""Seconds of each tick for complete scans of unchanged units: a glance misses a frame that is overwritten in place."""
REFUSED, INCOMPLETE = "refused", "not complete"
"""Reports that remain true until the folder or zip changes."""


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
        units = list(_units(storage.inbox, tick))
    except OSError as error:
        return dg.SkipReason(f"{storage.inbox} cannot be read: {error.strerror}.")
    Scan(storage.inbox, tick, memory).run(units)
    return tick.result(context, memory.text(), f"Nothing new in {storage.inbox}")


def _units(inbox: Path, tick: Tick) -> Iterator[str]:
    """Paths in the inbox of what arrives as a whole: folders and zips in it, and in folders of it."""
    for entry in _entries(inbox):
        try:
            units = [entry.name] if _is_unit(entry) else []
            if not units and entry.is_dir(follow_symlinks=False):
                units = [f"{entry.name}/{inner.name}" for inner in _entries(entry) if _is_unit(inner)]
        except OSError as error:
            tick.warn(REFUSED, f"{entry.name} cannot be read: {error.strerror}")
            continue
        if not units:
            tick.note("without a recording", f"{entry.name} (expected a zip or a folder with {TELEMETRY})")
        yield from units


def _entries(folder: "Path | os.DirEntry[str]") -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _is_unit(entry: "os.DirEntry[str]") -> bool:
    if not entry.is_dir():
        return is_zip(Path(entry.name))
    return is_recording_name(entry.name) or is_recording(Path(entry))


@dataclass(frozen=True)
class Scan:
    """A tick's scan of the folders and zips in the inbox."""

    inbox: Path
    tick: Tick
    memory: Memory

    def run(self, units: Sequence[str]) -> None:
        """Rescan some units that look unchanged, then scan all, from where the last tick ended, until time is up."""
        for unit in self.memory.scanned.keys() - set(units):
            del self.memory.scanned[unit]
        rescanned, end = set(), self.tick.spent_s + RESCAN_S
        for unit, (_, notes) in list(self.memory.scanned.items()):
            if is_zip(Path(unit)) and not notes:
                continue  # a glance misses nothing of it
            if self.tick.is_full or self.tick.spent_s > end:
                break
            self._scan(unit, rescan=True)
            rescanned.add(unit)
        left = [unit for unit in self.memory.in_turn(units) if unit not in rescanned]
        self.memory.next = ""
        for number, unit in enumerate(left):
            if self.tick.is_full or (number and self.tick.spent_s >= self.tick.rules.slice_s):
                self.memory.next = unit
                more = f" and {len(left) - number - 1} more" if len(left) - number > 1 else ""
                self.tick.note("left for the next tick", f"{unit}{more}")
                break
            self._scan(unit)

    def _scan(self, unit: str, rescan: bool = False) -> None:
        """Scan a folder or zip completely if it changed at a glance, or for a `rescan`; report what it lacks."""
        path = self.inbox / unit
        try:
            seen = glance(path)
            before, notes = self.memory.scanned.get(unit, ("", []))
            if rescan or before != seen:
                self.memory.scanned.pop(unit, None)
                is_done, notes = self._scan_completely(path)
                if is_done:
                    self.memory.scanned[unit] = (seen, notes)
        except Exception as error:  # a failure of one does not stop the others
            self.memory.scanned.pop(unit, None)
            notes = [(REFUSED, f"{path.name}: {error_text(error)}")]
        for kind, text in notes:
            (self.tick.warn if kind == REFUSED else self.tick.note)(kind, text)

    def _scan_completely(self, unit: Path) -> tuple[bool, list[Note]]:
        """Request what is new in a folder or zip.

        Returns:
            Whether nothing more is to be done until it changes, and what each tick reports until then.

        Raises:
            DataError: it is a link, or the source of a recording of that name is unreadable.
        """
        if unit.is_symlink():
            raise DataError(f"it is a link to {os.path.realpath(unit)}: put what it points to into the inbox.")
        content = read_content(unit)
        if not self.tick.is_settled(unit.name, content.changed):
            return False, []
        if content.names is not None and (missing := missing_files(content.names)):
            return True, [(INCOMPLETE, f"{unit.name} lacks {missing}")]
        sources, refused = find_all([unit])
        is_done, notes = True, [(REFUSED, f"{unit.name}: {reason}") for reason in refused]
        new = [source for source in sources if self.memory.requested.get(source.name) != content.version]
        for source, files in _files(unit, new):
            if isinstance(files, DataError):
                notes.append((REFUSED, f"{unit.name}: {files}"))
            elif missing := missing_files([name for name, _ in files]):
                notes.append((INCOMPLETE, f"{source.name} in {unit.name} lacks {missing}"))
            elif self.tick.request(Arrival(source, f"{source.name}:{content.version}", listing(files))):
                self.memory.requested[source.name] = content.version
            else:
                is_done = False
        return is_done, notes


def _files(
    unit: Path, sources: Sequence[LocalSource]
) -> Iterator[tuple[LocalSource, list[tuple[str, int]] | DataError]]:
    """Name and size in bytes of the files of each source in a folder or zip, or why it cannot be used."""
    if unit.is_dir():
        yield from ((source, sizes_of(unit)) for source in sources)
    elif sources:
        with open_archive(unit) as archive:  # once: the directory of a large zip takes seconds
            for source in sources:
                try:
                    yield source, archive.files(source.member or "")
                except DataError as error:
                    yield source, error


def _find(storage: Storage, name: str) -> Source | None:
    """A recording of this name in the inbox, or in the data root itself, where a user may have put it."""
    archive = storage.inbox / f"{name}.zip"
    zipped = [source for source in in_zip(archive) if source.name == name] if archive.is_file() else []
    in_inbox = find_folder(storage.inbox / name) or next(iter(zipped), None)
    return in_inbox or find_folder(storage.recording(name))


KIND = Kind(LocalSource, _find, dg.Definitions(sensors=[inbox_sensor]))
