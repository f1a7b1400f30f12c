"""Simulated frames in the layout of nuImages v1.0-mini as published.

Tables that refer to each other by tokens, and the key frames of the front camera as JPEG. Boxes hold all that is seen
of a vehicle; it is a car, a truck or a bus. The other cameras are named but have no frames: the renderer looks ahead.
"""

from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np

from drive_assets.simulation.camera import Camera
from drive_assets.simulation.config import STEP_S, SimulationConfig
from drive_assets.simulation.demand import VEHICLE_TYPES
from drive_assets.simulation.output import exists, new_folder, side_by_side
from drive_assets.simulation.render import Renderer
from drive_assets.simulation.traffic import simulate_traffic
from model.common.files import write_json
from model.common.progress import Tell

WIDTH, HEIGHT = 1600, 900
FRONT = "CAM_FRONT"
CAMERAS = (FRONT, "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
CATEGORY_OF = {"truck": "vehicle.truck", "lorry": "vehicle.truck", "bus": "vehicle.bus.rigid"}
"""By the simulation's type of vehicle; all others are cars."""
_OPTIONS = ("seed", "density_min", "density_max", "min_box_px", "min_visible", "boxy_sequences", "boxy_frames",
            "boxy_interval_s", "jpeg_quality")  # fmt: skip

Tables = dict[str, list[dict[str, Any]]]


def simulate_nuimages(output: Path, config: SimulationConfig, tell: Tell = print) -> Path:
    """Write the raw set to folder `output`, kept if it is already there from the same options; returns `output`.

    It has as many logs, of as many frames, as the Boxy-like set has sequences.

    Raises:
        DataError: `output` holds something else or cannot be written, or SUMO is missing or fails.
    """
    options = config.model_dump()
    made_from = {"nuimages": {name: options[name] for name in _OPTIONS}}
    if exists(output, made_from):
        tell(f"{output}: already simulated with these options, kept")
        return output
    start, count = monotonic(), config.boxy_sequences

    def told(index: int, tables: Tables) -> None:
        frames, boxes = len(tables["sample"]), len(tables["object_ann"])
        tell(
            f"nuImages log {index + 1}/{count}: {frames} frames, {boxes} vehicles, "
            f"{monotonic() - start:.0f} s since the start"
        )

    with new_folder(output, made_from) as folder:
        (folder / "samples" / FRONT).mkdir(parents=True)
        logs = side_by_side(_log, [(folder, config, index) for index in range(count)], config.workers, told)
        tables: Tables = {name: [row for log in logs for row in log[name]] for name in logs[0]}
        tables["sensor"] = [{"token": f"sensor-{c}", "channel": c, "modality": "camera"} for c in CAMERAS]
        tables["calibrated_sensor"] = [{"token": f"calibrated-{c}", "sensor_token": f"sensor-{c}"} for c in CAMERAS]
        categories = sorted({"vehicle.car", *CATEGORY_OF.values()})
        tables["category"] = [{"token": name, "name": name, "description": "simulated"} for name in categories]
        for name in ("attribute", "ego_pose", "surface_ann"):
            tables[name] = []
        for name, rows in tables.items():
            write_json(folder / "v1.0-mini" / f"{name}.json", rows)
    return output


def _log(folder: Path, config: SimulationConfig, index: int) -> Tables:
    """Write the frames of one log and return its rows."""
    seed = config.seed * 10_007 + 7_003 + index
    rng = np.random.default_rng([config.seed, index, 5])
    start = datetime(2018, 1, 3, 8) + timedelta(days=index, seconds=int(rng.integers(0, 36_000)))
    log, step = f"n003-{start:%Y-%m-%d-%H-%M-%S}+0800", round(config.boxy_interval_s / STEP_S)
    density = (config.density_min, config.density_max)
    traffic = simulate_traffic(config.boxy_frames * config.boxy_interval_s, density, seed)
    camera = Camera(WIDTH, HEIGHT, focal=1260.0, horizon=0.49 * HEIGHT, bonnet=HEIGHT, mount=1.5)
    renderer = Renderer(camera, traffic.road, seed)
    smallest = config.min_box_px * WIDTH / 1920
    tables: Tables = {"log": [{"token": log, "logfile": log}], "sample": [], "sample_data": [], "object_ann": []}
    for frame in range(config.boxy_frames):
        at = frame * step
        around = traffic.around[at]
        kind_of = dict(zip(around.number.tolist(), around.kind.tolist(), strict=True))
        image, seen = renderer.frame(traffic.x[at], traffic.y[at], around, (seed, at))
        done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality])
        if not done:
            raise RuntimeError("OpenCV could not encode a JPEG frame")
        timestamp = round((start.timestamp() + at * STEP_S) * 1e6)
        file, key = f"samples/{FRONT}/{log}__{FRONT}__{timestamp}.jpg", f"{log}-{frame}"
        (folder / file).write_bytes(jpeg.tobytes())
        tables["sample"].append(
            {"token": key, "timestamp": timestamp, "log_token": log, "key_camera_token": f"{key}-d"}
        )
        tables["sample_data"].append(
            {
                "token": f"{key}-d",
                "sample_token": key,
                "ego_pose_token": "",
                "calibrated_sensor_token": f"calibrated-{FRONT}",
                "filename": file,
                "fileformat": "jpg",
                "width": WIDTH,
                "height": HEIGHT,
                "timestamp": timestamp,
                "is_key_frame": True,
                "prev": "",
                "next": "",
            }
        )
        for number, one in enumerate(seen):
            x1, y1, x2, y2 = one.whole
            if one.visible < config.min_visible or min(x2 - x1, y2 - y1) < smallest:
                continue
            category = CATEGORY_OF.get(VEHICLE_TYPES[kind_of[one.number]].name, "vehicle.car")
            tables["object_ann"].append(
                {"token": f"{key}-{number}", "category_token": category, "bbox": [x1, y1, x2, y2], "mask": None,
                 "attribute_tokens": [], "sample_data_token": f"{key}-d"}
            )  # fmt: skip
    return tables
