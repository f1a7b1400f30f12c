from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.common.errors import DataError
from model.common.files import write_json
from model.recording.folder import Recording
from model.recording.labels import (
    DERIVED_BRAKE,
    LabelConfig,
    contradictions,
    current_state,
    future_labels,
    future_rows,
    not_driven,
    read_future_labels,
    read_label_config,
    write_future_labels,
)
from model.recording.schema import LABEL_COLUMNS, SLOW_LABELS


def telemetry(t: list[int], brake: list[bool], pedal: list[float]) -> pd.DataFrame:
    force = [0.4 if b else -0.1 for b in brake]
    times = [str(value) for value in t]
    channels = {"SPEED": 50.0, "BRAKE_SIGNAL": brake, "ACCELERATOR_POS_D": pedal, "BRAKE_FORCE": force}
    return pd.DataFrame({"Time": times, "t": t, **channels})


def test_labels_by_time_with_a_gap_and_the_end() -> None:
    table = telemetry(
        [0, 500, 1000, 1500, 4000, 4600], [False, False, True, False, True, False], [20, 20, 5, 7.5, 0, 30]
    )
    labels = future_labels(table)
    # t + 1 s: 1000, 1500, then nothing within 0.3 s of 2000 and 2500, nor past the end.
    assert labels["brake_1s"].tolist() == [True, False, pd.NA, pd.NA, pd.NA, pd.NA]
    assert labels["coast_1s"].tolist()[:2] == [True, False]  # 7.5 % is not below 7.5 %
    assert labels["brake_force_1s"].fillna(-1).tolist() == [0.4, 0.0, -1, -1, -1, -1]
    assert labels["acc_pos_1s"].fillna(-1).tolist() == [5, 7.5, -1, -1, -1, -1]
    assert labels["brake_3s"].tolist() == [pd.NA, pd.NA, True, False, pd.NA, pd.NA]  # 4500 is nearest to 4600
    assert tuple(labels.columns) == (*LABEL_COLUMNS, *SLOW_LABELS)


def test_ties_go_to_the_earlier_and_the_tolerance_is_inclusive() -> None:
    rows, known = future_rows(np.array([0, 800, 1200]), 1000, 300)
    assert (rows[0], known[0]) == (1, True)
    assert future_rows(np.array([0, 1300]), 1000, 300)[1].tolist() == [True, False]
    assert future_rows(np.array([0, 1301]), 1000, 300)[1].tolist() == [False, False]


def test_the_file_reads_back_and_unknown_is_an_empty_cell(tmp_path: Path) -> None:
    labels = future_labels(telemetry([0, 500, 1000], [False, True, True], [20, 20.25, 1]))
    write_future_labels(tmp_path / "future_labels.csv", labels)
    lines = (tmp_path / "future_labels.csv").read_text().splitlines()
    assert lines[0] == ",".join((*LABEL_COLUMNS, *SLOW_LABELS))
    assert lines[1] == "0,True,True,0.4,1.0" + "," * 21
    assert lines[3] == "1000" + "," * 25
    back = read_future_labels(tmp_path / "future_labels.csv")
    for name in LABEL_COLUMNS[1:]:
        pd.testing.assert_series_equal(back[name], labels[name])


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=40, unique=True), st.integers(1, 5000))
def test_future_rows_equal_a_plain_search(times: list[int], horizon: int) -> None:
    t = np.array(sorted(times))
    rows, known = future_rows(t, horizon, 300)
    for index, moment in enumerate(t):
        distances = [abs(int(other) - int(moment) - horizon) for other in t]
        assert rows[index] == distances.index(min(distances))
        assert known[index] == (min(distances) <= 300)


@pytest.mark.parametrize(
    ("threshold", "coasting"), [(7.5, [0, 0, 1, 0, 1, 0]), (15.0, [1, 0, 1, 1, 1, 1]), (3.0, [0] * 6)]
)
def test_a_changed_threshold_is_recorded_and_defines_the_current_state(
    tmp_path: Path, threshold: float, coasting: list[int]
) -> None:
    path, config = tmp_path / "future_labels.csv", LabelConfig(coast_threshold=threshold)
    table = telemetry([0, 500, 1000, 1500, 2000, 2500], [False, False, True, True, False, False], [9, 20, 5, 9, 4, 9])
    assert read_label_config(path) == LabelConfig()
    write_future_labels(path, future_labels(table, config), config)
    assert read_label_config(path) == config
    state = current_state(table, config)
    assert state[:, 0].tolist() == [0, 0, 1, 1, 0, 0]
    assert state[:, 1].tolist() == coasting
    assert contradictions(table, read_future_labels(path), config) == {}
    assert contradictions(table, read_future_labels(path), LabelConfig(coast_threshold=4.5))
    path.with_suffix(".json").write_text('{"coast_threshold": 0}')
    with pytest.raises(
        DataError, match=r"future_labels\.json: .*coast_threshold 0: expected greater than 0\. Label the"
    ):
        read_label_config(path)
    path.with_suffix(".json").unlink()
    path.with_suffix(".json").mkdir()
    with pytest.raises(DataError, match=r"future_labels\.json .*Is a directory.*; label the recording again"):
        read_label_config(path)


def test_labels_are_unknown_where_driver_assistance_drives() -> None:
    """The speed holds under load while the pedal is at rest: neither braking nor coasting is the driver's."""
    n = np.arange(60)
    table = telemetry((n * 500).tolist(), [False] * 60, np.where(n < 20, 30, 0).tolist())
    table = table.assign(slot=table["t"], SPEED=80.0, ENGINE_LOAD=np.where(n < 40, 35.0, 2.0))
    labels = future_labels(table)
    assert labels["coast_1s"].tolist() == [False] * 18 + [pd.NA] * 20 + [True] * 20 + [pd.NA] * 2
    assert labels["acc_pos_1s"].isna().tolist() == labels["coast_1s"].isna().tolist()
    assert future_labels(table.assign(SPEED=100.0 - n))["coast_1s"].isna().sum() == 2


def imported(folder: Path, drivetrain: str, **columns: Callable[[int], object]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Telemetry and labels of an imported drive of 30 s with these cells by row number."""
    cells = {"Time": lambda n: f"2024-05-01 10-00-{n // 2:02}-{5 * (n % 2)}", "SPEED": lambda n: 50} | columns
    lines = [",".join(cells), *(",".join(str(cell(n)) for cell in cells.values()) for n in range(60))]
    (folder / "telemetry.csv").write_text("\n".join(lines))
    write_json(folder / "origin.json", {"kind": "video", "drivetrain": drivetrain})
    table, _ = Recording(folder).telemetry()
    return table, future_labels(table)


def rows_of(labels: pd.DataFrame, name: str) -> dict[str, list[int]]:
    """The rows in which a label is true, and in which it is unknown, but for the last second."""
    values = labels[name].iloc[:58]
    return {"true": values[values == True].index.tolist(), "unknown": values[values.isna()].index.tolist()}  # noqa: E712


def test_a_switch_gives_coasting_and_what_a_source_does_not_say_is_unknown(tmp_path: Path) -> None:
    columns = {"ACCELERATOR_PRESSED": lambda n: n >= 10, "BRAKE_SIGNAL": lambda n: "" if n == 30 else n == 20}
    table, labels = imported(tmp_path, "unknown", **columns)
    assert len(table) == 60 and table["ACCELERATOR_PRESSED"].dtype == bool
    assert rows_of(labels, "coast_1s") == {"true": [*range(8)], "unknown": []}
    assert rows_of(labels, "brake_1s") == {"true": [18], "unknown": [28, 30]}  # nor is it known what follows row 30
    assert labels["acc_pos_1s"].isna().all()
    for only_speed in ("unknown", "electric", "hybrid"):
        _, labels = imported(tmp_path, only_speed, SPEED=lambda n: 90 - n)
        assert labels[["brake_1s", "coast_1s"]].isna().all().all() and labels["slow_1s"].notna().sum() == 56


@pytest.mark.parametrize("channel", ["ASSISTANCE", "REVERSE"])
def test_labels_are_unknown_while_the_car_works_the_pedals_or_reverses(tmp_path: Path, channel: str) -> None:
    columns = {"ACCELERATOR_POS_D": lambda n: 0, "BRAKE_SIGNAL": lambda n: False, channel: lambda n: 20 <= n < 30}
    table, labels = imported(tmp_path, "combustion", **columns)
    for name in ("brake_1s", "coast_1s", "slow_1s"):
        expected = [*range(18, 30)] if name != "slow_1s" else [0, 1, *range(18, 30)]
        assert rows_of(labels, name)["unknown"] == expected
    assert {reason: int(rows.sum()) for reason, rows in not_driven(table, 7.5).items() if rows.any()} == {
        "driver assistance engaged" if channel == "ASSISTANCE" else "reverse gear": 10
    }


def test_slowing_is_the_mean_deceleration_of_a_second() -> None:
    """36 km/h lost in ten seconds are 1 m/s2, half as much is not enough; across a gap it is unknown."""
    speed = [90.0] * 10 + [90 - 1.8 * n for n in range(20)] + [54 - 0.9 * n for n in range(10)]
    times = [500 * n + (9000 if n >= 20 else 0) for n in range(40)]
    table = telemetry(times, [False] * 40, [20.0] * 40).assign(SPEED=speed)
    labels = rows_of(future_labels(table), "slow_1s")
    assert labels == {"true": [*range(10, 18), *range(22, 29)], "unknown": [0, 1, 18, 19, 20, 21, 38, 39]}
    assert rows_of(future_labels(table, LabelConfig(slow_threshold=1.1)), "slow_1s")["true"] == []


def test_braking_is_derived_beyond_doubt_and_of_combustion_engines_only(tmp_path: Path) -> None:
    speed = {"SPEED": lambda n: max(0, 100 - 6 * max(0, n - 20)) + n / 10, "ACCELERATOR_PRESSED": lambda n: n < 18}
    table, labels = imported(tmp_path, "combustion", **speed)
    derived = table[DERIVED_BRAKE]
    assert derived[derived.notna()].index.tolist() == [*range(18), *range(21, 36)] and derived.sum() == 15
    assert labels["brake_1s"].notna().sum() == 16 + 13  # what was unknown before or after stays so
    assert DERIVED_BRAKE not in imported(tmp_path, "electric", **speed)[0]
