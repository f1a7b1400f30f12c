"""Findings about implausible drives name numbers and rows."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from drive_assets_tests.drives import write_drive
from model.common.errors import DataError
from model.recording.annotations import Annotations
from model.recording.dialect import ReadingConfig
from model.recording.folder import Recording
from model.recording.frame_files import repeated_frames
from model.recording.plausibility import implausible_camera, implausible_detections, implausible_drive
from model.recording.telemetry import read_telemetry


def drive(rows: int = 800) -> pd.DataFrame:
    """A plausible drive of 400 s, as cells of telemetry.csv."""
    n = np.arange(rows)
    moment = [f"2024-05-01 10-{s // 120:02}-{s // 2 % 60:02}-{5 * (s % 2)}" for s in n]
    phase = n % 60
    return pd.DataFrame(
        {
            "Time": moment,
            "SPEED": 90 - np.abs(30 - phase),
            "RPM": 1500 + 10 * phase,
            "ACCELERATOR_POS_D": np.where(phase < 30, 20.0 + phase, 0.0),
            "ENGINE_LOAD": 30 + phase % 7,
            "BRAKE_SIGNAL": phase > 50,
            "GEAR": 4,
        }
    )


def gears(table: pd.DataFrame) -> pd.DataFrame:
    """The drive of a car that shifts."""
    gear = 3 + table.index % 3
    return table.assign(GEAR=gear, RPM=1000 * table["SPEED"] / np.array([27.5, 40.5, 53.5])[gear - 3])


def findings(table: pd.DataFrame, tmp_path: Path) -> list[tuple[str, bool]]:
    table.to_csv(tmp_path / "telemetry.csv", index=False)
    return [
        (finding.kind, finding.blocks_training)
        for finding in implausible_drive(*read_telemetry(tmp_path / "telemetry.csv"))
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t, []),
        (lambda t: t.assign(ACCELERATOR_POS_D=14.12 + 0.6744 * t["ACCELERATOR_POS_D"]), [("pedal_never_rests", True)]),
        (lambda t: t.assign(ACCELERATOR_POS_D=20 + t.index % 60), [("pedal_never_rests", False)]),
        (lambda t: t.assign(BRAKE_SIGNAL=True), [("brake_always_on", True)]),
        (lambda t: t.assign(BRAKE_SIGNAL=False), [("brake_never_on", False)]),
        (lambda t: t.assign(RPM=t["RPM"].where(t.index < 100, 1777)), [("frozen", True)]),
        (lambda t: t.assign(ENGINE_LOAD=t["ENGINE_LOAD"].where(t.index % 2 == 0, 100)), [("saturated", False)]),
        (lambda t: t.assign(ENGINE_LOAD=t["ENGINE_LOAD"] / 100), [("corner", False)]),
        (lambda t: t.assign(RPM=t["RPM"].where(t.index > 300, 0)), []),  # a hybrid
        (lambda t: t.assign(GEAR=4 + 4 * (t.index % 2)), [("reading", False)]),
        (lambda t: t.assign(ACCELERATOR_POS_D=t["ACCELERATOR_POS_D"].where(t.index < 90, 0)), [("assistance", False)]),
        (lambda t: pd.concat([t[400:], t[:400]]), [("clock", False)]),
        (lambda t: t[30:45], [("short", False)]),
    ],
)
def test_each_kind(tmp_path: Path, change: Callable, expected: list[tuple[str, bool]]) -> None:
    assert findings(change(drive()), tmp_path) == expected


def test_findings_name_numbers_and_rows(tmp_path: Path) -> None:
    table = drive()
    table["ACCELERATOR_POS_D"] = 14.12 + 0.6744 * table["ACCELERATOR_POS_D"]
    table.loc[100:, "RPM"] = 1777
    table.to_csv(tmp_path / "telemetry.csv", index=False)
    pedal, frozen = implausible_drive(*read_telemetry(tmp_path / "telemetry.csv"))
    assert "lowest accelerator position is 14.1 %, never below 7.5 % in 6.7 minutes: no row coasts" in pedal.text
    assert frozen.text == "RPM stays at 1777 for 350 s from 2024-05-01 10-00-50-0 on (700 rows)"
    assert "pedal" not in str(implausible_drive(*read_telemetry(tmp_path / "telemetry.csv"), coast_threshold=20))


def cameras(folder: Path, image: Callable[[int], np.ndarray]) -> list[str]:
    recording = Recording(write_drive(folder / "2024-05-01_10-00-00", rows=12))
    frames = recording.frames()
    for number, path in enumerate(frames.values()):
        cv2.imwrite(str(path), image(number))
    return [f.kind for f in implausible_camera(frames, recording.telemetry()[0], repeated_frames(frames))]


def test_cameras_that_see_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 27, 48, 3), np.uint8)
    big = [cv2.resize(image, (960, 540), interpolation=cv2.INTER_NEAREST) for image in noise]
    assert cameras(tmp_path / "good", lambda n: big[n]) == []
    assert cameras(tmp_path / "black", lambda n: np.full((540, 960, 3), n % 5, np.uint8)) == ["black"]
    assert cameras(tmp_path / "hung", lambda n: big[0]) == ["still"]


def test_vehicles_in_the_sky() -> None:
    low, far = [100, 300, 200, 400, 0.9, 0], [100, 10, 200, 90, 0.9, 0]
    # By size: seen from 1.3 m above the road, 220 px below the region's top, cars of 1.5 m; upright and turned over.
    upright, turned = [0, -0.13, 0, 0.87, 0, 0], [0, -0.87, 0, 0.13, 0, 0]
    for box, larger, kinds in (
        (low, upright, []),
        (far, [0] * 6, [("upside_down", False)]),
        ([100, 210, 200, 230, 0.9, 0], upright, [("upside_down", False)]),
        ([100, 210, 200, 230, 0.9, 0], turned, [("upside_down", True)]),
    ):
        sizes = np.arange(10, dtype=np.float32)[:, None] * 5
        boxes = [np.array([box], np.float32) + sizes * np.array([larger], np.float32)] * 6
        annotations = Annotations.from_frames([str(n) for n in range(6)], [f"{n}.jpg" for n in range(6)], boxes)
        assert [(f.kind, f.blocks_training) for f in implausible_detections(annotations.box, 575)] == kinds


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda t: t.assign(ACCELERATOR_POS_D=t["ACCELERATOR_POS_D"] / 100), "pedal_never_pressed"),
        (lambda t: t.assign(ACCELERATOR_POS_D=36 + 2 * t["ACCELERATOR_POS_D"]), "out_of_range"),
        (lambda t: t.assign(BRAKE_SIGNAL=False, SPEED=60 + 6 * np.abs(10 - t.index % 20)), "brake_never_on"),
        (lambda t: t.assign(SPEED=0), "frozen"),
        (lambda t: t.assign(BRAKE_SIGNAL=~t["BRAKE_SIGNAL"]), "brake_inverted"),
        (lambda t: gears(t).assign(SPEED=t["SPEED"] / 1.609344), "unit"),
        (lambda t: gears(t).assign(SPEED=t["SPEED"] / 3.6), "unit"),
        (lambda t: t.assign(RPM=1777)[:150], "frozen"),
    ],
)
def test_contradictions_block_training(tmp_path: Path, change: Callable, kind: str) -> None:
    assert (kind, True) in findings(change(drive()), tmp_path)


@pytest.mark.parametrize("positions", [(14.12, 81.56), (36.0, 236.0)])
def test_a_raw_pedal_is_rescaled(tmp_path: Path, positions: tuple[float, float]) -> None:
    rest, full = positions
    table, raw = drive(), drive()
    raw["ACCELERATOR_POS_D"] = rest + (full - rest) / 100 * table["ACCELERATOR_POS_D"]
    folder = tmp_path / "2024-05-01_10-00-00"
    folder.mkdir()
    raw.to_csv(folder / "telemetry.csv", index=False)
    recording = Recording(folder)
    assert any(finding.blocks_training for finding in implausible_drive(*recording.telemetry()))
    recording.keep_reading(ReadingConfig(pedal_range=list(positions)))
    read, report = recording.telemetry()
    np.testing.assert_allclose(read["ACCELERATOR_POS_D"], table["ACCELERATOR_POS_D"], atol=1e-9)
    assert implausible_drive(read, report) == []
    recording.keep_reading(ReadingConfig(pedal_range=[0, 100]))
    assert not recording.reading_path.exists()
    for wrong in ('{"pedal_range": [5, 5]}', '{"pedal": [0, 255]}', "[1]", "no JSON"):
        recording.reading_path.write_text(wrong)
        with pytest.raises(DataError, match=r"reading\.json: expected"):
            recording.telemetry()
