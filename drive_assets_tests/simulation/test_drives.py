"""Simulated recordings: the recorder's format and faults, reproducibility, and safety of existing folders."""

import csv
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.drives import simulate_drives
from model.common.errors import DataError
from model.recording.annotations import read_annotations
from model.recording.folder import DEFAULT_REGION, inspect_recording, parse_recording_name
from model.recording.telemetry import read_telemetry

SMALL = SimulationConfig(recordings=1, duration_s=40, seed=3, fault_rate=0.15, workers=1)
TINY = SMALL.replace(duration_s=5)


@pytest.fixture(scope="module")
def faulty_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("drives"), SMALL)[0]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def simulate(folder: Path, config: SimulationConfig) -> list[Path]:
    return simulate_drives(folder, config, lambda line: None)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "telemetry.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_telemetry_is_written_as_the_recorder_does(faulty_drive: Path) -> None:
    assert parse_recording_name(faulty_drive.name)
    header, *lines = (faulty_drive / "telemetry.csv").read_text().splitlines()
    assert header == (
        "Time,SPEED,RPM,ACCELERATOR_POS_D,ENGINE_LOAD,BRAKE_SIGNAL,GEAR,BRAKE_FORCE,PRE_BRAKING,WHILE_BRAKING"
    )
    time = r"\d{4}-\d{2}-\d{2} \d{2}-\d{2}-\d{2}-\d"
    valid = rf"{time},\d+,\d+\.\d\d,\d+\.\d\d,\d+\.\d\d,(True|False),[0-5]?,-?\d\.\d{{4}},\[\],\[\]"
    failed = "(No Frame|Incomplete Data)" + ",No Data" * 9
    assert [line for line in lines if not re.fullmatch(f"{valid}|{failed}", line)] == []


def test_the_projects_reader_counts_the_recorders_faults(faulty_drive: Path) -> None:
    report = inspect_recording(faulty_drive)
    kinds = Counter(row["Time"] for row in rows(faulty_drive))
    assert report.telemetry.no_frame == kinds["No Frame"]
    assert report.telemetry.incomplete == kinds["Incomplete Data"]
    assert report.telemetry.no_frame + report.telemetry.incomplete > 0
    assert report.telemetry.repeated == sum(count - 1 for time, count in kinds.items() if time[0].isdigit())
    assert report.rows_without_frame + report.frames_without_row + report.truncated_frames > 0


def test_frames_and_boxes_belong_to_the_rows(faulty_drive: Path) -> None:
    annotations = read_annotations(faulty_drive / "true_annotations.csv")
    times = {row["Time"] for row in rows(faulty_drive)}
    assert len(annotations) == inspect_recording(faulty_drive).usable_frames
    assert set(annotations.time) <= times
    assert annotations.filename == [f"{time}.jpg" for time in annotations.time]
    frame = cv2.imread(str(faulty_drive / annotations.filename[0]))
    assert frame is not None and frame.shape == (1080, 1920, 3)
    assert (annotations.box >= 0).all() and (annotations.box <= np.array(2 * DEFAULT_REGION[2:])).all()
    sides = annotations.box[:, 2:] - annotations.box[:, :2]
    assert len(sides) and sides.min() >= 14


def test_a_fault_free_drive_has_a_frame_for_each_row_half_a_second_apart(tmp_path: Path) -> None:
    [drive] = simulate(tmp_path, SMALL.replace(duration_s=12, fault_rate=0.0))
    table, telemetry = read_telemetry(drive / "telemetry.csv")
    report = inspect_recording(drive)
    assert (telemetry.rows, telemetry.valid, report.usable_frames) == (24, 24, 24)
    faults = (telemetry.gaps, report.rows_without_frame, report.frames_without_row, report.truncated_frames)
    assert faults == (0, 0, 0, 0)
    assert set(np.diff(table["t"])) <= {400, 500, 600}


def test_equal_options_give_equal_bytes_however_many_workers(tmp_path: Path) -> None:
    alone = simulate(tmp_path / "one", TINY.replace(recordings=2))
    together = simulate(tmp_path / "two", TINY.replace(recordings=2, workers=2))
    assert [files(folder) for folder in alone] == [files(folder) for folder in together]
    assert files(alone[0])["telemetry.csv"] != files(alone[1])["telemetry.csv"]


def test_a_rerun_makes_only_missing_drives_and_never_overwrites_another(tmp_path: Path) -> None:
    [first] = simulate(tmp_path, TINY)
    written = first.stat().st_mtime_ns
    log: list[str] = []
    folders = simulate_drives(tmp_path, TINY.replace(recordings=2), log.append)
    assert folders[0] == first and first.stat().st_mtime_ns == written
    assert [line.split(":")[0].split(" 20")[0] for line in log] == ["1 of 2 drives already exist", "drive 2/2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folder.name for folder in folders)
    with pytest.raises(DataError, match=rf"{first.name} exists and was not simulated with these options"):
        simulate(tmp_path, TINY.replace(duration_s=6))
    assert first.stat().st_mtime_ns == written


def test_without_sumo_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SUMO_HOME", raising=False)
    with pytest.raises(DataError, match=r"pip install 'drive-assets\[simulation\]'"):
        simulate(tmp_path / "out", SMALL)
