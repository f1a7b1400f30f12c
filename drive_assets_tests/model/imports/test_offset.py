"""Clock offsets: a video of a road that approaches at a known speed."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from model.common.errors import DataError
from model.imports.offset import estimate_offset
from model.imports.pictures import probe
from model.imports.signals import Signal

START, RATE, SECONDS = 1_717_143_300.0, 20, 80
WIDTH, HEIGHT, FOCAL, MOUNT = 320, 180, 240.0, 1.3


def speeds(seed: int) -> Signal:
    """km/h at 10 Hz, as of a drive through traffic."""
    rng = np.random.default_rng(seed)
    knots = np.arange(0, SECONDS + 200, 6.0)
    t = np.arange(0, SECONDS + 190, 0.1)
    return Signal(START - 90 + t, np.interp(t, knots, rng.uniform(20, 90, len(knots))))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("offset") / "2024-05-31_08-15-00.mp4"
    ground = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (2048, 256), np.uint8), (3, 3), 0)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    ahead = FOCAL * MOUNT / np.maximum(rows - 0.48 * HEIGHT, 1.0)
    across = (columns - WIDTH / 2) * ahead / FOCAL
    driven = speeds(1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        place = 0.0
        for t in START + np.arange(SECONDS * RATE) / RATE:
            place += float(np.interp(t, driven.t, driven.values)) / 3.6 / RATE
            grey = cv2.remap(
                ground, (across * 4) % 255, ((ahead + place) * 8 % 2047).astype(np.float32), cv2.INTER_LINEAR
            )
            grey[: round(HEIGHT * 0.52)] = 128
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("offset_s", [-31.7, 0.0, 12.3])
def test_a_known_offset_is_found_within_a_quarter_second(video: Path, offset_s: float) -> None:
    found = estimate_offset([(probe(video, "UTC"), START)], speeds(1).moved(-offset_s), print)
    assert found.seconds == pytest.approx(offset_s, abs=0.25) and found.correlation > 0.5


def test_the_speed_of_another_drive_gives_no_offset(video: Path) -> None:
    with pytest.raises(DataError, match="cannot be estimated: the parts of the drive give"):
        estimate_offset([(probe(video, "UTC"), START)], speeds(2), print)
