"""Each part of the runtime gives what the code of the training gives."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from model.bundle.export import _reading_rules
from model.bundle.runtime.alarms import Alarms
from model.bundle.runtime.bundle import Bundle, Task
from model.bundle.runtime.detector import resized, suppressed
from model.bundle.runtime.errors import BundleError
from model.bundle.runtime.telemetry import Reader, Row
from model.evaluation.config import EvaluationConfig
from model.evaluation.events import MERGE_S, Drives
from model.evaluation.predictions import Predictions
from model.recording.dialect import ReadingConfig
from model.recording.schema import FEATURES, STEP_MS
from model.recording.telemetry import read_telemetry
from model.recording.times import FASTEST_STEP_MS, MAX_STEP_MS, SLOT

HEADER = "Time,SPEED,RPM,ACCELERATOR_POS_D,ENGINE_LOAD,BRAKE_SIGNAL,GEAR"


def described(**changes: Any) -> Bundle:
    """A bundle without files."""
    content: dict[str, Any] = {field.name: None for field in dataclasses.fields(Bundle)}
    content |= {"inputs": FEATURES, "telemetry": _reading_rules(), "coast_threshold": 7.5, "step_ms": STEP_MS}
    content |= {"fastest_ms": FASTEST_STEP_MS, "max_gap_ms": MAX_STEP_MS, "merge_s": MERGE_S, "alarm_min_s": 0.0}
    return Bundle(**content | changes)


@pytest.mark.parametrize(
    ("old", "new"),
    [((1920, 575), (704, 211)), ((1280, 720), (704, 396)), ((640, 480), (320, 240)), ((64, 48), (64, 48))],
)
def test_pictures_are_scaled_as_opencv_does(old: tuple[int, int], new: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*old[::-1], 3), np.uint8)
    assert np.array_equal(resized(pixels, new), cv2.resize(pixels, new, interpolation=cv2.INTER_LINEAR))


def test_boxes_are_suppressed_as_torchvision_does() -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 200, (300, 2))
    boxes = np.concatenate((corner, corner + generator.uniform(5, 80, (300, 2))), axis=1).astype(np.float32)
    group, confidence = generator.integers(0, 3, 300), np.sort(generator.uniform(size=300))[::-1].copy()
    expected = batched_nms(*map(torch.from_numpy, (boxes.astype(float), confidence, group)), 0.5)
    kept = suppressed(boxes, group, 0.5)
    assert kept.tolist() == expected.tolist() and 20 < len(kept) < 280
    assert suppressed(boxes[:0], group[:0], 0.5).tolist() == []


@pytest.mark.parametrize("minimum_s", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_alarms_begin_as_evaluations_count_them(seed: int, minimum_s: float) -> None:
    generator = np.random.default_rng(seed)
    p = np.clip(np.convolve(generator.uniform(size=400), np.ones(3) / 3, "same"), 0, 1)
    time_ms = np.cumsum(generator.choice([500, 500, 500, 4000], 400))
    no, unknown = np.zeros(400, bool), np.full(400, np.nan, np.float32)
    windows = Predictions(("brake_1s",), ("drive",), no, ~no, no, p, time_ms, no.astype(int), unknown, no, unknown)
    config = EvaluationConfig(alarm_min_s=minimum_s)
    alarms, _ = Drives.of(windows).alarms(0.65, config)
    task = Task("brake_1s", "brake", 1, 0.65, 0.65 * config.alarm_off_share)
    streaming = Alarms(task, described(alarm_min_s=minimum_s))
    begins = [int(t) for t, value in zip(time_ms, p, strict=True) if streaming.update(float(t), float(value))]
    assert begins == [alarm.start_ms for alarm in alarms] and len(begins) > 5


def row(seconds: float, speed: object = 80.0, gear: object = 4, brake: object = False, load: object = 30) -> str:
    moment = round(seconds * 10)
    return (
        f"2024-05-01 10-{moment // 600:02}-{moment // 10 % 60:02}-{moment % 10},{speed},2000,20.5,{load},{brake},{gear}"
    )


FAULTY = [
    *(row(0.5 * step) for step in range(8)),
    "No Frame,No Data,No Data,No Data,No Data,No Data,No Data",
    row(4.5, load=""),  # held
    row(5.0, gear=""),  # inferred
    row(5.5, speed=900),
    row(6.0, speed=255),
    HEADER,
    row(6.5, brake="perhaps"),
    row(7.0, brake="TRUE"),
    row(7.0, speed=81, brake="TRUE"),  # again
    row(7.5, gear=-1),
    "not a time,1,2,3,4,False,5",
    row(40.0),
    *(row(20.0 + 0.5 * step, gear=7) for step in range(4)),  # the clock was set back
]
FAST = [row(0.1 * step, speed=50 + step) for step in range(100) if step not in (33, 36)]


@pytest.mark.parametrize("lines", [FAULTY, FAST], ids=["faulty", "ten a second"])
def test_rows_are_read_as_whole_files_are(lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "telemetry.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    reader = Reader(described(), HEADER)
    rows: list[Row] = [found for line in lines if (found := reader(line)) is not None]
    table, report = read_telemetry(path, ReadingConfig(most_unreadable=1.0))
    if report.repeated:  # of a file the last row of a moment is kept, of a stream the first
        table.loc[table["SPEED"] == 81, "SPEED"] = 80.0
    assert [each.time for each in rows] == table["Time"].tolist()
    assert [each.slot_ms for each in rows] == table[SLOT].tolist()
    assert np.array_equal(np.stack([each.values for each in rows]), table[list(FEATURES)].to_numpy(np.float32))
    assert [each.states["brake"] for each in rows] == table["BRAKE_SIGNAL"].tolist()
    assert sum(each.restart == "clock set back" for each in rows) == report.backwards
    assert reader.counts["left_out"] == report.left_out


def test_a_drive_without_a_channel_of_the_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no column ENGINE_LOAD: expected Time and what the network reads"):
        Reader(described(), HEADER.replace("ENGINE_LOAD", "OTHER"))
    (tmp_path / "reading.json").write_text('{"pedal_range": [14, 82], "factors": {"SPEED": 2}}')
    found = Reader(described(), HEADER, tmp_path / "reading.json")(row(0))
    assert found is not None and found.values[0] == 160 and found.values[2] == pytest.approx(6.5 / 68 * 100)
    (tmp_path / "reading.json").write_text('{"encoding": "cp1252"}')
    with pytest.raises(BundleError, match="sets encoding: in the car, expected factors and pedal_range only"):
        Reader(described(), HEADER, tmp_path / "reading.json")
