"""Files of the Rerun viewer, read by Rerun's own reader."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rerun.chunk import RrdReader

from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from model.common.errors import DataError
from model.evaluation.forecast import ALARM, FORECAST, FOUND, MISSED, PREDICTIONS, Forecast, Moment
from model.evaluation.results import AlarmThreshold
from model.evaluation.viewer import write_viewer_file
from model.recording.folder import Recording

ROWS = 60


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """An annotated and predicted drive: frame i has i % 15 boxes."""
    folder = labelled_drive(tmp_path / "2024-05-01_10-00-00", ROWS)
    times = Recording(folder).telemetry()[0]["Time"].tolist()
    rows = [
        f"{time},{'' if row < 19 else row / 100},,{'' if row > 18 else 'too early'}" for row, time in enumerate(times)
    ]
    (folder / PREDICTIONS).write_text("Time,brake_1s,alarms,reason\n" + "\n".join(rows))
    moments = [
        Moment(task="brake_1s", kind=kind, time=times[row], row=row, end=row, probability=0.5)
        for kind, row in ((FOUND, 25), (MISSED, 30), (ALARM, 40), (MISSED, 50))
    ]
    threshold = AlarmThreshold(budget=3, on=0.4, off=0.3)
    Forecast(
        architecture="simple_concat_lstm", data_version="v1", checkpoint="", chosen="", split="", budget=3, rows=ROWS,
        predicted=41, thresholds={"brake_1s": threshold}, moments=moments,
    ).write(folder / FORECAST)  # fmt: skip
    return folder


def content(path: Path) -> dict[str, dict[str, list[Any]]]:
    """By entity and component, the values of all rows; only of components that were logged."""
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for chunk in RrdReader(path).stream():
        batch = pa.record_batch(chunk.to_record_batch())
        for field, column in zip(batch.schema, batch.columns, strict=True):
            found[chunk.entity_path][field.name] += column.to_pylist()
    return found


def test_it_holds_everything_on_one_time_line(drive: Path, tmp_path: Path) -> None:
    path = tmp_path / "drive.rrd"
    assert write_viewer_file(drive, path) == ROWS
    entities = content(path)
    frames = [Path(frame).read_bytes() for frame in Recording(drive).frames().values()]
    blobs = [bytes(blob[0]) for blob in entities["/camera"]["EncodedImage:blob"]]
    assert blobs == frames
    assert path.stat().st_size < 1.02 * sum(map(len, frames)) + 100_000
    moments = [str(moment) for moment in entities["/camera"]["time"]]
    assert (moments[0][:19], moments[-1][:19]) == ("2024-05-01 10:00:00", "2024-05-01 10:00:29")
    labels = entities["/camera/boxes"]["Boxes2D:labels"]
    assert [len(each) for each in labels] == [row % 15 for row in range(ROWS)] and labels[1] == ["vehicle 0.30"]
    assert entities["/camera/boxes"]["Boxes2D:centers"][1] == [[60.0, 320.0 + 45.0]]
    assert [len(entities[f"/{name}"]["Scalars:scalars"]) for name in ("telemetry/SPEED", "labels/brake_1s")] == [60, 58]
    assert np.ravel(entities["/probabilities/brake_1s"]["Scalars:scalars"])[0] == 0.19
    texts = [text[0] for text in entities["/moments"]["TextLog:text"]]
    assert texts[:2] == ["brake_1s found (0.50)", "brake_1s missed (0.50)"]


@pytest.mark.parametrize(
    ("around", "seconds", "rows"),
    [
        ("missed-2", 4, range(46, 55)),
        ("10-00-10-5", 2, range(19, 24)),
        ("10-00-00", 2, range(3)),
        ("alarm-1", 1, range(39, 42)),
    ],
)
def test_a_clip_is_around_a_moment(drive: Path, tmp_path: Path, around: str, seconds: float, rows: range) -> None:
    path = tmp_path / "clip.rrd"
    assert write_viewer_file(drive, path, around, seconds) == len(rows)
    assert [len(each) for each in content(path)["/camera/boxes"]["Boxes2D:labels"]] == [row % 15 for row in rows]


def test_a_drive_that_is_only_recorded_can_be_viewed_and_an_unknown_moment_is_named(tmp_path: Path) -> None:
    drive, path = write_drive(tmp_path / "2024-05-01_10-00-00", 10), tmp_path / "drive.rrd"
    assert write_viewer_file(drive, path) == 10 and "/camera/boxes" not in content(path)
    path.unlink()
    with pytest.raises(DataError, match="has no 'missed-1': expected a time from 10-00-00-0 to 10-00-04-5"):
        write_viewer_file(drive, path, "missed-1")
    assert not list(tmp_path.glob("*.rrd"))
