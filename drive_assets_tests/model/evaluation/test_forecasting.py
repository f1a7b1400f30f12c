"""The predictions of recordings: what the evaluation counts, for drives of any kind, and what is refused."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drive_assets.resources.storage import Storage
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from drive_assets_tests.networks import ARCHITECTURE, NAMES, write_network
from model.common.errors import DataError
from model.common.files import write_json
from model.evaluation.forecast import ALARM, ALARMS, FALSE, FOUND, MISSED, REASON, UNKNOWN, Forecast, read_predictions
from model.evaluation.forecasting import choose_network, write_forecast
from model.evaluation.results import EVALUATION, Evaluation


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return write_network(tmp_path_factory.mktemp("forecast") / "data")


def forecast(storage: Storage, folder: Path, architecture: str = ARCHITECTURE, budget: float = 3.0) -> Forecast:
    return write_forecast(folder, choose_network(storage.evaluations, storage.checkpoints, architecture), budget)


def test_on_test_it_counts_what_the_evaluation_counts(storage: Storage) -> None:
    evaluation = Evaluation.read(storage.evaluation(ARCHITECTURE) / EVALUATION)
    for budget in evaluation.evaluation_config.false_alarms_per_hour:
        found = forecast(storage, storage.recording(NAMES[2]), budget=budget)
        for task in evaluation.tasks:
            (alarm,) = (each for each in evaluation.test[task].alarms if each.threshold.budget == budget)
            kinds = [found.count(task, kind) for kind in (FOUND, MISSED, FALSE)]
            assert kinds == [alarm.foreseen, alarm.events - alarm.foreseen, alarm.false_alarms]
            assert found.count(task, ALARM) + kinds[2] == alarm.alarms
            assert found.thresholds[task] == alarm.threshold


def test_a_drive_of_no_data_set_has_a_row_for_each_of_the_telemetry_and_a_reason_for_each_gap(
    storage: Storage, tmp_path: Path
) -> None:
    drive = labelled_drive(tmp_path / "2024-06-01_10-00-00", 90, seed=7, leave_out=(40,))
    for name in ("future_labels.csv", "future_labels.json"):
        (drive / name).unlink(missing_ok=True)
    found, table = forecast(storage, drive), read_predictions(drive)
    assert (found.rows, found.predicted, found.split) == (90, 90 - 19 - 20, "")
    assert table[REASON].iloc[40] == "its frame is not annotated"
    early = table[REASON] == "fewer than 20 frames up to it without a gap"
    assert np.flatnonzero(early).tolist() == [*range(19), *range(41, 60)]
    tasks = list(found.thresholds)
    assert table[tasks].isna().any(axis=1).tolist() == (table[REASON] != "").tolist()
    for moment in found.moments:
        rows = table.iloc[moment.row : moment.end + 1]
        if moment.kind in (ALARM, FALSE, UNKNOWN):
            assert rows[ALARMS].str.contains(moment.task).all()
            assert rows[moment.task].max() == pytest.approx(moment.probability, abs=1e-4)
            assert moment.time == rows["Time"].iloc[0]
    assert table[ALARMS].str.split().explode().dropna().isin(tasks).all()


def test_alarms_of_drives_without_brake_signal_have_an_unknown_outcome(storage: Storage, tmp_path: Path) -> None:
    drive = labelled_drive(tmp_path / "2024-06-01_10-00-00", 90, seed=7)
    telemetry = pd.read_csv(drive / "telemetry.csv", dtype=str).drop(columns="BRAKE_SIGNAL")
    telemetry.to_csv(drive / "telemetry.csv", index=False)
    write_json(drive / "reading.json", {"missing_channels": ["BRAKE_SIGNAL"]})
    kinds = {moment.kind for moment in forecast(storage, drive).moments if moment.task.startswith("brake")}
    assert kinds == {UNKNOWN}


def test_a_drive_too_short_for_a_window_has_no_prediction(storage: Storage, tmp_path: Path) -> None:
    drive = labelled_drive(tmp_path / "2024-06-01_10-00-00", 15)
    found = forecast(storage, drive)
    assert (found.predicted, found.moments) == (0, []) and read_predictions(drive)["brake_1s"].isna().all()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    return labelled_drive(tmp_path / "2024-06-01_10-00-00", 60)


def _without_load(drive: Path) -> None:
    telemetry = pd.read_csv(drive / "telemetry.csv", dtype=str).drop(columns="ENGINE_LOAD")
    telemetry.to_csv(drive / "telemetry.csv", index=False)


@pytest.mark.parametrize(
    ("spoil", "budget", "sentence"),
    [
        (_without_load, 3.0, r"telemetry.csv has no column ENGINE_LOAD, which simple_concat_lstm was trained with"),
        (lambda drive: (drive / "annotations.csv").unlink(), 3.0, "annotations.csv is missing: annotate"),
        (
            lambda drive: write_json(drive / "annotations.json", {"class_names": ["vehicle.left"], "camera": []}),
            3.0,
            "has the classes vehicle.left, and simple_concat_lstm was trained with vehicle: annotate with",
        ),
        (lambda drive: None, 5.0, "No threshold was chosen for 5 false alarms per hour: choose 3, 60, or evaluate"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(
    storage: Storage, drive: Path, spoil: object, budget: float, sentence: str
) -> None:
    spoil(drive)  # type: ignore[operator]
    with pytest.raises(DataError, match=sentence) as raised:
        forecast(storage, drive, budget=budget)
    assert "\n" not in str(raised.value)


def test_without_alias_and_comparison_a_network_must_be_named(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("No network has the alias best")):
        choose_network(storage.evaluations, storage.checkpoints)
    with pytest.raises(DataError, match="is missing"):
        forecast(storage, storage.recording(NAMES[0]), "attention_query_lstm")
