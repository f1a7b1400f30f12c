"""Jobs and results as JSON."""

import json
from pathlib import Path

import pytest

from drive_assets.resources.mlflow.tracking import TrackedRun, UsedData
from drive_assets.tasks import TrainDetectorJob, TrainJob
from drive_assets.wire import Report, Work, from_wire, to_wire
from model.detection.detector_config import DetectorConfig, DetectorResult
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
        Report(2, "row 3 is wrong"),
        Report(0, value={"figures": [1, 0.5, None]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_preserves_jobs_and_results(value: object) -> None:
    assert through_json(value) == value


def test_a_job_without_a_required_field_is_refused_with_the_fields_name() -> None:
    with pytest.raises(ValueError, match="data_version"):
        from_wire(TrainJob, {"architecture": "simple_concat_lstm", "splits": "s", "output": "o", "config": {}})
