import csv
from pathlib import Path

import pytest

from model.common.errors import DataError
from model.recording.annotations import ANNOTATION_COLUMNS, read_annotations


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            ("[0", "[0.9]", "[[1, 2, 3, 4]]", "[4]"),
            r"row 3, column class_ids: '\[0' is not a JSON list; annotate again",
        ),
        (("[0]", "0.9", "[[1, 2, 3, 4]]", "[4]"), "row 3, column confidences: '0.9' is not a JSON list"),
        (("[0]", "[]", "[[1, 2, 3, 4]]", "[4]"), "row 3: confidences and class_ids differ in length"),
        (("[0]", "[0.9]", "[[1, 2, 3]]", "[4]"), "a box that is not four"),
        (("[0]", '["x"]', "[[1, 2, 3, 4]]", "[4]"), "a detection that is not numbers"),
    ],
)
def test_a_broken_cell_is_named(tmp_path: Path, lists: tuple[str, ...], message: str) -> None:
    path = tmp_path / "annotations.csv"
    with path.open("w", newline="") as stream:
        rows = (("2024-05-01 10-00-00-0", "a.jpg", 0, *["[]"] * 4), ("2024-05-01 10-00-00-5", "b.jpg", 1, *lists))
        csv.writer(stream).writerows((ANNOTATION_COLUMNS, *rows))
    with pytest.raises(DataError, match=message):
        read_annotations(path)
