"""`annotations.csv`: the detections of each frame, in memory as flat arrays with offsets."""

import contextlib
import csv
import itertools
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
from model.recording.tables import read_table

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
        """From an (n,6) array of each frame: x1, y1, x2, y2, confidence, class id. Sorts by falling confidence.

        Rounds as the file does, to 0.01 px and 0.0001, so that frames that are read back give the same file.
        """
        ordered = [boxes[np.argsort(-boxes[:, 4], kind="stable")] for boxes in detections]
        flat = np.concatenate(ordered) if ordered else np.empty((0, 6), np.float32)
        offsets = np.cumsum([0, *map(len, ordered)], dtype=np.int64)
        box = flat[:, :4].astype(float).round(2)
        area = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).round(2).astype(np.float32)
        confidence = flat[:, 4].astype(float).round(4).astype(np.float32)
        class_id = flat[:, 5].astype(np.int16)
        return cls(list(times), list(filenames), offsets, class_id, confidence, box.astype(np.float32), area)

    def frame(self, index: int) -> npt.NDArray[np.float32]:
        """(n,6) detections of a frame: x1, y1, x2, y2, confidence, class id."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return np.column_stack([self.box[part], self.confidence[part], self.class_id[part]]).astype(np.float32)


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
        DataError: missing, not the table, or a row whose lists are not JSON or differ in length; names the row.
    """
    table = read_table(path, ANNOTATION_COLUMNS, "annotate", str)
    lists = {name: _json_lists(path, table[name]) for name in ("class_ids", "confidences", "bboxes", "areas")}
    counts = [len(values) for values in lists["class_ids"]]
    for name, rows in lists.items():
        for row, (values, count) in enumerate(zip(rows, counts, strict=True)):
            if len(values) != count:
                raise DataError(f"{path}, row {row + 2}: {name} and class_ids differ in length; annotate again.")
    flat = {name: list(itertools.chain.from_iterable(rows)) for name, rows in lists.items()}
    try:
        return Annotations(
            time=table["Time"].tolist(),
            filename=table["filename"].tolist(),
            offsets=np.cumsum([0, *counts], dtype=np.int64),
            class_id=np.array(flat["class_ids"], np.int16),
            confidence=np.array(flat["confidences"], np.float32),
            box=np.array(flat["bboxes"], np.float32).reshape(-1, 4),
            area=np.array(flat["areas"], np.float32),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} holds a detection that is not numbers, or a box that is not four: annotate again."
        ) from error


def _json_lists(path: Path, column: pd.Series) -> list[list]:
    parsed: list[list] = []
    for row, cell in enumerate(column):
        values = None
        with contextlib.suppress(ValueError):
            values = json.loads(cell)
        if not isinstance(values, list):
            raise DataError(
                f"{path}, row {row + 2}, column {column.name}: {cell[:40]!r} is not a JSON list; annotate again."
            )
        parsed.append(values)
    return parsed
