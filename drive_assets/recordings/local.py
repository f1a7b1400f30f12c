"""Recordings in folders and zips of this machine, or of a file system that it mounts."""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from drive_assets.partitions import NO_NAME, is_recording_name
from drive_assets.recordings.archives import open_archive, unpack
from drive_assets.recordings.disk import Progress, check_space
from drive_assets.recordings.files import (
    Files,
    clashing_names,
    is_taken,
    missing_files,
    real_path,
    require_file,
    sizes_of,
    taken_as,
)
from drive_assets.recordings.imported import imports_in
from drive_assets.recordings.source import Source, Transfer
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.printable import is_printable, printable
from model.common.progress import Log
from model.imports.kinds import NO_MAPPING, has_video, kind_of
from model.recording.folder import TELEMETRY
from model.recording.frame_files import is_frame

NOT_A_ZIP = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zst")
UNFINISHED = (".crdownload", ".filepart", ".part", ".partial")
"""Suffixes of downloads and uploads in progress."""
OTHER = f"holds no recording: expected folders YYYY-MM-DD_HH-MM-SS with {TELEMETRY}, or zips of such"
NEUTRAL = (OTHER, NO_MAPPING)
"""Why a file or folder is not used that need not be one of ours."""


@dataclass(frozen=True)
class LocalSource(Source):
    """A folder of a recording, or a zip of one or several; `location` is its absolute path."""

    kind: ClassVar[str] = "local"
    member: str | None = None
    """Folder in the zip that holds the files, empty for its top; None if the source is a folder."""

    @classmethod
    def find(cls, storage: Storage, name: str) -> "Source | None":
        """A simulated drive, one in the inbox, or one in the data root itself, where a user may have put it.

        Raises:
            DataError: there are only incomplete or broken ones.
        """
        places = [storage.simulated / "recordings" / name, storage.inbox / name, storage.inbox / f"{name}.zip"]
        found, refused = find_all(list(filter(Path.exists, (*places, storage.recording(name)))))
        if not found and refused:
            raise DataError(refused[0])
        return next((source for source in found if source.name == name), None)

    def fetch(self, storage: Storage, target: Path, log: Log) -> Transfer:
        if self.member is None:
            return _copy_folder(Path(self.location), target, Progress(self.name, log))
        return unpack(Path(self.location), self.location, self.member, target, Progress(self.name, log))

    def is_gone(self, storage: Storage) -> bool:
        return not Path(self.location).exists()


def _copy_folder(folder: Path, target: Path, progress: Progress) -> Transfer:
    started = time.monotonic()
    inside = list(folder.iterdir())
    files = sorted(path for path in inside if is_taken(path.name))
    for path in files:
        require_file(path, folder.parent)
    if skipped := [printable(path.name) for path in inside if is_frame(path.name) and not is_taken(path.name)]:
        progress.log(f"{folder}: {len(skipped)} frames skipped, whose names cannot be printed: {skipped[:4]}")
    if clashes := clashing_names(path.name for path in files):
        raise DataError(f"{folder} has {', '.join(clashes[:4])}, which differ only in case: remove all but one.")
    total, done = sum(path.stat().st_size for path in files), 0
    check_space(target, total, folder.name)
    for path in files:
        try:
            shutil.copyfile(path, target / taken_as(path.name))
        except OSError as error:
            error.filename = error.filename or str(path)  # a failed read does not name the file
            raise
        done += path.stat().st_size
        progress(done, total)
    transfer: Transfer = {"copied_megabytes": total / 1e6, "copy_s": time.monotonic() - started}
    return transfer | ({"skipped_frames": ", ".join(skipped)} if skipped else {})


def find_all(paths: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """The recordings at `paths` (recordings, zips, folders of these), and one error for each thing refused.

    An error in one does not affect the others.
    """
    found: dict[str, Source] = {}
    refused: list[str] = []
    for path in (real_path(path.expanduser()) for path in paths):
        units = [(path, _problem(path) if path.exists() else "does not exist: check the path")]
        if path.is_dir() and units[0][1] in NEUTRAL:
            units = [(unit, problem) for unit, problem in find_units(path) if problem not in NEUTRAL] or units
        for unit, problem in units:
            try:
                if problem:
                    raise DataError(f"{unit} {problem}.")
                sources = sources_in(unit)
            except DataError as error:
                refused.append(str(error))
                continue
            except OSError as error:
                refused.append(f"{unit} cannot be read: {error.strerror}.")
                continue
            for source, files in sources:
                if fault := _fault(source, files):
                    refused.append(fault)
                elif source != found.setdefault(source.name, source):
                    refused.append(f"{source.location} holds {source.name}, as {found[source.name].location} does.")
    return list(found.values()), [printable(reason) for reason in refused]


def find_units(folder: Path, deeper: bool = True) -> Iterator[tuple[Path, str]]:
    """The recordings and zips in a folder and in folders in it, and what else is there, with the reason why it is none.

    Raises:
        OSError: the folder cannot be read.
    """
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        inside, problem = [], _problem(path)
        if deeper and problem in NEUTRAL and path.is_dir() and not path.is_symlink():
            inside = [(unit, reason) for unit, reason in find_units(path, deeper=False) if reason != OTHER]
        yield from inside or [(path, problem)]


def _problem(path: Path) -> str:
    """Why a file or folder is neither a recording nor a zip; empty if it is one."""
    if not is_printable(str(path)):
        return "has control characters in its path: rename it"
    if path.suffix.lower() in NOT_A_ZIP:
        return "is no zip: unpack it, and ingest the folder"
    if path.suffix.lower() in UNFINISHED:
        return "is an unfinished download or copy: wait until it is complete, or remove it"
    try:
        if path.is_dir():
            is_unit = _has_telemetry(path) or kind_of(path) != ""
            is_unit = is_unit or (is_recording_name(path.name) and not has_video(path))
        else:
            is_unit = path.suffix.lower() == ".zip" and path.exists()
        return "" if is_unit else NO_MAPPING if has_video(path) else OTHER
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def is_import(unit: Path) -> bool:
    """Whether a folder holds drives of another recorder."""
    return unit.is_dir() and not _has_telemetry(unit) and kind_of(unit) != ""


def _has_telemetry(folder: Path) -> bool:
    return TELEMETRY in (taken_as(path.name) for path in folder.iterdir())


def sources_in(unit: Path) -> list[tuple[Source, Files | None]]:
    """The recordings that a folder or a zip holds, with their files, and the drives of other recorders in a folder.

    Raises:
        DataError: it holds none, or the zip is broken or hostile.
    """
    if is_import(unit):
        return [(source, None) for source in imports_in(unit, kind_of(unit), {})]
    if unit.is_dir():
        return [(LocalSource(unit.name, str(unit)), sizes_of(unit))]
    with open_archive(unit) as archive:
        recordings = archive.recordings()
    if not recordings:
        raise DataError(f"{unit} {OTHER}.")
    return [(LocalSource(name, str(unit), folder), files) for name, (folder, files) in recordings.items()]


def _fault(source: Source, files: Files | None) -> str:
    """Why a recording cannot be ingested; empty if its name is valid and no file is missing."""
    if not is_recording_name(source.name):
        return f"{source.location} holds {source.name!r}, {NO_NAME}: rename the folder."
    if files is None or not (missing := missing_files(files)):
        return ""
    where = source.location if source.name == Path(source.location).name else f"{source.name} in {source.location}"
    return f"{where} lacks {missing}: copy the whole recording."
