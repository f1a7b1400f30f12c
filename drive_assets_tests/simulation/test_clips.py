"""The Boxy-like and nuImages-like raw sets have the published layouts and true labels."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from drive_assets.simulation.clips import simulate_boxy, simulate_nuimages
from drive_assets.simulation.config import SimulationConfig
from model.common.errors import DataError
from model.detection.nuimages import NuimagesConfig, convert_nuimages

CONFIG = SimulationConfig(boxy_sequences=3, boxy_frames=4, seed=1, workers=1)


@pytest.fixture(scope="module")
def boxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_boxy(tmp_path_factory.mktemp("boxy") / "raw", CONFIG, lambda line: None)


def labels(raw: Path) -> dict[str, dict]:
    parts = [json.loads((raw / f"boxy_labels_{part}.json").read_text()) for part in ("train", "valid")]
    assert not {frame.split("/")[1] for frame in parts[0]} & {frame.split("/")[1] for frame in parts[1]}
    return parts[0] | parts[1]


def test_each_label_has_its_half_size_frame_in_the_sequences_zip(boxy: Path) -> None:
    frames: dict[str, bytes] = {}
    for path in boxy.glob("bluefox_*_bag.zip"):
        with zipfile.ZipFile(path) as archive:
            frames |= {f"./{name}": archive.read(name) for name in archive.namelist()}
            assert all(name.startswith(f"{path.stem}/") for name in archive.namelist())
    assert frames.keys() == labels(boxy).keys() and len(frames) == 12
    pictures = [np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)) for data in frames.values()]
    assert {picture.shape for picture in pictures} == {(1028, 1232, 3)}


def test_boxes_lie_in_the_full_size_picture_and_rears_within_vehicles(boxy: Path) -> None:
    vehicles = [vehicle for label in labels(boxy).values() for vehicle in label["vehicles"]]
    assert len(vehicles) > 12
    for vehicle in vehicles:
        whole, rear = vehicle["AABB"], vehicle["rear"] or vehicle["AABB"]
        assert 0 <= whole["x1"] <= rear["x1"] < rear["x2"] <= whole["x2"] <= 2464
        assert 0 <= whole["y1"] <= rear["y1"] < rear["y2"] <= whole["y2"] <= 2056


def test_an_equal_set_is_kept_and_another_is_refused(boxy: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in boxy.iterdir()}
    log: list[str] = []
    assert simulate_boxy(boxy, CONFIG, log.append) == boxy
    assert log == [f"{boxy}: already simulated with these options"]
    with pytest.raises(DataError, match="was not simulated with these options"):
        simulate_boxy(boxy, CONFIG.replace(boxy_frames=5), lambda line: None)
    assert {path.name: path.stat().st_mtime_ns for path in boxy.iterdir()} == before


def test_nuimages_tables_become_a_data_set(tmp_path: Path) -> None:
    log: list[str] = []
    raw = simulate_nuimages(tmp_path / "raw", CONFIG, log.append)
    assert len(log) == 3
    report = convert_nuimages(raw, tmp_path / "set", NuimagesConfig())
    assert (report.images, report.dropped) == ({"train": 8, "val": 4}, {})
    assert report.classes["train"]["vehicle.car"] > report.classes["train"]["vehicle.truck"] > 0
    frames = list((tmp_path / "set" / "images").rglob("*.jpg"))
    assert {np.asarray(cv2.imread(str(path))).shape for path in frames} == {(900, 1600, 3)}
