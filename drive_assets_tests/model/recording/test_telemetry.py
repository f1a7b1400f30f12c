from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model.common.errors import DataError
from model.recording.telemetry import infer_gear, parse_times, read_telemetry

HEADER = "Time,SPEED,RPM,ACCELERATOR_POS_D,ENGINE_LOAD,BRAKE_SIGNAL,GEAR,BRAKE_FORCE,PRE_BRAKING,WHILE_BRAKING"
NO_DATA = ",".join(["No Data"] * 9)


def row(time: str, brake: str = "False", speed: str = "100", gear: str = "5", rpm: str = "1869") -> str:
    return f'{time},{speed},{rpm},20.5,30.1,{brake},{gear},-0.01,"[1, 2]",[]'


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_fault_rows_are_dropped_and_counted_and_false_stays_false(tmp_path: Path) -> None:
    path = write(
        tmp_path / "telemetry.csv",
        row("2024-05-01 10-00-00-0"),
        f"No Frame,{NO_DATA}",
        row("2024-05-01 10-00-00-5", brake="True"),
        f"Incomplete Data,{NO_DATA}",
        row("2024-05-01 10-00-01-0"),
    )
    table, report = read_telemetry(path)
    assert table["BRAKE_SIGNAL"].tolist() == [False, True, False]
    assert table["BRAKE_SIGNAL"].dtype == bool
    assert (report.rows, report.valid, report.no_frame, report.incomplete) == (5, 3, 1, 1)
    assert np.diff(table["t"]).tolist() == [500, 500]


def test_rows_are_sorted_and_of_repeated_times_the_last_is_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "telemetry.csv",
        row("2024-05-01 10-00-01-0", speed="1"),
        row("2024-05-01 10-00-00-0", speed="2"),
        row("2024-05-01 10-00-01-0", speed="3"),
        row("2024-05-01 10-00-09-0", speed="4"),
    )
    table, report = read_telemetry(path)
    assert table["SPEED"].tolist() == [2, 3, 4]
    assert (report.repeated, report.backwards, report.gaps, report.longest_gap_s) == (1, 1, 2, 8.0)


def test_missing_gear_is_inferred(tmp_path: Path) -> None:
    path = write(tmp_path / "telemetry.csv", row("2024-05-01 10-00-00-0", gear=""))
    table, report = read_telemetry(path)
    assert (table["GEAR"].tolist(), report.gear_inferred) == ([5], 1)


def test_gears_from_speed_and_rpm() -> None:
    speed = np.array([9.5, 33.0, 55.0, 81.0, 107.0, 5.0, 40.0, 100.0])
    rpm = np.array([1000.0, 2000, 2000, 2000, 2000, 900, 900, 2000])
    pedal = np.array([10.0, 10, 10, 10, 10, 10, 0, 10])
    assert infer_gear(speed, rpm, pedal).tolist() == [1, 2, 3, 4, 5, 0, 0, 0]


def test_times_with_and_without_fraction() -> None:
    times = pd.Series(["1970-01-01 00-00-01", "1970-01-01 00-00-01-5", "1970-01-01 00-00-01-050000", "1970-01-01", "x"])
    assert parse_times(times).tolist() == [1000, 1500, 1050, -1, -1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("2024-05-01 10-00-00-0"), row("2024-05-01 10-00-00-5", speed="fast")], r"row 3, column SPEED: 'fast'"),
        ([row("2024-05-01 10-00-00-0", brake="maybe")], r"row 2, column BRAKE_SIGNAL: 'maybe'"),
        ([row("2024-05-01 10-00-00-0", gear="high")], r"row 2, column GEAR: 'high'"),
        ([row("10:00:00")], r"row 2, column Time: '10:00:00'"),
        ([f"No Frame,{NO_DATA}"], "no valid row"),
        ([], "no valid row"),
    ],
)
def test_wrong_cells_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_telemetry(write(tmp_path / "telemetry.csv", *rows))


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_telemetry(tmp_path / "telemetry.csv")
    (tmp_path / "telemetry.csv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_telemetry(tmp_path / "telemetry.csv")
    (tmp_path / "telemetry.csv").write_text("Time,SPEED\n1,2\n")
    with pytest.raises(DataError, match="lacks the columns ACCELERATOR_POS_D, BRAKE_SIGNAL: expected Time, SPEED"):
        read_telemetry(tmp_path / "telemetry.csv")


def test_impossible_values_and_cut_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "telemetry.csv", row("2024-05-01 10-00-00-0"), row("2024-05-01 10-00-00-5", speed="-3"), "2024"
    )
    _, report = read_telemetry(path)
    assert (report.valid, report.out_of_range, report.incomplete) == (1, 1, 1)
