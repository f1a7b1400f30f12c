"""Recordings that arrive by themselves: folders and zips dropped into the inbox."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from drive_assets.partitions import is_recording_name
from drive_assets.recordings import arrivals
from drive_assets.recordings.archives import listing, open_archive
from drive_assets.recordings.arrivals import INTERVAL_S, Arrival, ArrivalRules, Tick, age_text, rival, sizes_of
from drive_assets.recordings.inbox_memory import Memory, Note, glance, read_content
from drive_assets.recordings.local import LocalSource, find_all, find_folder, in_zip, is_recording, is_zip
from drive_assets.recordings.sources import Kind, Source, missing
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import told
from model.common.errors import DataError
from model.recording.folder import TELEMETRY

AGAIN_S = 1.0
"""Of each tick, for another look at what seems unchanged: a glance misses a frame that is written anew in its place."""
REFUSED, INCOMPLETE = "refused", "not complete"
"""What a tick tells of a folder or zip that stays true until that changes."""


@dg.sensor(
    target=dg.AssetSelection.assets("recording"),
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes recordings from the inbox folder once they are complete and settled.",
)
def inbox_sensor(
    context: dg.SensorEvaluationContext, storage: Storage, arrival_rules: ArrivalRules
) -> dg.SensorResult | dg.SkipReason:
    """One run request for each complete, settled recording whose content was not requested yet."""
    memory, tick = Memory.parse(context.cursor), Tick(arrival_rules)
    if not storage.inbox.is_dir():
        return dg.SkipReason(f"{storage.inbox} does not exist; make it and drop recordings there.")
    _Look(storage, tick, memory).all(list(_units(storage.inbox, tick)))
    return tick.result(context, storage, memory.text(), f"Nothing new in {storage.inbox}")


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
            tick.tell("without a recording", f"{entry.name} is no zip, and no folder with {TELEMETRY}")
        yield from units


def _entries(folder: "Path | os.DirEntry[str]") -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _is_unit(entry: "os.DirEntry[str]") -> bool:
    if not entry.is_dir():
        return is_zip(Path(entry.name))
    return is_recording_name(entry.name) or is_recording(Path(entry))


@dataclass(frozen=True)
class _Look:
    """A tick's look at the folders and zips of the inbox."""

    storage: Storage
    tick: Tick
    memory: Memory

    def all(self, units: Sequence[str]) -> None:
        """First again at some that seem unchanged, then at each, from where the tick before ended, until time is up."""
        self.memory.keep_only(units)
        again, ends = set(), self.tick.spent_s + AGAIN_S
        for unit in list(self.memory.glances):
            if is_zip(Path(unit)) and unit not in self.memory.notes:
                continue  # a glance misses nothing of it
            if self.tick.is_full or self.tick.spent_s > ends:
                break
            self._at(unit, again=True)
            again.add(unit)
        left = [unit for unit in self.memory.in_turn(units) if unit not in again]
        self.memory.next = ""
        for number, unit in enumerate(left):
            if self.tick.is_full or (number and self.tick.is_over):
                self.memory.next = unit
                more = f" and {len(left) - number - 1} more" if len(left) - number > 1 else ""
                self.tick.tell("left for the next tick", f"{unit}{more}")
                break
            self._at(unit)

    def _at(self, unit: str, again: bool = False) -> None:
        """Tell what is to be told of a folder or zip; look at all of it `again`, or if it changed at a glance."""
        path = self.storage.inbox / unit
        try:
            seen = glance(path)
            if again or self.memory.glances.get(unit) != seen:
                self.memory.forget(unit)
                notes = self._whole(path)
                if all(kind in (REFUSED, INCOMPLETE) for kind, _ in notes):
                    self.memory.note(unit, seen, notes)
            else:
                notes = self.memory.notes.get(unit, [])
        except Exception as error:  # whatever is wrong with one, the others go on
            self.memory.forget(unit)
            notes = [(REFUSED, f"{path.name}: {told(error)}")]
        for kind, text in notes:
            (self.tick.warn if kind == REFUSED else self.tick.tell)(kind, text)

    def _whole(self, unit: Path) -> list[Note]:
        """Request what is new in a folder or zip; returns what is to be told of what was not requested.

        Raises:
            DataError: it is a link, or not known where a recording of that name comes from.
        """
        if unit.is_symlink():
            raise DataError(f"it is a link to {os.path.realpath(unit)}: put what it points to into the inbox.")
        content = read_content(unit)
        age, wanted = arrivals.now() - content.changed, self.tick.rules.settling_s
        if age < wanted:
            return [("not settled", f"{unit.name} changed {age_text(age)} ago, {age_text(wanted)} are waited for")]
        if content.names is not None and (lacking := missing(content.names)):
            return [(INCOMPLETE, f"{unit.name} lacks {lacking}")]
        sources, refused = find_all([unit])
        notes = [(REFUSED, f"{unit.name}: {reason}") for reason in refused]
        new = [source for source in sources if self.memory.requested.get(source.name) != content.version]
        for source, files in _files(unit, new):
            if isinstance(files, DataError):
                notes.append((REFUSED, f"{unit.name}: {files}"))
            elif lacking := missing([name for name, _ in files]):
                notes.append((INCOMPLETE, f"{source.name} in {unit.name} lacks {lacking}"))
            else:
                arrival = Arrival(source, f"{source.name}:{content.version}", listing(files))
                notes += self._request(arrival, content.version)
        return notes

    def _request(self, arrival: Arrival, version: str) -> list[Note]:
        if reason := rival(self.storage, arrival, self.tick):
            return [("not taken, since the name is taken", reason)]
        self.memory.requested[arrival.source.name] = version
        self.tick.requested.append(arrival)
        return []


def _files(
    unit: Path, sources: Sequence[LocalSource]
) -> Iterator[tuple[LocalSource, list[tuple[str, int]] | DataError]]:
    """Name and size in bytes of the files of each source in a folder or zip, or why it cannot be taken."""
    if not sources:
        return
    if unit.is_dir():
        yield from ((source, sizes_of(Path(source.location))) for source in sources)
        return
    with open_archive(unit) as archive:  # once: the directory of a large zip takes seconds
        for source in sources:
            try:
                yield source, archive.files(source.member or "")
            except DataError as error:
                yield source, error


def _find(storage: Storage, name: str) -> Source | None:
    """A recording of this name in the inbox, or in the data root itself, where somebody may have put it."""
    archive = storage.inbox / f"{name}.zip"
    inside = [source for source in in_zip(archive) if source.name == name] if archive.is_file() else []
    folder = find_folder(storage.inbox / name) or (inside[0] if inside else None)
    return folder or find_folder(storage.recording(name))


KIND = Kind(LocalSource, _find, dg.Definitions(sensors=[inbox_sensor]))
