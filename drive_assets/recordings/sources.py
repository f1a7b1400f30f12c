"""What a source of recordings is, which kinds there are, and the memory of which recording comes from where.

A new kind, say an S3 bucket, is a module that has `KIND`, and its line in `KINDS`.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import dagster as dg

from drive_assets.recordings.archives import taken_as
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import write_json
from model.common.progress import Tell
from model.recording.folder import ORIGIN, TELEMETRY, parse_recording_name
from model.recording.frame_files import is_frame

KINDS = (
    "drive_assets.recordings.simulated",
    "drive_assets.recordings.inbox",
    "drive_assets.recordings.sharepoint.definitions",
)
"""A module for each kind, in the order in which they are asked for a recording that nobody named a source of. They are
imported when they are needed: a kind may use all that is said here."""
Transfer = dict[str, float | str]
"""Sizes, hashes and seconds of what was moved, as metadata."""


class Source(Protocol):
    """Where one recording comes from: a frozen dataclass of JSON-ready fields."""

    kind: ClassVar[str]
    """Told apart by it; sources of different kinds never replace each other."""

    @property
    def name(self) -> str:
        """The recording's."""

    @property
    def location(self) -> str:
        """What it is, for people: a path or an address without secrets."""

    @property
    def place(self) -> str:
        """Identity of the folder, zip or item, whatever version it has."""

    @property
    def identity(self) -> str:
        """Of the content, where that is known without reading it; else empty, and ingest always reads it."""

    def fetch(self, storage: Storage, target: Path, tell: Tell) -> Transfer:
        """Write the recording's files into the empty folder `target`, or link them. The source is only read.

        Raises:
            DataError: it cannot be had, or is hostile; PassingError: the same may succeed later.
        """

    def release(self, storage: Storage) -> None:
        """The recording is taken, or can not be used: what `fetch` keeps for another try is needed no more."""

    def is_gone(self, storage: Storage) -> bool:
        """Whether it is known to be there no more."""


@dataclass(frozen=True)
class Kind:
    """What a module that stands in `KINDS` says of itself."""

    source: type[Source]
    find: Callable[[Storage, str], Source | None]
    """The source of a recording of this name, if one lies where this kind is looked for."""
    defs: dg.Definitions
    """Sensors and jobs by which recordings arrive."""


def kinds() -> list[Kind]:
    return [importlib.import_module(name).KIND for name in KINDS]


def missing(names: Sequence[str]) -> str:
    """What a recording with these files lacks to be complete; empty if nothing."""
    lacking = [TELEMETRY] if TELEMETRY not in map(taken_as, names) else []
    lacking += [] if any(is_frame(name) for name in names) else ["a frame (.jpg)"]
    return " and ".join(lacking)


def to_dict(source: Source) -> dict[str, Any]:
    return {"kind": source.kind, **asdict(cast(Any, source))}


def from_dict(content: dict[str, Any]) -> Source:
    """Raises KeyError or TypeError if it is no source."""
    values = dict(content)
    # Before kinds had names, a source had `remote`, filled in if it was in SharePoint.
    remote = values.pop("remote", None) or {}
    kind = values.pop("kind", "sharepoint" if remote else "local")
    source = {kind.source.kind: kind.source for kind in kinds()}[kind]
    return source(**values, **remote)


def register(storage: Storage, sources: Sequence[Source]) -> None:
    """Remember sources, so that the `recording` asset finds them."""
    for source in sources:
        write_json(memory_of(storage, source.name), to_dict(source))


def lookup(storage: Storage, name: str) -> Source:
    """The source of a recording: the remembered one, else one that a kind finds by name.

    Raises:
        DataError: there is none.
    """
    source = _remembered(storage, name)
    if source is not None and not source.is_gone(storage):
        return source
    for kind in kinds():
        if (found := kind.find(storage, name)) is not None:
            return found
    gone = f" {source.location} is gone." if source is not None else ""
    raise DataError(
        f"Recording {name} has no source.{gone} `drive-assets ingest PATH` with its folder or zip, or put it into "
        f"{storage.inbox}."
    )


def origin(storage: Storage, name: str) -> Source | None:
    """What a recording was made from, or will be; None if that is not known."""
    made_from = read_origin(storage.recording(name) / ORIGIN)
    return made_from[0] if made_from else _remembered(storage, name)


def read_origin(path: Path) -> tuple[Source, str] | None:
    """The source in a recording's ORIGIN, and the hash of the content that was made from it.

    None if it cannot be read: then the content alone decides, and the file is written anew.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("version")
        return from_dict(content), str(version)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def memory_of(storage: Storage, name: str) -> Path:
    """The file that remembers where a recording comes from."""
    parse_recording_name(name)
    return storage.sources / f"{name}.json"


def _remembered(storage: Storage, name: str) -> Source | None:
    path = memory_of(storage, name)
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not say where {name} comes from ({error}): remove it, and `drive-assets ingest PATH` again."
        ) from error
