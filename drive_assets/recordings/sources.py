"""Sources of recordings: their base class, the known kinds, and the file that names each recording's source.

A new kind, such as an S3 bucket, is a module with a subclass of `Source` and a `KIND`, and a line in `KINDS`.
"""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg

from drive_assets.recordings.files import listing, sizes_of
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import write_json
from model.common.progress import Log
from model.recording.folder import ORIGIN, parse_recording_name

KINDS = (
    "drive_assets.recordings.simulated",
    "drive_assets.recordings.inbox",
    "drive_assets.recordings.sharepoint.definitions",
)
"""A module for each kind, in the order in which they look for a recording whose source nobody named. They are imported
when needed, since a kind imports this module."""
Transfer = dict[str, float | str]
"""Sizes, hashes and seconds of a copy or download, as metadata."""


@dataclass(frozen=True)
class Source(ABC):
    """Where one recording comes from. Subclasses are frozen dataclasses whose fields can be written as JSON."""

    kind: ClassVar[str]
    """Identifies the class; a source never replaces one of another kind."""
    name: str
    """The recording's."""
    location: str
    """For people: a path, or an address without secrets."""
    identity: str = field(default="", kw_only=True)
    """Changes with the content, where that is known without reading it; if empty, ingestion reads the content."""

    @property
    def place(self) -> str:
        """Identifies the folder, zip or item in all its versions."""
        return self.location

    @abstractmethod
    def fetch(self, storage: Storage, target: Path, log: Log) -> Transfer:
        """Write or link the recording's files into the empty folder `target`. The source is only read.

        Raises:
            DataError: it cannot be read, or is hostile; PassingError: a retry may succeed.
        """

    def release(self, storage: Storage) -> None:
        """Remove what `fetch` keeps for retries: the recording is ingested, or unusable."""
        return

    def is_gone(self, storage: Storage) -> bool:
        """Whether the source is known to exist no more."""
        return False


@dataclass(frozen=True)
class Kind:
    """What a module in `KINDS` exports."""

    source: type[Source]
    find: Callable[[Storage, str], Source | None] = lambda storage, name: None
    """The source of a recording of this name, if this kind can find it by name."""
    defs: dg.Definitions = field(default_factory=dg.Definitions)
    """Sensors and jobs by which recordings arrive."""


def kinds() -> list[Kind]:
    return [importlib.import_module(name).KIND for name in KINDS]


def to_dict(source: Source) -> dict[str, Any]:
    return {"kind": source.kind, **asdict(source)}


def from_dict(content: dict[str, Any]) -> Source:
    """Raises KeyError or TypeError if it is no source."""
    values = dict(content)
    # Files of early versions have no kind, and the fields of an item in SharePoint under `remote`.
    remote = values.pop("remote", None) or {}
    kind = values.pop("kind", "sharepoint" if remote else "local")
    source = {kind.source.kind: kind.source for kind in kinds()}[kind]
    return source(**values, **remote)


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
    for kind in kinds():
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
    if (
        earlier is not None
        and earlier.kind == source.kind
        and (earlier.place == source.place or earlier.is_gone(storage))
    ):
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
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
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
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not name the source of {name} ({error}): remove it, and run `drive-assets ingest PATH` again."
        ) from error
