"""Simulated frames in the layout of the published Boxy vehicle data set.

One zip of PNG frames at half size (1232x1028) per sequence, and label JSON files in full-size pixels (2464x2056). AABB
is the box of all that is visible of a vehicle, rear that of its rear alone (null where the rear is out of sight).
"""

import zipfile
from calendar import timegm
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drive_assets.simulation.camera import Camera
from drive_assets.simulation.clips import Clip, clip_frames, is_labelled, write_clips
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.paint import encode
from drive_assets.simulation.vehicles import Seen
from model.common.files import write_json
from model.common.progress import Log

FULL_SIZE_FACTOR = 2
VALIDATION_SHARE = 0.2

Labels = dict[str, dict[str, Any]]
"""Vehicles and flaws by frame."""


def simulate_boxy(output: Path, config: SimulationConfig, tell: Log = print) -> Path:
    """Write the raw set to folder `output`, unless it has it from equal options; returns `output`.

    The first sequences are labelled in `boxy_labels_train.json`, the last fifth in `boxy_labels_valid.json`.

    Raises:
        DataError: `output` holds something else or cannot be written, or SUMO is missing or fails.
    """
    return write_clips(output, config, "Boxy", "boxy_flaw_rate", _write_sequence, _write_labels, tell)


def _write_labels(folder: Path, sequences: Sequence[Labels]) -> None:
    count = len(sequences)
    train = count - max(1, round(count * VALIDATION_SHARE)) if count > 1 else count
    for name, part in (("train", sequences[:train]), ("valid", sequences[train:])):
        labels = {frame: label for sequence in part for frame, label in sequence.items()}
        write_json(folder / f"boxy_labels_{name}.json", labels)


def _write_sequence(folder: Path, config: SimulationConfig, index: int) -> Clip[Labels]:
    rng = np.random.default_rng([config.seed, index, 3])
    start = datetime(2016, 10, 1, 8) + timedelta(days=index, seconds=int(rng.integers(0, 36_000)))
    sequence, camera = f"bluefox_{start:%Y-%m-%d-%H-%M-%S}_bag", Camera.boxy()
    labels: Labels = {}
    with zipfile.ZipFile(folder / f"{sequence}.zip", "w", zipfile.ZIP_STORED) as archive:
        # Sensor noise would make the PNG files four times as large, and averages out at a detector's image size.
        for seconds, image, seen in clip_frames(config, config.seed * 10_007 + 5_003 + index, camera, noise=0.0):
            vehicles = [_label(one) for one in seen if is_labelled(one, config, camera)]
            flaws: list[str] = []
            if rng.random() < config.boxy_flaw_rate:
                flaws, vehicles = ["torn image", "missing labels"], vehicles[1::2]
                image[image.shape[0] // 2 :] = np.roll(image[image.shape[0] // 2 :], image.shape[1] // 3, axis=1)
            name = f"{sequence}/{timegm(start.timetuple()) + seconds:.9f}.png"
            png = encode(image, ".png", cv2.IMWRITE_PNG_COMPRESSION, 1)
            archive.writestr(zipfile.ZipInfo(name, start.timetuple()[:6]), png)
            labels[f"./{name}"] = {"vehicles": vehicles, "flaws": flaws}
    return Clip(len(labels), sum(len(label["vehicles"]) for label in labels.values()), labels)


def _label(seen: Seen) -> dict[str, Any]:
    whole, rear = _full_size(seen.whole), None if seen.rear is None else _full_size(seen.rear)
    return {"AABB": whole, "rear": rear, "side": _side(whole, rear)}


def _full_size(box: tuple[int, int, int, int]) -> dict[str, int]:
    return {key: FULL_SIZE_FACTOR * value for key, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)}


def _side(whole: dict[str, int], rear: dict[str, int] | None) -> dict[str, dict[str, int]] | None:
    """The flank beside the rear as four points, clockwise from the top left; None where none is visible."""
    if rear is None:
        x1, x2 = whole["x1"], whole["x2"]
    elif rear["x1"] - whole["x1"] > whole["x2"] - rear["x2"]:
        x1, x2 = whole["x1"], rear["x1"]
    else:
        x1, x2 = rear["x2"], whole["x2"]
    if x2 <= x1:
        return None
    corners = ((x1, whole["y1"]), (x2, whole["y1"]), (x2, whole["y2"]), (x1, whole["y2"]))
    return {f"p{number}": {"x": x, "y": y} for number, (x, y) in enumerate(corners)}
