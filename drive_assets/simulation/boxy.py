"""Simulated frames in the layout of the Boxy vehicle data set as published.

Zips of PNG frames at half size (1232x1028), one a sequence, beside label JSON files in full-size pixels (2464x2056).
AABB holds all that is seen of a vehicle, rear its rear alone (null where the rear is out of sight).
"""

import zipfile
from calendar import timegm
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.camera import Camera
from drive_assets.simulation.config import STEP_S, SimulationConfig
from drive_assets.simulation.output import exists, new_folder, side_by_side
from drive_assets.simulation.render import Renderer
from drive_assets.simulation.traffic import simulate_traffic
from drive_assets.simulation.vehicles import Seen
from model.common.files import write_json
from model.common.progress import Tell

FULL_SIZE_FACTOR = 2
VALIDATION_SHARE = 0.2
_OPTIONS = ("seed", "density_min", "density_max", "min_box_px", "min_visible", "boxy_sequences", "boxy_frames",
            "boxy_interval_s", "boxy_flaw_rate")  # fmt: skip

Labels = dict[str, dict[str, Any]]


def simulate_boxy(output: Path, config: SimulationConfig, tell: Tell = print) -> Path:
    """Write the raw set to folder `output`, kept if it is already there from the same options; returns `output`.

    The first sequences are labelled in `boxy_labels_train.json`, the last fifth in `boxy_labels_valid.json`.

    Raises:
        DataError: `output` holds something else or cannot be written, or SUMO is missing or fails.
    """
    options = config.model_dump()
    made_from = {"boxy": {name: options[name] for name in _OPTIONS}}
    if exists(output, made_from):
        tell(f"{output}: already simulated with these options, kept")
        return output
    start = monotonic()
    count = config.boxy_sequences

    def told(index: int, labels: Labels) -> None:
        vehicles = sum(len(label["vehicles"]) for label in labels.values())
        tell(
            f"Boxy sequence {index + 1}/{count}: {len(labels)} frames, {vehicles} vehicles, "
            f"{monotonic() - start:.0f} s since the start"
        )

    with new_folder(output, made_from) as folder:
        sequences = side_by_side(_sequence, [(folder, config, index) for index in range(count)], config.workers, told)
        validation = max(1, round(count * VALIDATION_SHARE)) if count > 1 else 0
        for name, part in (("train", sequences[: count - validation]), ("valid", sequences[count - validation :])):
            write_json(
                folder / f"boxy_labels_{name}.json",
                {frame: label for labels in part for frame, label in labels.items()},
            )
    return output


def _sequence(folder: Path, config: SimulationConfig, index: int) -> Labels:
    """Write one sequence's zip and return its labels by frame."""
    seed = config.seed * 10_007 + 5_003 + index
    rng = np.random.default_rng([config.seed, index, 3])
    start = datetime(2016, 10, 1, 8) + timedelta(days=index, seconds=int(rng.integers(0, 36_000)))
    sequence = f"bluefox_{start:%Y-%m-%d-%H-%M-%S}_bag"
    step = round(config.boxy_interval_s / STEP_S)
    # Sensor noise would make the PNG files four times as large and is averaged out at a detector's image size.
    traffic = simulate_traffic(
        config.boxy_frames * config.boxy_interval_s, (config.density_min, config.density_max), seed
    )
    renderer = Renderer(Camera.boxy(), traffic.road, seed, noise=0.0)
    labels: Labels = {}
    with zipfile.ZipFile(folder / f"{sequence}.zip", "w", zipfile.ZIP_STORED) as archive:
        for frame in range(config.boxy_frames):
            at = frame * step
            image, seen = renderer.frame(traffic.x[at], traffic.y[at], traffic.around[at], (seed, at))
            vehicles = [_label(one) for one in seen if _large(one, config, renderer.camera)]
            flaws: list[str] = []
            if rng.random() < config.boxy_flaw_rate:
                # What makes a frame flawed: its picture is damaged and not all of its vehicles are labelled.
                flaws, vehicles = ["torn image", "missing labels"], vehicles[1::2]
                image[image.shape[0] // 2 :] = np.roll(image[image.shape[0] // 2 :], image.shape[1] // 3, axis=1)
            name = f"{timegm(start.timetuple()) + at * STEP_S:.9f}.png"
            archive.writestr(zipfile.ZipInfo(f"{sequence}/{name}", start.timetuple()[:6]), _png(image))
            labels[f"./{sequence}/{name}"] = {"vehicles": vehicles, "flaws": flaws}
    return labels


def _png(image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise RuntimeError("OpenCV could not encode a PNG frame")
    return data.tobytes()


def _large(seen: Seen, config: SimulationConfig, camera: Camera) -> bool:
    x1, y1, x2, y2 = seen.whole
    smallest = config.min_box_px * camera.width / 1920
    return seen.visible >= config.min_visible and min(x2 - x1, y2 - y1) >= smallest


def _label(seen: Seen) -> dict[str, Any]:
    whole, rear = _full(seen.whole), None if seen.rear is None else _full(seen.rear)
    return {"AABB": whole, "rear": rear, "side": _side(whole, rear)}


def _full(box: tuple[int, int, int, int]) -> dict[str, int]:
    return {key: FULL_SIZE_FACTOR * value for key, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)}


def _side(whole: dict[str, int], rear: dict[str, int] | None) -> dict[str, dict[str, int]] | None:
    """The flank as four points, clockwise from the top left: what of `whole` lies beside `rear`; None where nothing."""
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
