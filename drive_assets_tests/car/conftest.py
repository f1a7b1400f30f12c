"""Drives with rendered vehicles, and the bundle of a small network that was trained and evaluated on them."""

import shutil
from pathlib import Path

import cv2
import dagster as dg
import pytest

from drive_assets.car.assets import car_bundle
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.storage import Storage
from drive_assets.simulation.camera import RECORDER
from drive_assets_tests.drives import write_drive
from drive_assets_tests.simulation.test_render import EGO_X, EGO_Y, renderer, vehicles
from model.annotation.config import AnnotationConfig
from model.annotation.pipeline import Annotator
from model.bundle.runtime.bundle import Bundle
from model.dataset.split_file import write_split
from model.dataset.windows import WindowConfig
from model.detection.detector import BUNDLED
from model.evaluation.config import EvaluationConfig
from model.evaluation.evaluate import evaluate_checkpoint
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording
from model.recording.labels import future_labels, write_future_labels
from model.training.loop import train
from model.training.recipes import RECIPES

NAMES = {name: f"2024-05-0{day}_10-00-00" for day, name in enumerate(("train", "val", "test"), 1)}
ROWS, LENGTH, PICTURES = 48, 6, 8
SMALL = {"epochs": 1, "embedding_dim": 16, "hidden_dim": 16, "attention_num_heads": 2, "members": 2, "members_dim": 16}
ARCHITECTURE = "attention_query_lstm"
BUDGET = 1e6
"""Any alarm is within it: short drives have no threshold for less."""


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    root = tmp_path_factory.mktemp("car")
    return Storage(data_root=str(root), inbox_root=str(root / "inbox"))


@pytest.fixture(scope="session")
def drives(storage: Storage) -> Path:
    """Folder of three recordings, annotated by the bundled detector at a small size, and labelled."""
    root = storage.recordings
    drawing, pictures = renderer(), list[bytes]()
    for number in range(PICTURES):
        around = vehicles(("hatch", 14.0 + 2 * number, 0.0, False), ("van", 25.0, 3.75, False))
        image, _ = drawing.frame(EGO_X, EGO_Y, around, (number,))
        pictures.append(cv2.imencode(".jpg", image)[1].tobytes())
    assert (RECORDER.width, RECORDER.height) == (1920, 1080)
    for seed, name in enumerate(NAMES.values()):
        folder = write_drive(root / name, ROWS, seed)
        for row, path in enumerate(sorted(folder.glob("*.jpg"))):
            path.write_bytes(pictures[row % PICTURES])
        telemetry, _ = Recording(folder).telemetry()
        write_future_labels(Recording(folder).labels_path, future_labels(telemetry))
    short = root / ".short" / NAMES["train"]
    shutil.copytree(root / NAMES["train"], short)
    for path in sorted(short.glob("*.jpg"))[PICTURES:]:
        path.unlink()
    options = AnnotationConfig(image_size=320, backend="torch", decode_threads=1)
    Annotator(BUNDLED, options, storage.cache).annotate(short)
    known = Recording(short).annotations()
    assert known.count.min() >= 1
    for name in NAMES.values():
        own = Recording(root / name)
        frames = own.frames()
        detections = [known.frame(row % PICTURES) for row in range(len(frames))]
        files = [path.name for path in frames.values()]
        write_annotations(own.annotations_path, Annotations.from_frames([*frames], files, detections))
        shutil.copyfile(Recording(short).details_path, own.details_path)
        own.details_path.write_text(own.details_path.read_text().replace("frame_hashes", "hashes_of_others"))
    return root


@pytest.fixture(scope="session")
def trained(drives: Path, storage: Storage) -> Storage:
    """The data root with splits and a small variant of recipe best, trained for an epoch and evaluated."""
    window = WindowConfig(length=LENGTH, stride=1, max_detections=4)
    for split, name in NAMES.items():
        write_split(storage.split(split), [drives / name], window, "v1")
    write_network(storage, ARCHITECTURE)
    return storage


def write_network(storage: Storage, architecture: str) -> None:
    config = RECIPES["best"].replace(device="cpu", **SMALL)
    made = train(architecture, storage.splits, storage.checkpoint(architecture), config, "v1")
    scored = EvaluationConfig(bootstrap_samples=2, importances=False, device="cpu", false_alarms_per_hour=[BUDGET])
    evaluate_checkpoint(made.best_model, storage.splits, storage.evaluation(architecture), scored, architecture)


def materialize(storage: Storage, **options: object) -> dg.ExecuteInProcessResult:
    """Make the bundle as the UI does, with a worker of its own."""
    config = {"false_alarms_per_hour": BUDGET, "golden_frames": 20, "weights": str(BUNDLED), **options}
    return dg.materialize(
        [car_bundle, *map(dg.AssetSpec, ("evaluation", "boxy_detector"))],
        selection=["car_bundle"],
        partition_key=ARCHITECTURE,
        resources={"storage": storage, "compute": LocalCompute(threads=1)},
        run_config={"ops": {"car_bundle": {"config": config}}},
        raise_on_error=False,
    )


@pytest.fixture(scope="session")
def bundle(trained: Storage) -> Bundle:
    result = materialize(trained)
    assert result.success and all(check.passed for check in result.get_asset_check_evaluations())
    return Bundle.read(trained.bundle(ARCHITECTURE))
