"""The Boxy-like raw set has the published layout and true labels."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from drive_assets.simulation.boxy import simulate_boxy
from drive_assets.simulation.config import SimulationConfig
from model.common.errors import DataError

CONFIG = SimulationConfig(boxy_sequences=3, boxy_frames=4, seed=1, workers=1, boxy_flaw_rate=0.3)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_boxy(tmp_path_factory.mktemp("boxy") / "raw", CONFIG, lambda line: None)


def labels(raw: Path) -> dict[str, dict]:
    parts = [json.loads((raw / f"boxy_labels_{part}.json").read_text()) for part in ("train", "valid")]
    assert not {frame.split("/")[1] for frame in parts[0]} & {frame.split("/")[1] for frame in parts[1]}
    return parts[0] | parts[1]


def test_each_label_has_its_half_size_frame_in_the_sequences_zip(raw: Path) -> None:
    frames: dict[str, bytes] = {}
    for path in raw.glob("bluefox_*_bag.zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            frames |= {f"./{name}": archive.read(name) for name in archive.namelist()}
            assert all(name.startswith(f"{path.stem}/") for name in archive.namelist())
    assert frames.keys() == labels(raw).keys() and len(frames) == 12
    pictures = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in frames.values()]
    shapes = {picture.shape for picture in pictures if picture is not None}
    assert shapes == {(1028, 1232, 3)}


def test_boxes_lie_in_the_full_size_picture_and_rears_within_vehicles(raw: Path) -> None:
    vehicles = [vehicle for label in labels(raw).values() for vehicle in label["vehicles"]]
    assert len(vehicles) > 12
    for vehicle in vehicles:
        whole, rear = vehicle["AABB"], vehicle["rear"]
        assert 0 <= whole["x1"] < whole["x2"] <= 2464 and 0 <= whole["y1"] < whole["y2"] <= 2056
        if rear is not None:
            assert whole["x1"] <= rear["x1"] < rear["x2"] <= whole["x2"]
            assert whole["y1"] <= rear["y1"] < rear["y2"] <= whole["y2"]
        only_rear = rear is not None and (rear["x1"], rear["x2"]) == (whole["x1"], whole["x2"])
        assert (vehicle["side"] is None) == only_rear


def test_some_frames_are_flawed(raw: Path) -> None:
    flawed = [bool(label["flaws"]) for label in labels(raw).values()]
    assert 0 < sum(flawed) < len(flawed)


def test_an_equal_set_is_kept_and_another_is_refused(raw: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in raw.iterdir()}
    log: list[str] = []
    assert simulate_boxy(raw, CONFIG, log.append) == raw
    assert log == [f"{raw}: already simulated with these options"]
    with pytest.raises(DataError, match="was not simulated with these options"):
        simulate_boxy(raw, SimulationConfig(boxy_sequences=3, boxy_frames=5), lambda line: None)
    assert {path.name: path.stat().st_mtime_ns for path in raw.iterdir()} == before
