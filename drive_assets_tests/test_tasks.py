"""Jobs and results pass through JSON and come out equal; what jobs of one run share."""

import json
from pathlib import Path

import pytest

from drive_assets.resources.mlflow.tracking import TrackedRun, UsedData
from drive_assets.tasks import TASKS, TRAIN, TRAIN_DETECTOR, AnnotateJob, TrainDetectorJob, TrainJob, annotate
from drive_assets.wire import Failed, Report, Work, from_wire, to_wire
from drive_assets_tests.drives import write_drive
from model.annotation.config import AnnotationConfig
from model.detection.detector import BUNDLED
from model.detection.detector_training import DetectorConfig, DetectorResult
from model.training.recipes import TrainingConfig

DATA = UsedData("multimodal", "v1", "/d/splits", {"train": 12})
RUN = TrackedRun("1", "key", "name", {"epochs": 3, "tasks": ["brake_1s"]}, {"architecture": "a"}, DATA)


def through_json(value: object) -> object:
    return from_wire(type(value), json.loads(json.dumps(to_wire(value))))


@pytest.mark.parametrize(
    "value",
    [
        TrainJob("simple_concat_lstm", Path("/d/splits"), Path("/d/out"), TrainingConfig(epochs=3), "v1", RUN),
        TrainDetectorJob(Path("d.yaml"), Path("w.pt"), Path("work"), DetectorConfig(epochs=2)),
        DetectorResult(Path("w.pt"), {"map50": 0.1 + 0.2}, 3, 8, False, [Path("a/results.png")]),
        Work("train", [{"a": 1}], 7),
        Report(2, Failed("row 3 is wrong")),
        Report(0, value={"figures": [1, 0.5, None]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_in_comes_out(value: object) -> None:
    assert through_json(value) == value


def test_tasks_are_known_by_their_names() -> None:
    assert list(TASKS) == ["annotate", "train_detector", "train", "evaluate"]
    assert (TASKS["train"], TASKS["train_detector"]) == (TRAIN, TRAIN_DETECTOR)


def test_a_job_that_lacks_something_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="data_version"):
        from_wire(TrainJob, {"architecture": "simple_concat_lstm", "splits": "s", "output": "o", "config": {}})


def test_a_batch_of_recordings_loads_the_network_once(tmp_path: Path) -> None:
    told: list[str] = []
    config = AnnotationConfig(image_size=96, backend="torch")
    for name in ("2024-05-01_10-00-00", "2024-05-02_10-00-00", "2024-05-03_10-00-00"):
        drive = write_drive(tmp_path / name, rows=2)
        annotate(AnnotateJob(drive, BUNDLED, tmp_path / "cache", config), told.append)
    assert sum(line.startswith("Loaded the detector") for line in told) == 1
