"""The kinds of drives that can be imported, and what each must offer."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from model.common.errors import DataError
from model.common.progress import Log

KINDS = {
    "video": "model.imports.video_with_logs",
    "tesla": "model.imports.tesla",
    "openpilot": "model.imports.openpilot",
    "zod": "model.imports.zod",
    "l2d": "model.imports.l2d",
}
"""The module of each kind; its IMPORTER is imported when needed, as its libraries are extras."""


@dataclass(frozen=True)
class Drive:
    """A drive that can become a recording."""

    kind: str
    name: str
    """The recording's: its start, YYYY-MM-DD_HH-MM-SS"""
    place: Path
    """What the user named, or the folder or file in it that holds this drive"""
    files: tuple[Path, ...]
    options: dict[str, str] = field(default_factory=dict)


class Importer(ABC):
    """Finds drives of a kind, and writes them as recordings. The originals are only read."""

    kind: ClassVar[str]

    @abstractmethod
    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        """The drives at `path`; none if it holds no drive of this kind.

        Raises:
            DataError: it holds one that cannot be read.
        """

    @abstractmethod
    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        """Write the drive's recording into the empty `folder`.

        Raises:
            DataError: it cannot be read.
        """


def importer(kind: str) -> Importer:
    """Raises DataError if there is no such kind."""
    if kind not in KINDS:
        raise DataError(f"kind {kind}: expected one of {', '.join(KINDS)}.")
    found: Importer = importlib.import_module(KINDS[kind]).IMPORTER
    return found
