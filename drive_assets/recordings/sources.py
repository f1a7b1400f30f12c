"""The kinds of sources, and the file that names each recording's source."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drive_assets.recordings.files import listing, sizes_of
from drive_assets.recordings.imported import ImportSource
from drive_assets.recordings.local import LocalSource
from drive_assets.recordings.sharepoint.source import SharePointSource
from drive_assets.recordings.source import Source
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import write_json
from model.recording.folder import ORIGIN, parse_recording_name

KINDS: tuple[type[Source], ...] = (LocalSource, ImportSource, SharePointSource)
"""In the order in which they look for a recording whose source nobody named."""
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading a source raises if the file does not hold one."""


def to_dict(source: Source) -> dict[str, Any]:
    return {"kind": source.kind, **asdict(source)}


def from_dict(content: dict[str, Any]) -> Source:
    """Raises LookupError or TypeError if it is no source."""
    values = dict(content)
    return {kind.kind: kind for kind in KINDS}[values.pop("kind")](**values)


def register(storage: Storage, sources: Sequence[Source]) -> None:
    """Store sources, so that the `recording` asset finds them."""
    for source in sources:
        write_json(source_file(storage, source.name), to_dict(source))


def lookup(storage: Storage, name: str) -> Source:
    """The source of a recording: the registered one, else one that a kind finds by name.

    Raises:
        DataError: there is none.
    """
    source = _registered(storage, name)
    if source is not None and not source.is_gone(storage):
        return source
    for kind in KINDS:
        if (found := kind.find(storage, name)) is not None:
            return found
    gone = f" {source.location} does not exist any more." if source is not None else ""
    raise DataError(
        f"Recording {name} has no source.{gone} Run `drive-assets ingest PATH` with its folder or zip, or put it into "
        f"{storage.inbox}."
    )


def origin(storage: Storage, name: str) -> Source | None:
    """What a recording was made from, or will be; None if that is not known."""
    made_from = read_origin(storage.recording(name) / ORIGIN)
    return made_from[0] if made_from else _registered(storage, name)


def name_conflict(storage: Storage, source: Source, sizes: str) -> str:
    """Which other source holds a recording's name, with other content; empty if the name is free.

    A name belongs to the source that it was first requested from. Another one of the same kind gets it once the first
    is gone; a source of another kind never.

    Args:
        sizes: `listing` of the files of `source`.
    """
    earlier, folder = origin(storage, source.name), storage.recording(source.name)
    same_kind = earlier is not None and earlier.kind == source.kind
    if earlier is not None and same_kind and (earlier.place == source.place or earlier.is_gone(storage)):
        return ""
    if listing(sizes_of(folder)) == sizes if folder.is_dir() else earlier is None:
        return ""
    holder = earlier.location if earlier is not None else folder
    return f"{source.name} exists already from {holder} with other content than {source.location}"


def read_origin(path: Path) -> tuple[Source, str] | None:
    """The source in a recording's ORIGIN, and the hash of the content that was made from it.

    None if it cannot be read: then the content alone decides, and the next ingestion writes the file again.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("version")
        return from_dict(content), str(version)
    except _UNREADABLE:
        return None


def source_file(storage: Storage, name: str) -> Path:
    """The file that stores a recording's source."""
    parse_recording_name(name)
    return storage.sources / f"{name}.json"


def _registered(storage: Storage, name: str) -> Source | None:
    path = source_file(storage, name)
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        raise DataError(
            f"{path} does not name the source of {name} ({error}): remove it, and run `drive-assets ingest PATH` again."
        ) from error
