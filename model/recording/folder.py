"""A recording on disk: its name, what its folder holds, and whether that can be used."""

import hashlib
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from model.common.errors import DataError
from model.recording.telemetry import TelemetryReport, read_telemetry

TELEMETRY = "telemetry.csv"
NAME_FORMAT = "%Y-%m-%d_%H-%M-%S"
EXAMPLES = 10
"""Names that a report lists of each kind of trouble."""
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}")
_START, _END, _TAIL = b"\xff\xd8", b"\xff\xd9", 4096


@dataclass(frozen=True)
class RecordingReport:
    """What a recording holds. A frame is usable if its JPEG is whole and the telemetry has its row."""

    name: str
    telemetry: TelemetryReport
    frames: int
    usable_frames: int
    frames_without_row: int
    rows_without_frame: int
    truncated_frames: int
    examples: dict[str, list[str]]
    """Names of at most ten of each kind of trouble."""
    frame_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse_recording_name(name: str) -> datetime:
    """The start of a drive from its folder's name.

    Raises:
        DataError: it is not `YYYY-MM-DD_HH-MM-SS` of a real moment.
    """
    if _NAME.fullmatch(name):
        try:
            return datetime.strptime(name, NAME_FORMAT)
        except ValueError:
            pass
    raise DataError(
        f"Recording name {name!r}: expected the drive's start as YYYY-MM-DD_HH-MM-SS, such as 2024-05-31_08-15-00; "
        "rename the folder."
    )


def inspect_recording(folder: Path, check_frames: bool = True) -> RecordingReport:
    """Validate a recording's folder. Frames that are cut, missing or without a row are counted, not refused.

    Args:
        check_frames: look for each JPEG's start and end marker, so that truncated ones are found without decoding.

    Raises:
        DataError: no telemetry or wrong telemetry, or no frame that can be used.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: expected a recording with {TELEMETRY} and its frames.")
    table, telemetry = read_telemetry(folder / TELEMETRY)
    files = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".jpg"}
    rows = set(table["Time"])
    truncated = sorted(name for name, path in files.items() if check_frames and not is_whole_jpeg(path))
    without_row = sorted(files.keys() - rows)
    without_frame = sorted(rows - files.keys())
    usable = len((files.keys() & rows) - set(truncated))
    if usable == 0:
        raise DataError(
            f"{folder} has no usable frame: {len(files)} JPEG files for {len(rows)} valid rows of {TELEMETRY}. "
            "Expected files named <Time>.jpg beside it."
        )
    return RecordingReport(
        name=folder.name,
        telemetry=telemetry,
        frames=len(files),
        usable_frames=usable,
        frames_without_row=len(without_row),
        rows_without_frame=len(without_frame),
        truncated_frames=len(truncated),
        examples={
            "frames_without_row": without_row[:EXAMPLES],
            "rows_without_frame": without_frame[:EXAMPLES],
            "truncated_frames": truncated[:EXAMPLES],
        },
        frame_bytes=sum(path.stat().st_size for path in files.values()),
    )


def is_whole_jpeg(path: Path) -> bool:
    """Whether a file begins and ends as a JPEG does; what cameras append to the end is tolerated."""
    with path.open("rb") as stream:
        if stream.read(2) != _START:
            return False
        size = stream.seek(0, 2)
        stream.seek(max(2, size - _TAIL))
        return _END in stream.read()


def content_hash(folder: Path) -> str:
    """Twelve hex digits that identify a recording: its telemetry, and its frames' names and sizes."""
    digest = hashlib.sha256((folder / TELEMETRY).read_bytes())
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() == ".jpg"):
        digest.update(f"{path.name}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:12]
