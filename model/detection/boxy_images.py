"""The frames of a Boxy sequence as downloaded: a zip, or a folder of its extracted files."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from model.detection.yolo_dataset import LARGEST_FILE, DatasetReport

ZIP_FOLDER = "boxy_raw_scaled"
"""Where the publisher's server has the zips, beside the labels."""


def archive_stems(sequence: str) -> tuple[str, ...]:
    """Names, without suffix, that a sequence's zip may have."""
    return (sequence,) if sequence.startswith("bluefox_") else (sequence, f"bluefox_{sequence}_bag")


def folders(raw: Path, sequence: str) -> list[Path]:
    """Folders of a sequence's extracted frames."""
    return [path for folder in (raw, raw / ZIP_FOLDER) if (path := folder / sequence).is_dir()]


def archives(raw: Path, sequence: str) -> list[Path]:
    """Zips of a sequence's frames."""
    names = [f"{stem}.zip" for stem in archive_stems(sequence)]
    return [path for folder in (raw, raw / ZIP_FOLDER) for name in names if (path := folder / name).is_file()]


def images(
    raw: Path, known: Mapping[str, Path], sequence: str, frames: list[str], report: DatasetReport
) -> Iterator[tuple[int, Path | bytes]]:
    """Yield (index of the frame, a file to link or the PNG's bytes) of the frames that are there."""
    files = {path.name: path for folder in folders(raw, sequence) for path in folder.iterdir()}
    left = []
    for index, frame in enumerate(frames):
        path = files.get(f"{frame}.png")
        if path is None:
            left.append(index)
        else:
            yield index, path
    if not left:
        return
    zips = archives(raw, sequence)
    if not zips:
        report.drop("labels whose image is missing", len(left))
        return
    try:
        with zipfile.ZipFile(zips[0]) as archive:
            yield from _zipped(archive, known, sequence, frames, left, report)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        problem = f"{zips[0]} is a broken zip ({error}): delete it and download it again."
        report.drop("images whose zip is broken", len(left), problem)


def _zipped(
    archive: zipfile.ZipFile,
    known: Mapping[str, Path],
    sequence: str,
    frames: list[str],
    wanted: list[int],
    report: DatasetReport,
) -> Iterator[tuple[int, Path | bytes]]:
    members = {PurePosixPath(info.filename).name: info for info in archive.infolist() if not info.is_dir()}
    for index in wanted:
        info = members.get(f"{frames[index]}.png")
        if info is None:
            report.drop("labels whose image is missing")
            continue
        if info.file_size > LARGEST_FILE:
            report.drop("images too large")
            continue
        earlier = known.get(f"{sequence}__{frames[index]}.png")
        if earlier is not None and _same(earlier, info):
            yield index, earlier
            continue
        try:
            content = archive.read(info)  # checks the CRC
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            report.drop("images that are damaged", 1, f"{archive.filename}, {info.filename}: {error}.")
            continue
        yield index, content


def _same(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file is the member: a killed run may have left a part of it, a new zip may hold another."""
    try:
        return path.stat().st_size == info.file_size and zlib.crc32(path.read_bytes()) == info.CRC
    except OSError:
        return False
