"""`annotations.csv`: the detections of each frame, in memory as flat arrays with offsets."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.files import atomic_path

ANNOTATION_COLUMNS = ("Time", "filename", "vehicle_count", "class_ids", "confidences", "bboxes", "areas")


@dataclass(frozen=True)
class Annotations:
    """N frames with M detections in all; those of frame i are `offsets[i]:offsets[i + 1]`, by falling confidence."""

    time: list[str]
    filename: list[str]
    offsets: npt.NDArray[np.int64]
    """(N+1,)"""
    class_id: npt.NDArray[np.int16]
    """(M,)"""
    confidence: npt.NDArray[np.float32]
    """(M,)"""
    box: npt.NDArray[np.float32]
    """(M,4) x1, y1, x2, y2 in px of the region of interest"""
    area: npt.NDArray[np.float32]
    """(M,) px2"""

    def __len__(self) -> int:
        return len(self.time)

    @property
    def count(self) -> npt.NDArray[np.int64]:
        """(N,) detections of each frame."""
        return np.diff(self.offsets)

    @classmethod
    def from_frames(
        cls, times: Sequence[str], filenames: Sequence[str], detections: Iterable[npt.NDArray[np.float32]]
    ) -> Self:
        """From one (n,6) array a frame: x1, y1, x2, y2, confidence, class id. Sorts by falling confidence.

        Rounds to what the file holds, 0.01 px and 0.0001, so that frames read back give the same file.
        """
        ordered = [found[np.argsort(-found[:, 4], kind="stable")] for found in detections]
        flat = np.concatenate(ordered) if ordered else np.empty((0, 6), np.float32)
        offsets = np.concatenate([[0], np.cumsum([len(found) for found in ordered])]).astype(np.int64)
        box = flat[:, :4].astype(float).round(2)
        area = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).round(2).astype(np.float32)
        confidence = flat[:, 4].astype(float).round(4).astype(np.float32)
        class_id = flat[:, 5].astype(np.int16)
        return cls(list(times), list(filenames), offsets, class_id, confidence, box.astype(np.float32), area)

    def frame(self, index: int) -> npt.NDArray[np.float32]:
        """(n,6) detections of a frame: x1, y1, x2, y2, confidence, class id."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return np.column_stack([self.box[part], self.confidence[part], self.class_id[part]]).astype(np.float32)

    def select(self, frames: Sequence[int]) -> "Annotations":
        """The named frames, in the order given."""
        names = [self.time[i] for i in frames], [self.filename[i] for i in frames]
        return Annotations.from_frames(*names, [self.frame(i) for i in frames])


def write_annotations(path: Path, annotations: Annotations) -> None:
    """Write the table, atomically: boxes and areas to 0.01 px, confidences to 0.0001."""
    class_ids = annotations.class_id.tolist()
    confidences = annotations.confidence.astype(float).round(4).tolist()
    boxes = annotations.box.astype(float).round(2).tolist()
    areas = annotations.area.astype(float).round(2).tolist()
    offsets = annotations.offsets.tolist()
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(ANNOTATION_COLUMNS)
        for index, (time, filename) in enumerate(zip(annotations.time, annotations.filename, strict=True)):
            part = slice(offsets[index], offsets[index + 1])
            lists = (class_ids[part], confidences[part], boxes[part], areas[part])
            writer.writerow([time, filename, len(lists[0]), *(json.dumps(values) for values in lists)])


def read_annotations(path: Path) -> Annotations:
    """Read the table.

    Raises:
        DataError: missing, not the table, or a row whose lists are no JSON or of unequal lengths; names the row.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: annotate the recording first.") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no table of annotations ({error}): annotate the recording again.") from error
    missing = [name for name in ANNOTATION_COLUMNS if name not in table.columns]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: expected the columns {', '.join(ANNOTATION_COLUMNS)}.")
    class_ids, confidences, boxes, areas = (
        _json_lists(path, table[name]) for name in ("class_ids", "confidences", "bboxes", "areas")
    )
    counts = np.array([len(values) for values in class_ids], np.int64)
    for name, lists in (("confidences", confidences), ("bboxes", boxes), ("areas", areas)):
        unequal = np.flatnonzero(counts != np.array([len(values) for values in lists], np.int64))
        if unequal.size:
            raise DataError(f"{path}, row {unequal[0] + 2}: {name} and class_ids differ in length; annotate again.")
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    try:
        flat = np.array([box for row in boxes for box in row], np.float32).reshape(-1, 4)
        return Annotations(
            time=table["Time"].tolist(),
            filename=table["filename"].tolist(),
            offsets=offsets,
            class_id=np.array([value for row in class_ids for value in row], np.int16),
            confidence=np.array([value for row in confidences for value in row], np.float32),
            box=flat,
            area=np.array([value for row in areas for value in row], np.float32),
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} holds a detection that is no number or no box of four: annotate again.") from error


def _json_lists(path: Path, column: pd.Series) -> list[list]:
    """Parse a column of JSON lists at once; only when that fails look for the row."""
    cells = column.tolist()
    try:
        parsed: list[list] = json.loads("[" + ",".join(cells) + "]")
        if len(parsed) == len(cells) and all(isinstance(values, list) for values in parsed):
            return parsed
    except ValueError:
        pass
    for number, cell in enumerate(cells):
        try:
            if isinstance(json.loads(cell), list):
                continue
        except ValueError:
            pass
        raise DataError(
            f"{path}, row {number + 2}, column {column.name}: {cell[:40]!r} is no JSON list; annotate again."
        )
    raise DataError(f"{path}, column {column.name}: expected one JSON list a row; annotate again.")
