"""The base class of sources of recordings."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from drive_assets.resources.storage import Storage
from model.common.progress import Log

Transfer = dict[str, float | str]
"""Sizes, hashes and seconds of a copy or download, as metadata."""


@dataclass(frozen=True)
class Source(ABC):
    """Where one recording comes from. Subclasses are frozen dataclasses whose fields can be written as JSON.

    `kind` and `fetch` suffice. Subclasses are listed in `sources.KINDS`.
    """

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

    @classmethod
    def find(cls, storage: Storage, name: str) -> "Source | None":
        """The source of a recording of this name, if this kind can find it by name."""
        return None

    @abstractmethod
    def fetch(self, storage: Storage, target: Path, log: Log) -> Transfer:
        """Write the recording's files, in our layout, into the empty folder `target`. The source is only read.

        Raises:
            DataError: it cannot be read, or is hostile; PassingError: a retry may succeed.
        """

    def release(self, storage: Storage) -> None:
        """Remove what `fetch` keeps for retries: the recording is ingested, or unusable."""
        return

    def is_gone(self, storage: Storage) -> bool:
        """Whether the source is known to exist no more."""
        return False
