"""The kinds of drives that can be imported, and what each must offer."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.common.errors import DataError
from model.common.progress import Log

MAPPING = "mapping.yaml"
"""The mapping file of a drive of kind `video`, beside the video and the logs."""
VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".ts", ".hevc", ".m4v", ".webm")
NO_MAPPING = f"holds a video and no {MAPPING}: draft one with `drive-assets import video FOLDER --draft`, and check it"
DEEPEST = 3
"""Levels of folders in which drives are looked for."""


@dataclass(frozen=True)
class Kind:
    """How drives of a kind are recognised."""

    module: str
    """Its IMPORTER is imported when needed, as its libraries are extras."""
    marks: tuple[str, ...]
    """Patterns of files, one of which a folder with such drives holds: as deep as its importer looks for what belongs
    together"""
    expected: str


KINDS = {
    "video": Kind("model.imports.video_with_logs", (MAPPING,), f"a folder with a video, its logs and {MAPPING}"),
    "tesla": Kind(
        "model.imports.tesla",
        tuple(f"{depth}????-??-??_??-??-??-front.mp4" for depth in ("", "*/", "*/*/")),
        "clips YYYY-MM-DD_HH-MM-SS-front.mp4",
    ),
    "openpilot": Kind(
        "model.imports.openpilot",
        tuple(
            f"{depth}{name}{packed}"
            for depth in ("", "*/", "*/*/", "*/*/*/")
            for name in ("[qr]log", "*--[qr]log")
            for packed in ("", ".zst", ".bz2")
        ),
        "folders of segments with rlog or qlog, and a video",
    ),
    "zod": Kind("model.imports.zod", ("vehicle_data.hdf5",), "folders with vehicle_data.hdf5"),
    "l2d": Kind("model.imports.l2d", ("meta/info.json",), "a LeRobot data set with meta/info.json"),
}


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
    found: Importer = importlib.import_module(KINDS[kind].module).IMPORTER
    return found


def kind_of(folder: Path) -> str:
    """The kind of the drives in a folder, by the names of its files; empty if it holds none."""
    return next((name for name, kind in KINDS.items() if _holds(folder, kind)), "")


def folders_of(kind: str, folder: Path, deepest: int = DEEPEST) -> Iterator[Path]:
    """The folder itself, or those in it, that hold drives of a kind, or a video of which it is not known."""
    if _holds(folder, KINDS[kind]) or (kind == "video" and has_video(folder)):
        yield folder
    elif deepest:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
            yield from folders_of(kind, inner, deepest - 1)


def has_video(path: Path) -> bool:
    """Whether a path is a video, or a folder with one."""
    inside = path.iterdir() if path.is_dir() else [path]
    return any(each.suffix.lower() in VIDEOS for each in inside)


def _holds(folder: Path, kind: Kind) -> bool:
    return any(next(folder.glob(mark), None) is not None for mark in kind.marks)
