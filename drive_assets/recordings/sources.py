"""Where recordings come from: a folder, a zip of one or several, or either in SharePoint; remembered by name."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drive_assets.recordings.archives import open_archive
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import write_json
from model.recording.folder import TELEMETRY, parse_recording_name

ORIGIN_FILE = ".source.json"
"""In a recording's folder: the source that it was made from."""


@dataclass(frozen=True)
class Remote:
    """An item of a SharePoint library: never an address to download it from, which is a secret of some minutes."""

    drive: str
    item: str
    identity: str
    """Of the content that was seen there: hashes where there are some."""
    sizes: str
    """Of the same, by names and sizes alone, which are never missing."""


@dataclass(frozen=True)
class Source:
    """One recording's source."""

    name: str
    location: str
    """Absolute path of a folder, or of a zip; of an item of SharePoint `sharepoint:` and its path in the library."""
    member: str | None = None
    """Folder in the zip that holds the files, empty for its top; None if the source is a folder."""
    remote: Remote | None = None

    def is_same_place(self, other: "Source") -> bool:
        """Whether both are one folder, or one zip, or one item of SharePoint, in whatever version."""
        if self.remote and other.remote:
            return (self.remote.drive, self.remote.item) == (other.remote.drive, other.remote.item)
        return self.remote is other.remote and self.location == other.location

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def source_from_dict(content: dict[str, Any]) -> Source:
    remote = content.get("remote")
    return Source(content["name"], content["location"], content["member"], Remote(**remote) if remote else None)


def find_recordings(path: Path) -> list[Source]:
    """The recordings at `path`: a recording's folder, a zip, or a folder that holds some of these.

    Raises:
        DataError: nothing is there, a zip is broken or hostile, a name is no timestamp, or a name comes twice.
    """
    path = path.expanduser().resolve()
    if not path.exists():
        raise DataError(f"{path} does not exist: expected a recording, a zip of some, or a folder of them.")
    if path.is_file() and path.suffix.lower() != ".zip":
        raise DataError(f"{path} is no folder and no zip: expected a recording, a zip of some, or a folder of them.")
    found: list[Source] = []
    for unit in _units(path):
        found += [Source(unit.name, str(unit))] if (unit / TELEMETRY).is_file() else _in_zip(unit)
    if not found:
        raise DataError(f"{path} holds no recording: expected folders YYYY-MM-DD_HH-MM-SS with {TELEMETRY}.")
    for source in found:
        parse_recording_name(source.name)
    names = [source.name for source in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} holds {', '.join(twice)} more than once: leave one of each.")
    return found


def find_all(paths: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """The recordings at `paths`, and why others there are none: a bad one does not take the good ones with it."""
    found: dict[str, Source] = {}
    refused: list[str] = []
    for unit in (unit for path in paths for unit in _units(path) or [path]):
        try:
            sources = find_recordings(unit)
        except DataError as error:
            refused.append(str(error))
            continue
        for source in sources:
            if source != found.setdefault(source.name, source):
                refused.append(f"{source.location} holds {source.name}, as {found[source.name].location} does.")
    return list(found.values()), refused


def _units(path: Path) -> list[Path]:
    """The folders and zips of recordings in a folder that is no recording itself; else the path."""
    if not path.is_dir() or (path / TELEMETRY).is_file():
        return [path]
    inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    return [p for p in inside if (p / TELEMETRY).is_file() or p.suffix.lower() == ".zip"]


def is_recording_name(name: str) -> bool:
    try:
        parse_recording_name(name)
    except DataError:
        return False
    return True


def register(storage: Storage, sources: Sequence[Source]) -> None:
    """Remember sources, so that the `recording` asset finds them."""
    for source in sources:
        write_json(storage.sources / f"{source.name}.json", source.to_dict())


def lookup(storage: Storage, name: str) -> Source:
    """The source of a recording: the remembered one, a simulated drive, the inbox, or what is there already.

    Raises:
        DataError: there is none.
    """
    parse_recording_name(name)
    source = _read(storage.sources / f"{name}.json")
    if source is not None and (source.remote or Path(source.location).exists()):
        return source
    for folder in (storage.simulated / "recordings" / name, storage.inbox / name, storage.recording(name)):
        if (folder / TELEMETRY).is_file():
            return Source(name, str(folder))
    archive = storage.inbox / f"{name}.zip"
    inside = [source for source in _in_zip(archive) if source.name == name] if archive.is_file() else []
    if inside:
        return inside[0]
    raise DataError(
        f"Recording {name} has no source: `drive-assets ingest PATH` with its folder or zip, or put it into "
        f"{storage.inbox}."
    )


def origin(storage: Storage, name: str) -> Source | None:
    """What a recording was made from, or will be; None if that is not known."""
    made_from = read_origin(storage.recording(name) / ORIGIN_FILE)
    return made_from[0] if made_from else _read(storage.sources / f"{name}.json")


def read_origin(path: Path) -> tuple[Source, str] | None:
    """The source in a recording's ORIGIN_FILE, and the hash of the content that was made from it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return source_from_dict(content), content["version"]


def _read(path: Path) -> Source | None:
    try:
        return source_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _in_zip(path: Path) -> list[Source]:
    with open_archive(path) as archive:
        return [Source(name, str(path), folder) for name, folder in archive.recordings().items()]
