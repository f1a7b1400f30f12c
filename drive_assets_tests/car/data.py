"""Drives with rendered vehicles, and networks that were trained and evaluated on them."""

import shutil

import cv2

from drive_assets.resources.storage import Storage
from drive_assets.simulation.camera import RECORDER
from drive_assets_tests.drives import write_drive
from drive_assets_tests.simulation.test_render import EGO_X, EGO_Y, renderer, vehicles
from model.annotation.config import AnnotationConfig
from model.annotation.pipeline import Annotator
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
PICTURES = 8
BUDGET = 1e6
"""Any alarm is within it: short drives have no threshold for less."""


def write_drives(storage: Storage, rows: int, image_size: int, window: WindowConfig) -> None:
    """Three recordings, annotated by the bundled detector and labelled, and their splits."""
    root = storage.recordings
    drawing, pictures = renderer(), list[bytes]()
    for number in range(PICTURES):
        around = vehicles(("hatch", 14.0 + 2 * number, 0.0, False), ("van", 25.0, 3.75, False))
        image, _ = drawing.frame(EGO_X, EGO_Y, around, (number,))
        pictures.append(cv2.imencode(".jpg", image)[1].tobytes())
    assert (RECORDER.width, RECORDER.height) == (1920, 1080)
    for seed, name in enumerate(NAMES.values()):
        folder = write_drive(root / name, rows, seed)
        for row, path in enumerate(sorted(folder.glob("*.jpg"))):
            path.write_bytes(pictures[row % PICTURES])
        telemetry, _ = Recording(folder).telemetry()
        write_future_labels(Recording(folder).labels_path, future_labels(telemetry))
    short = root / ".short" / NAMES["train"]
    shutil.copytree(root / NAMES["train"], short)
    for path in sorted(short.glob("*.jpg"))[PICTURES:]:
        path.unlink()
    options = AnnotationConfig(image_size=image_size, backend="torch", decode_threads=1)
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
    for split, name in NAMES.items():
        write_split(storage.split(split), [root / name], window, "v1")


def write_network(storage: Storage, architecture: str, **options: object) -> None:
    """A network by recipe best with other options, trained and evaluated."""
    config = RECIPES["best"].replace(device="cpu", **options)
    made = train(architecture, storage.splits, storage.checkpoint(architecture), config, "v1")
    scored = EvaluationConfig(bootstrap_samples=2, importances=False, device="cpu", false_alarms_per_hour=[BUDGET])
    evaluate_checkpoint(made.best_model, storage.splits, storage.evaluation(architecture), scored, architecture)
