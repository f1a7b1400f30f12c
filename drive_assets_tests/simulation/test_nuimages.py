"""The nuImages-like raw set has the published layout, and becomes a YOLO data set."""

from pathlib import Path

import cv2

from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.nuimages import simulate_nuimages
from model.detection.nuimages import NuimagesConfig, convert_nuimages

CONFIG = SimulationConfig(boxy_sequences=3, boxy_frames=4, seed=1, workers=1)


def test_simulated_tables_become_a_data_set(tmp_path: Path) -> None:
    log: list[str] = []
    raw = simulate_nuimages(tmp_path / "raw", CONFIG, log.append)
    assert len(log) == 3
    report = convert_nuimages(raw, tmp_path / "set", NuimagesConfig())
    assert (report.images, report.dropped) == ({"train": 8, "val": 4}, {})
    assert report.classes["train"]["vehicle.car"] > report.classes["train"]["vehicle.truck"] > 0
    frames = list((tmp_path / "set" / "images").rglob("*.jpg"))
    assert {cv2.imread(str(path)).shape for path in frames} == {(900, 1600, 3)}
    assert simulate_nuimages(tmp_path / "raw", CONFIG, log.append) == raw
    assert log[-1].endswith("already simulated with these options")
