"""Small split files for tests of networks and training, in the layout that `read_split` reads."""

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from model.dataset.split_file import write_arrays
from model.dataset.windows import WindowConfig
from model.recording.schema import BINARY_LABELS, FEATURES, used_schema

CLASSES = ("vehicle.left", "vehicle.front", "vehicle.right")


def write_split_file(
    path: Path,
    frames: int = 240,
    seed: int = 0,
    length: int = 20,
    stride: int = 1,
    version: str = "v1",
    class_names: Sequence[str] = CLASSES,
    coast_threshold: float = 7.5,
) -> Path:
    """One recording with labels that can be learnt: in stretches of 10 frames a vehicle is near or not, as the brake
    labels say, and the pedal is released or not, as the coast labels say; the rest is noise."""
    generator = np.random.default_rng(seed)
    telemetry = generator.uniform((0, 650, 0, 0, 0), (150, 4500, 100, 100, 5.49), (frames, 5)).astype(np.float32)
    telemetry[:, 4] = telemetry[:, 4].round()
    stretch = np.arange(frames) // 10
    near, coast = stretch % 2 == 0, stretch // 2 % 2 == 0
    telemetry[coast, 2] *= 0.05
    mask = np.arange(12) < generator.integers(0, 5, frames)[:, None]
    mask[near, 0] = True
    corner = generator.uniform((0, 0), (960, 287), (frames, 12, 2))
    size = generator.uniform((10, 10), (100, 100), (frames, 12, 2))
    size[near, 0] = (900, 280)
    detections = np.zeros((frames, 12, 7), np.float32)
    detections[..., 0] = generator.integers(0, len(CLASSES), (frames, 12))
    detections[..., 1] = generator.uniform(0.25, 1, (frames, 12))
    detections[..., 2:4], detections[..., 4:6], detections[..., 6] = corner, corner + size, size.prod(axis=-1)
    detections[~mask] = 0
    labels = np.stack([near if name.startswith("brake") else coast for name in BINARY_LABELS], axis=1).astype(np.int8)
    arrays = {
        "telemetry": telemetry,
        "detections": detections,
        "detection_mask": mask,
        "labels": labels,
        "state": np.stack([near, coast], axis=1).astype(np.int8),
        "targets": np.zeros((frames, 10), np.float32),
        "time_ms": np.arange(frames, dtype=np.int64) * 500,
        "clock_ms": np.arange(frames, dtype=np.int64) * 500,
        "recording": np.zeros(frames, np.int16),
        "region": np.array([[1920, 575]], np.int32),
        "window_start": np.arange(0, frames - length + 1, stride, dtype=np.int32),
    }
    attributes = {
        "fingerprint": version,
        "recordings": json.dumps(["2024-05-01_10-00-00"]),
        "features": json.dumps(FEATURES),
        "labels": json.dumps(BINARY_LABELS),
        "window": WindowConfig(length=length, stride=stride).model_dump_json(),
        "schema": used_schema(FEATURES)["fingerprint"],
        "coast_threshold": str(coast_threshold),
        "class_names": json.dumps(class_names),
    }
    write_arrays(path, arrays, attributes)
    return path


def write_splits(data_root: Path) -> Path:
    """Splits with their manifest, as h5_split writes them, as far as a training needs them; returns their folder."""
    folder = data_root / "datasets" / "multimodal"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "val", "test")):
        write_split_file(folder / f"{name}.h5", frames=60, seed=seed, version="v1")
    part = {"windows": 41, "label_rates": dict.fromkeys(BINARY_LABELS, 0.5)}
    content = {"fingerprint": "v1", "splits": dict.fromkeys(("train", "val", "test"), part)}
    (folder / "dataset_config.json").write_text(json.dumps(content))
    return folder


def rewrite(path: Path, **changes: np.ndarray) -> None:
    """Replace data sets of a split file."""
    with h5py.File(path, "a") as file:
        for name, values in changes.items():
            del file[name]
            file[name] = values
