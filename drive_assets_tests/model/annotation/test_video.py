from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from drive_assets_tests.drives import write_drive
from model.annotation.video import BAR, WIDTH, write_video
from model.common.errors import DataError
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording
from model.recording.labels import LabelConfig, future_labels, write_future_labels

NAME = "2024-05-01_10-00-00"


def annotate_and_label(drive: Path) -> None:
    """One vehicle a frame; coasting below a pedal of 40 %, so that the pedal's 30 % are coasting too."""
    times = sorted(path.stem for path in drive.glob("*.jpg"))
    box = np.array([[300, 60, 900, 400, 0.9, 0]], np.float32)
    frames = [f"{time}.jpg" for time in times]
    write_annotations(drive / "annotations.csv", Annotations.from_frames(times, frames, [box] * len(times)))
    recording = Recording(drive)
    telemetry, _ = recording.telemetry()
    config = LabelConfig(coast_threshold=40)
    write_future_labels(recording.labels_path, future_labels(telemetry, config), config)


def test_a_video_shows_each_annotated_frame_its_boxes_and_the_labels(tmp_path: Path) -> None:
    drive = write_drive(tmp_path / NAME, rows=24)
    with pytest.raises(DataError, match="annotate the recording first"):
        write_video(drive, tmp_path / "out.mp4")
    annotate_and_label(drive)
    labels = Recording(drive).labels_path
    labels.rename(tmp_path / "kept.csv")
    with pytest.raises(DataError, match="label the recording first"):
        write_video(drive, tmp_path / "out.mp4")
    (tmp_path / "kept.csv").rename(labels)  # the film shows the labels of the file
    assert write_video(drive, tmp_path / "out.mp4") == 24
    shown = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert shown.get(cv2.CAP_PROP_FPS) == 10
    pictures = [shown.read()[1] for _ in range(24)]
    assert pictures[0].shape == (720 + BAR, WIDTH, 3)
    now = [picture[720 + 24, WIDTH - 16 - 420 + 55] for picture in pictures]
    assert [int(colour[2]) > 150 for colour in now] == [18 <= row < 22 for row in range(24)]  # red while it brakes
    coasts_now = [picture[720 + 6 + 27 + 18, WIDTH - 16 - 420 + 55] for picture in pictures]
    assert all(int(colour[2]) > 150 for colour in coasts_now)  # by the default of 7.5 %, the first 14 rows do not
    coasts_in_1s = [picture[720 + 6 + 27 + 18, WIDTH - 16 - 350 + 55] for picture in pictures]
    assert [int(colour[2]) > 150 for colour in coasts_in_1s] == [row < 22 for row in range(24)]  # then unknown
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    for suffix, codec in ((".mp4", "h264"), (".webm", "vp8")):
        assert write_video(drive, tmp_path / f"part{suffix}", part=slice(20, 30)) == 4
        with av.open(tmp_path / f"part{suffix}") as film:
            assert film.streams.video[0].codec_context.name == codec


def test_a_video_of_predictions_shows_them_and_frames_what_rings(tmp_path: Path) -> None:
    drive = write_drive(tmp_path / NAME, rows=24)
    annotate_and_label(drive)
    times = Recording(drive).telemetry()[0]["Time"]
    table = pd.DataFrame(
        {"Time": times, "brake_1s": [np.nan] * 8 + [0.25] * 16, "alarms": ["brake_1s"] * 4 + [""] * 20}
    )
    for name, predictions in (("plain", None), ("with", table)):
        write_video(drive, tmp_path / f"{name}.mp4", predictions=predictions)
    films = [cv2.VideoCapture(str(tmp_path / f"{name}.mp4")) for name in ("plain", "with")]
    cell = slice(720 + 4, 720 + 32), slice(WIDTH - 16 - 350 - 2, WIDTH - 16 - 350 + 64)
    changes = [np.abs(np.subtract(*(film.read()[1][cell].astype(int) for film in films))).mean() for _ in range(24)]
    assert [change > 5 for change in changes] == [row < 4 or row >= 8 for row in range(24)]


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        write_video(tmp_path / NAME, tmp_path / "out.mp4")
    with pytest.raises(DataError, match=r"ends with \.mp4 or \.webm"):
        write_video(tmp_path, tmp_path / "out.avi")
    with pytest.raises(DataError, match="expected more than 0"):
        write_video(tmp_path, tmp_path / "out.mp4", speed=0)
