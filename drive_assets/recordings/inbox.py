"""Recordings that arrive by themselves: folders and zips dropped into the inbox."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from drive_assets.batches import told
from drive_assets.partitions import is_recording_name
from drive_assets.recordings import arrivals
from drive_assets.recordings.archives import listing, open_archive
from drive_assets.recordings.arrivals import INTERVAL_S, Arrival, ArrivalRules, Tick, age_text, rival, sizes_of
from drive_assets.recordings.local import LocalSource, find_all, find_folder, in_zip, is_recording, is_zip
from drive_assets.recordings.sources import Kind, Source, missing
from drive_assets.resources.storage import Storage
from model.common.config import fingerprint
from model.common.errors import DataError
from model.recording.folder import TELEMETRY


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
    known: dict[str, str] = json.loads(context.cursor or "{}")
    if not storage.inbox.is_dir():
        return dg.SkipReason(f"{storage.inbox} does not exist; make it and drop recordings there.")
    tick = Tick(arrival_rules)
    for unit in _units(storage.inbox, tick):
        if tick.is_full:
            tick.tell("left for the next tick", f"{unit.name} and what follows")
            break
        try:
            _look(storage, unit, known, tick)
        except Exception as error:  # whatever is wrong with one, the others go on
            tick.warn("refused", f"{unit.name}: {told(error)}")
    return tick.result(context, storage, json.dumps(known), f"Nothing new in {storage.inbox}")


def _units(inbox: Path, tick: Tick) -> Iterator[Path]:
    """Folders and zips that each arrive as a whole: those in the inbox, and those in folders of it."""
    for entry in sorted(path for path in inbox.iterdir() if not path.name.startswith(".")):
        try:
            units = [entry] if _is_unit(entry) else []
            if not units and entry.is_dir() and not entry.is_symlink():
                units = [path for path in sorted(entry.iterdir()) if _is_unit(path)]
        except OSError as error:
            tick.warn("refused", f"{entry.name} cannot be read: {error.strerror}")
            continue
        if not units:
            tick.tell("without a recording", f"{entry.name} is no zip, and no folder with {TELEMETRY}")
        yield from units


def _is_unit(path: Path) -> bool:
    return is_recording_name(path.name) or is_recording(path) if path.is_dir() else is_zip(path)


def _look(storage: Storage, unit: Path, known: dict[str, str], tick: Tick) -> None:
    """Request what is new in a folder or zip, or tell why not.

    Raises:
        DataError: it is a link, or a zip that is broken or hostile.
    """
    if unit.is_symlink():
        raise DataError(f"it is a link to {os.path.realpath(unit)}: put what it points to into the inbox.")
    version, age = _state(unit)
    wanted = tick.rules.settling_s
    if age < wanted:
        tick.tell("not settled", f"{unit.name} changed {age_text(age)} ago, {age_text(wanted)} are waited for")
        return
    if unit.is_dir() and (lacking := missing([path.name for path in unit.iterdir()])):
        tick.tell("not complete", f"{unit.name} lacks {lacking}")
        return
    sources, refused = find_all([unit])
    for reason in refused:
        tick.warn("refused", f"{unit.name}: {reason}")
    for source in sources:
        if known.get(source.name) == version:
            continue
        files = _files(source)
        if lacking := missing([name for name, _ in files]):
            tick.tell("not complete", f"{source.name} in {unit.name} lacks {lacking}")
            continue
        arrival = Arrival(source, f"{source.name}:{version}", listing(files))
        if reason := rival(storage, arrival, tick):
            tick.tell("not taken, since the name is taken", reason)
            continue
        known[source.name] = version
        tick.requested.append(arrival)


def _files(source: LocalSource) -> list[tuple[str, int]]:
    if source.member is None:
        return sizes_of(Path(source.location))
    with open_archive(Path(source.location)) as archive:
        return archive.files(source.member)


def _state(unit: Path) -> tuple[str, float]:
    """Identity of a folder's or zip's content (names, sizes, times), and seconds since its last change.

    The change is that of the inode: copying tools keep the other time of the files that they copy.
    """
    paths = [unit, *sorted(unit.rglob("*"))] if unit.is_dir() else [unit]
    stats = [(path, path.lstat()) for path in paths]
    files = [(str(p.relative_to(unit.parent)), s.st_size, s.st_mtime_ns) for p, s in stats if stat.S_ISREG(s.st_mode)]
    return fingerprint(files), arrivals.now() - max(each.st_ctime for _, each in stats)


def _find(storage: Storage, name: str) -> Source | None:
    """A recording of this name in the inbox, or in the data root itself, where somebody may have put it."""
    archive = storage.inbox / f"{name}.zip"
    inside = [source for source in in_zip(archive) if source.name == name] if archive.is_file() else []
    folder = find_folder(storage.inbox / name) or (inside[0] if inside else None)
    return folder or find_folder(storage.recording(name))


KIND = Kind(LocalSource, _find, dg.Definitions(sensors=[inbox_sensor]))
