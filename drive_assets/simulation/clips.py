"""Simulated frames as raw data sets for detectors, in the layouts of the published Boxy and nuImages.

Boxy: one zip of PNG frames at half size (1232x1028) per sequence, and label JSON files in full-size pixels (2464x2056).
AABB is the box of all that is visible of a vehicle, rear that of its rear alone (null where the rear is out of sight).
Polygons of the sides are left out.

nuImages v1.0-mini: tables that refer to each other by tokens, and key frames of the front camera as JPEG. A box holds
all that is visible of a vehicle. The other cameras are listed but have no frames: the renderer only looks ahead.
"""

import zipfile
from calendar import timegm
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drive_assets.simulation.camera import Camera
from drive_assets.simulation.config import DENSITY, STEP_S, SimulationConfig
from drive_assets.simulation.demand import VEHICLE_TYPES
from drive_assets.simulation.output import exists, new_folder, side_by_side
from drive_assets.simulation.render import JPEG, Renderer
from drive_assets.simulation.scenery import Image
from drive_assets.simulation.traffic import simulate_traffic
from drive_assets.simulation.vehicles import MIN_BOX_PX, MIN_VISIBLE, Seen
from model.common.files import write_json
from model.common.progress import Log

OPTIONS = {"seed", "boxy_sequences", "boxy_frames", "boxy_interval_s"}
"""Fields of the config that the sets depend on."""
BOXY_CAMERA = Camera(1232, 1028, focal=1150.0, horizon=480.0, bonnet=0.92 * 1028, mount=1.4)
"""Boxy's at half size: the bonnet fills the rows below 92 %."""
BOXY_FULL_SIZE = 2
BOXY_VALIDATION_SHARE = 0.2
NUIMAGES_CAMERA = Camera(1600, 900, focal=1260.0, horizon=0.49 * 900, bonnet=900, mount=1.5)
FRONT = "CAM_FRONT"
CAMERAS = (FRONT, "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
CAR = "vehicle.car"
CATEGORY_OF = {"truck": "vehicle.truck", "lorry": "vehicle.truck", "bus": "vehicle.bus.rigid"}
"""By the simulation's vehicle type; all others are cars."""

Labels = dict[str, Any]


def simulate_boxy(output: Path, config: SimulationConfig, log: Log = print) -> Path:
    """Write a Boxy-like raw set of `boxy_sequences` sequences to folder `output`, unless it has it from equal options.

    The first sequences are labelled in `boxy_labels_train.json`, the last fifth in `boxy_labels_valid.json`.

    Raises:
        DataError: `output` holds something else or cannot be written, or SUMO is missing or fails.
    """
    return _write_set(output, config, "Boxy", _write_sequence, _write_boxy_labels, log)


def simulate_nuimages(output: Path, config: SimulationConfig, log: Log = print) -> Path:
    """As `simulate_boxy`, in the layout of nuImages: `boxy_sequences` logs of `boxy_frames` frames."""
    return _write_set(output, config, "nuImages", _write_log, _write_tables, log)


def _write_set(
    output: Path,
    config: SimulationConfig,
    name: str,
    write_clip: Callable[[Path, SimulationConfig, int], Labels],
    write_labels: Callable[[Path, list[Labels]], None],
    log: Log,
) -> Path:
    """`write_clip` writes the frames of clip number i and returns its labels."""
    made_from = {"layout": name} | config.model_dump(include=OPTIONS)
    if exists(output, made_from):
        log(f"{output}: already simulated with these options")
        return output
    count, labels = config.boxy_sequences, []
    with new_folder(output, made_from) as folder:
        clips = side_by_side(write_clip, [(folder, config, index) for index in range(count)], config.workers)
        for number, clip in enumerate(clips, 1):
            log(f"{name} clip {number}/{count}: {config.boxy_frames} frames")
            labels.append(clip)
        write_labels(folder, labels)
    return output


def _frames(
    config: SimulationConfig, seed: int, camera: Camera, noise: float = 1.0
) -> Iterator[tuple[float, Image, list[Seen]]]:
    """Frames of a clip: seconds since its start, the picture, and the vehicles that are large and visible enough."""
    interval, frames = round(config.boxy_interval_s / STEP_S), config.boxy_frames
    traffic = simulate_traffic(frames * config.boxy_interval_s, DENSITY, seed)
    renderer = Renderer(camera, traffic.road, seed, noise)
    smallest = MIN_BOX_PX * camera.width / 1920
    for step in range(0, frames * interval, interval):
        image, seen = renderer.frame(traffic.x[step], traffic.y[step], traffic.around[step], (seed, step))
        visible = [one for one in seen if one.visible >= MIN_VISIBLE]
        sizes = [min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (one.whole for one in visible)]
        yield step * STEP_S, image, [one for one, size in zip(visible, sizes, strict=True) if size >= smallest]


def _write_sequence(folder: Path, config: SimulationConfig, index: int) -> Labels:
    """Write the zip of a Boxy-like sequence; returns the labels by frame."""
    rng = np.random.default_rng([config.seed, index, 3])
    start = datetime(2016, 10, 1, 8) + timedelta(days=index, seconds=int(rng.integers(0, 36_000)))
    sequence, labels = f"bluefox_{start:%Y-%m-%d-%H-%M-%S}_bag", {}
    with zipfile.ZipFile(folder / f"{sequence}.zip", "w", zipfile.ZIP_STORED) as archive:
        # Sensor noise would make the PNG files four times as large, and averages out at a detector's image size.
        for seconds, image, seen in _frames(config, config.seed * 10_007 + 5_003 + index, BOXY_CAMERA, noise=0.0):
            name = f"{sequence}/{timegm(start.timetuple()) + seconds:.9f}.png"
            _, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            archive.writestr(zipfile.ZipInfo(name, start.timetuple()[:6]), png.tobytes())
            vehicles = [{"AABB": _full_size(one.whole), "rear": _full_size(one.rear), "side": None} for one in seen]
            labels[f"./{name}"] = {"vehicles": vehicles, "flaws": []}
    return labels


def _full_size(box: tuple[int, int, int, int] | None) -> dict[str, int] | None:
    return box and {key: BOXY_FULL_SIZE * value for key, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)}


def _write_boxy_labels(folder: Path, sequences: list[Labels]) -> None:
    count = len(sequences)
    train = count - max(1, round(count * BOXY_VALIDATION_SHARE)) if count > 1 else count
    for name, part in (("train", sequences[:train]), ("valid", sequences[train:])):
        labels = {frame: label for sequence in part for frame, label in sequence.items()}
        write_json(folder / f"boxy_labels_{name}.json", labels)


def _write_log(folder: Path, config: SimulationConfig, index: int) -> Labels:
    """Write the frames of a nuImages-like log; returns its rows by table."""
    rng = np.random.default_rng([config.seed, index, 5])
    start = datetime(2018, 1, 3, 8) + timedelta(days=index, seconds=int(rng.integers(0, 36_000)))
    log, camera = f"n003-{start:%Y-%m-%d-%H-%M-%S}+0800", NUIMAGES_CAMERA
    (folder / "samples" / FRONT).mkdir(parents=True, exist_ok=True)
    tables: Labels = {"log": [{"token": log, "logfile": log}], "sample": [], "sample_data": [], "object_ann": []}
    for seconds, image, seen in _frames(config, config.seed * 10_007 + 7_003 + index, camera):
        timestamp = round((start.timestamp() + seconds) * 1e6)
        file = f"samples/{FRONT}/{log}__{FRONT}__{timestamp}.jpg"
        _, jpeg = cv2.imencode(".jpg", image, JPEG)
        (folder / file).write_bytes(jpeg.tobytes())
        key, data = f"{log}-{timestamp}", f"{log}-{timestamp}-data"
        tables["sample"].append({"token": key, "timestamp": timestamp, "log_token": log, "key_camera_token": data})
        tables["sample_data"].append(
            {"token": data, "sample_token": key, "calibrated_sensor_token": f"calibrated-{FRONT}", "filename": file,
             "width": camera.width, "height": camera.height, "timestamp": timestamp, "is_key_frame": True}
        )  # fmt: skip
        tables["object_ann"] += [
            {"token": f"{key}-{number}", "category_token": CATEGORY_OF.get(VEHICLE_TYPES[one.kind].name, CAR),
             "sample_data_token": data, "bbox": list(one.whole)}
            for number, one in enumerate(seen)
        ]  # fmt: skip
    return tables


def _write_tables(folder: Path, logs: list[Labels]) -> None:
    tables: Labels = {name: [row for log in logs for row in log[name]] for name in logs[0]}
    tables["sensor"] = [{"token": f"sensor-{c}", "channel": c, "modality": "camera"} for c in CAMERAS]
    tables["calibrated_sensor"] = [{"token": f"calibrated-{c}", "sensor_token": f"sensor-{c}"} for c in CAMERAS]
    tables["category"] = [{"token": name, "name": name} for name in sorted({CAR, *CATEGORY_OF.values()})]
    for name, rows in tables.items():
        write_json(folder / "v1.0-mini" / f"{name}.json", rows)
