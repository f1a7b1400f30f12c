"""Simulated frames in the layout of the published nuImages v1.0-mini.

Tables that refer to each other by tokens, and key frames of the front camera as JPEG. A box holds all that is visible
of a vehicle: a car, a truck or a bus. The other cameras are listed but have no frames: the renderer only looks ahead.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drive_assets.simulation.camera import Camera
from drive_assets.simulation.clips import Clip, clip_frames, is_labelled, write_clips
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.demand import VEHICLE_TYPES
from drive_assets.simulation.paint import encode
from model.common.files import write_json
from model.common.progress import Log

WIDTH, HEIGHT = 1600, 900
FRONT = "CAM_FRONT"
CAMERAS = (FRONT, "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
CATEGORY_OF = {"truck": "vehicle.truck", "lorry": "vehicle.truck", "bus": "vehicle.bus.rigid"}
"""By the simulation's vehicle type; all others are cars."""

Tables = dict[str, list[dict[str, Any]]]


def simulate_nuimages(output: Path, config: SimulationConfig, tell: Log = print) -> Path:
    """Write the raw set to folder `output`, unless it has it from equal options; returns `output`.

    It has as many logs, of as many frames, as the Boxy-like set has sequences.

    Raises:
        DataError: `output` holds something else or cannot be written, or SUMO is missing or fails.
    """
    return write_clips(output, config, "nuImages", "jpeg_quality", _write_log, _write_tables, tell)


def _write_tables(folder: Path, logs: Sequence[Tables]) -> None:
    tables: Tables = {name: [row for log in logs for row in log[name]] for name in logs[0]}
    tables["sensor"] = [{"token": f"sensor-{c}", "channel": c, "modality": "camera"} for c in CAMERAS]
    tables["calibrated_sensor"] = [{"token": f"calibrated-{c}", "sensor_token": f"sensor-{c}"} for c in CAMERAS]
    categories = sorted({"vehicle.car", *CATEGORY_OF.values()})
    tables["category"] = [{"token": name, "name": name, "description": "simulated"} for name in categories]
    tables |= {"attribute": [], "ego_pose": [], "surface_ann": []}
    for name, rows in tables.items():
        write_json(folder / "v1.0-mini" / f"{name}.json", rows)


def _write_log(folder: Path, config: SimulationConfig, index: int) -> Clip[Tables]:
    rng = np.random.default_rng([config.seed, index, 5])
    start = datetime(2018, 1, 3, 8) + timedelta(days=index, seconds=int(rng.integers(0, 36_000)))
    log = f"n003-{start:%Y-%m-%d-%H-%M-%S}+0800"
    camera = Camera(WIDTH, HEIGHT, focal=1260.0, horizon=0.49 * HEIGHT, bonnet=HEIGHT, mount=1.5)
    (folder / "samples" / FRONT).mkdir(parents=True, exist_ok=True)
    samples, data, annotations = [], [], []
    frames = clip_frames(config, config.seed * 10_007 + 7_003 + index, camera)
    for frame, (seconds, image, seen) in enumerate(frames):
        timestamp = round((start.timestamp() + seconds) * 1e6)
        file, key = f"samples/{FRONT}/{log}__{FRONT}__{timestamp}.jpg", f"{log}-{frame}"
        (folder / file).write_bytes(encode(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality))
        samples.append({"token": key, "timestamp": timestamp, "log_token": log, "key_camera_token": f"{key}-d"})
        data.append(
            {"token": f"{key}-d", "sample_token": key, "ego_pose_token": "",
             "calibrated_sensor_token": f"calibrated-{FRONT}", "filename": file, "fileformat": "jpg", "width": WIDTH,
             "height": HEIGHT, "timestamp": timestamp, "is_key_frame": True, "prev": "", "next": ""}
        )  # fmt: skip
        for number, one in enumerate(seen):
            if is_labelled(one, config, camera):
                category = CATEGORY_OF.get(VEHICLE_TYPES[one.kind].name, "vehicle.car")
                annotations.append(
                    {"token": f"{key}-{number}", "category_token": category, "bbox": list(one.whole), "mask": None,
                     "attribute_tokens": [], "sample_data_token": f"{key}-d"}
                )  # fmt: skip
    tables: Tables = {
        "log": [{"token": log, "logfile": log}],
        "sample": samples,
        "sample_data": data,
        "object_ann": annotations,
    }
    return Clip(len(samples), len(annotations), tables)
