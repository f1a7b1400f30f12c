"""The frames of a Boxy sequence: a zip as downloaded, or a folder of its extracted files."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from model.detection.yolo_dataset import LARGEST_FILE, DatasetReport

ZIP_FOLDER = "boxy_raw_scaled"
"""Folder of the zips on the publisher's server, beside the labels."""


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


def image_name(sequence: str, file: str) -> str:
    """The name that a frame's file has in the data set."""
    return f"{sequence}__{file}"


def images(
    raw: Path, known: Mapping[str, Path], sequence: str, files: Mapping[int, str], report: DatasetReport
) -> Iterator[tuple[int, Path | bytes]]:
    """Yield (index, a file to link or the PNG's bytes) of the frames that are in `raw`; the others are reported.

    Args:
        known: images of earlier conversions by name, linked instead of extracted again.
        files: file names of the frames by index.
    """
    extracted = {path.name: path for folder in folders(raw, sequence) for path in folder.iterdir()}
    zipped = {index: name for index, name in files.items() if name not in extracted}
    yield from ((index, extracted[name]) for index, name in files.items() if name in extracted)
    zips = archives(raw, sequence)
    if not zipped or not zips:
        report.drop("labels whose image is missing", len(zipped))
        return
    try:
        with zipfile.ZipFile(zips[0]) as archive:
            members = {PurePosixPath(info.filename).name: info for info in archive.infolist() if not info.is_dir()}
            for index, name in zipped.items():
                info = members.get(name)
                if info is None:
                    report.drop("labels whose image is missing")
                    continue
                image = _extracted(archive, info, known.get(image_name(sequence, name)), report)
                if image is not None:
                    yield index, image
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        problem = f"{zips[0]} is a broken zip ({error}): delete it and download it again."
        report.drop("images whose zip is broken", len(zipped), problem)


def _extracted(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, earlier: Path | None, report: DatasetReport
) -> Path | bytes | None:
    """A member's content, or the earlier image if it has that content; None, reported, if it is damaged or too large.

    A killed run may have cut the earlier image, and a new zip may hold another one.
    """
    if info.file_size > LARGEST_FILE:
        report.drop("images too large")
        return None
    try:
        if earlier and earlier.stat().st_size == info.file_size and zlib.crc32(earlier.read_bytes()) == info.CRC:
            return earlier
        return archive.read(info)  # checks the CRC
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        report.drop("images that are damaged", 1, f"{archive.filename}, {info.filename}: {error}.")
        return None
