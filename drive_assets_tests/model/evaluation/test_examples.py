from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from drive_assets_tests.drives import respell, write_drive
from model.common.images import read_image
from model.evaluation.examples import _crop
from model.recording.folder import Recording


def test_the_frame_of_a_moment_is_found_whatever_the_spelling_of_times(tmp_path: Path) -> None:
    drive = write_drive(tmp_path / "2024-05-01_10-00-00", rows=8)
    frames = respell(drive, {"0": "97", "5": "597"})
    clock = Recording(drive).telemetry()[0]["t"].to_numpy()
    split: Any = SimpleNamespace(recordings=[drive.name], recording=np.zeros(8, int), clock_ms=clock)
    for number, path in enumerate(frames):
        assert np.array_equal(_crop(split, number, tmp_path), read_image(path)[320:895:2, ::2])
