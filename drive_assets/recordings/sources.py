"""Where recordings come from: a folder, or a zip of one or several folders; remembered by name."""

import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from drive_assets.resources.storage import Storage
from model.errors import DataError
from model.files import write_json
from model.recording import TELEMETRY, parse_recording_name


@dataclass(frozen=True)
class Source:
    """One recording's source."""

    name: str
    location: str
    """Absolute path of a folder, or of a zip."""
    member: str | None = None
    """Folder in the zip that holds the files, empty for its top; None if the source is a folder."""


def find_recordings(path: Path) -> list[Source]:
    """The recordings at `path`: a recording's folder, a zip, or a folder that holds some of these.

    Raises:
        DataError: nothing is there, a zip is broken, a name is no timestamp, or a name comes twice.
    """
    path = path.expanduser().resolve()
    if path.is_file() and path.suffix.lower() == ".zip":
        found = _in_zip(path)
    elif path.is_dir() and (path / TELEMETRY).is_file():
        found = [Source(path.name, str(path))]
    elif path.is_dir():
        inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        found = [Source(p.name, str(p)) for p in inside if p.is_dir() and (p / TELEMETRY).is_file()]
        for archive in (p for p in inside if p.suffix.lower() == ".zip"):
            found += _in_zip(archive)
    elif path.exists():
        raise DataError(f"{path} is no folder and no zip: expected a recording, a zip of some, or a folder of them.")
    else:
        raise DataError(f"{path} does not exist: expected a recording, a zip of some, or a folder of them.")
    if not found:
        raise DataError(f"{path} holds no recording: expected folders YYYY-MM-DD_HH-MM-SS with {TELEMETRY}.")
    for source in found:
        parse_recording_name(source.name)
    names = [source.name for source in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} holds {', '.join(twice)} more than once: leave one of each.")
    return found


def register(storage: Storage, sources: Sequence[Source]) -> None:
    """Remember sources, so that the `recording` asset finds them."""
    for source in sources:
        write_json(storage.sources / f"{source.name}.json", asdict(source))


def lookup(storage: Storage, name: str) -> Source:
    """The source of a recording: the remembered one, a simulated drive, the inbox, or what is there already.

    Raises:
        DataError: there is none.
    """
    parse_recording_name(name)
    remembered = storage.sources / f"{name}.json"
    if remembered.is_file():
        source = Source(**json.loads(remembered.read_text(encoding="utf-8")))
        if Path(source.location).exists():
            return source
    for folder in (storage.simulated / "recordings" / name, storage.inbox / name, storage.recording(name)):
        if (folder / TELEMETRY).is_file():
            return Source(name, str(folder))
    archive = storage.inbox / f"{name}.zip"
    if archive.is_file():
        return next(source for source in _in_zip(archive) if source.name == name)
    raise DataError(
        f"Recording {name} has no source: `drive-assets ingest PATH` with its folder or zip, or put it into "
        f"{storage.inbox}."
    )


def open_zip(path: Path) -> zipfile.ZipFile:
    """Raises DataError if `path` is no zip."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no whole zip ({error}): copy it again.") from error


def _in_zip(path: Path) -> list[Source]:
    with open_zip(path) as archive:
        tables = [PurePosixPath(n) for n in archive.namelist() if re.search(rf"(^|/){re.escape(TELEMETRY)}$", n)]
    return [
        Source(
            path.stem if str(t.parent) == "." else t.parent.name,
            str(path),
            "" if str(t.parent) == "." else str(t.parent),
        )
        for t in sorted(tables)
    ]
