"""Simulated drives without images: telemetry, a detector's boxes and the traffic's true state, as split files.

The boxes are the simulation's, with a detector's errors: misses that last, more of them for small and hidden vehicles,
jitter of the corners, confidences, and false detections.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from drive_assets.simulation.camera import RECORDER, View, Waves
from drive_assets.simulation.demand import VEHICLE_TYPES
from drive_assets.simulation.driver import drive
from drive_assets.simulation.output import new_folder
from drive_assets.simulation.recorder import record, sample_steps, to_csv
from drive_assets.simulation.render import CAMERA_SETBACK_M
from drive_assets.simulation.traffic import Traffic, simulate_traffic
from drive_assets.simulation.vehicles import Seen, see_vehicles
from model.dataset.split_file import write_split
from model.dataset.windows import WindowConfig
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import DEFAULT_REGION
from model.recording.labels import future_labels, write_future_labels
from model.recording.telemetry import read_telemetry

DURATION_S = 1800.0
DENSITY = (12.0, 30.0)
"""Vehicles per km. The driver then brakes in 5 % of the rows and coasts in 9 %; published drives: 3 and 7 %."""
BOX_JITTER = (0.8, 0.003)
"""Standard deviation of a corner: px, and share of the box.

Measured on 110 consecutive frames of a real road (960 px wide, enlarged to 1920, YOLO11n at 704 px) against a parabola
over 0.7 s: log sizes vary by 1.3 to 2.3 % for three cars of 60 px, by 0.75 % for a truck of 180 px.
"""
ROI_TOP = 320
STATE = ("speed", "acceleration", "gap", "lead_speed", "lead_braking", "closing")
"""Columns of true_state.csv after Time: m/s, m/s2, m to the lead's rear (300 without a lead), m/s, 0 or 1, 1/s."""
FARTHEST_M = 300.0


def make_drives(folder: Path, count: int, seed: int, workers: int, box_jitter: float = 1.0) -> list[Path]:
    """`count` recording folders of 30 minutes, existing ones included; boxes jitter by `box_jitter` x BOX_JITTER."""
    names = [f"{datetime(2025, 1, 1) + timedelta(days=index):%Y-%m-%d}_10-00-00" for index in range(count)]
    missing = [
        (folder / name, seed, index, box_jitter) for index, name in enumerate(names) if not (folder / name).is_dir()
    ]
    if missing:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for name in pool.map(_make, *zip(*missing, strict=True)):
                print(f"simulated {name}", flush=True)
    return [folder / name for name in names]


def make_splits(folder: Path, drives: Sequence[Path]) -> Path:
    """Splits at stride 1: the last sixth of the drives is test, the sixth before is val, the rest is train."""
    held = max(len(drives) // 6, 1)
    parts = {"train": drives[: -2 * held], "val": drives[-2 * held : -held], "test": drives[-held:]}
    for name, members in parts.items():
        if not (folder / f"{name}.h5").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_split(folder / f"{name}.h5", list(members), WindowConfig(stride=1))
    return folder


def true_state(drives: Sequence[Path], time_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(F,6) the true state in the order of STATE at the frames of a split's recordings, found by their time."""
    table = pd.concat([pd.read_csv(path / "true_state.csv") for path in drives])
    rows = pd.Index(table["t"]).get_indexer(pd.Index(time_ms))
    if (rows < 0).any():
        raise ValueError(f"{(rows < 0).sum()} frames have no true state: remove the cache and simulate again.")
    return table[list(STATE)].to_numpy(np.float32)[rows]


def _make(folder: Path, seed: int, index: int, box_jitter: float) -> str:
    """Simulate one drive into `folder`."""
    rng = np.random.default_rng([seed, index])
    drive_seed = seed * 10_007 + index
    traffic = simulate_traffic(DURATION_S + 1, DENSITY, drive_seed)
    controls = drive(traffic.speed, traffic.acceleration, rng)
    start = datetime.strptime(folder.name, "%Y-%m-%d_%H-%M-%S")
    recorded = record(start, sample_steps(DURATION_S, rng), controls, 0.0, rng)
    with new_folder(folder, {"seed": seed, "index": index, "box_jitter": box_jitter}) as temporary:
        (temporary / "telemetry.csv").write_text(to_csv(recorded), encoding="utf-8")
        table, _ = read_telemetry(temporary / "telemetry.csv")
        write_future_labels(temporary / "future_labels.csv", future_labels(table))
        steps = [sample.step for sample in recorded]
        _write_state(temporary / "true_state.csv", table, traffic, steps)
        times = table["Time"].astype(str).tolist()
        boxes = _detections(traffic, steps, drive_seed, box_jitter, rng)
        annotations = Annotations.from_frames(times, [f"{time}.jpg" for time in times], boxes)
        write_annotations(temporary / "annotations.csv", annotations)
        (temporary / "annotations.json").write_text(json.dumps({"class_names": ["vehicle"]}), encoding="utf-8")
    return folder.name


def _write_state(path: Path, table: pd.DataFrame, traffic: Traffic, steps: list[int]) -> None:
    rows = []
    for step in steps:
        around, lengths = traffic.around[step], np.array([kind.length for kind in VEHICLE_TYPES])
        rear = around.x - lengths[around.kind] - traffic.x[step]
        ahead = np.flatnonzero((np.abs(around.y - traffic.y[step]) < 1.9) & (rear > -1.0))
        lead = ahead[rear[ahead].argmin()] if len(ahead) else None
        gap = FARTHEST_M if lead is None else max(float(rear[lead]), 0.1)
        speed = float(traffic.speed[step])
        lead_speed = speed if lead is None else float(around.speed[lead])
        braking = 0.0 if lead is None else float(around.braking[lead])
        rows.append((speed, traffic.acceleration[step], gap, lead_speed, braking, (speed - lead_speed) / gap))
    frame = pd.DataFrame(rows, columns=list(STATE))
    frame.insert(0, "t", table["t"].to_numpy())
    frame.to_csv(path, index=False, float_format="%.5g")


def _detections(
    traffic: Traffic, steps: list[int], seed: int, box_jitter: float, rng: np.random.Generator
) -> list[npt.NDArray[np.float32]]:
    """Boxes (M,6) of each frame: x1, y1, x2, y2 in px of the region of interest, confidence, class 0."""
    road = np.random.default_rng([seed, 6])
    bends, hills = Waves.random(road, 800), Waves.random(road, 20_000)
    missed: dict[int, bool] = {}
    frames = []
    for step in steps:
        view = View.at(RECORDER, bends, hills, traffic.x[step] - CAMERA_SETBACK_M, float(rng.normal(0, 1.2)))
        seen = see_vehicles(view, traffic.y[step], traffic.around[step])
        frames.append(_detect(seen, missed, box_jitter, rng))
    return frames


def _detect(
    seen: list[Seen], missed: dict[int, bool], box_jitter: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A detector's boxes of one frame; `missed` records whether it missed a vehicle in the frame before."""
    boxes = []
    limit = np.array(2 * DEFAULT_REGION[2:], float)
    for one in seen:
        box = np.clip(np.array(one.whole, float) - (0, ROI_TOP, 0, ROI_TOP), 0, limit)
        size = np.tile(box[2:] - box[:2], 2)
        if size.min() < 14 or one.visible < 0.25:
            continue
        # Large, visible vehicles are rarely missed; a missed vehicle is likely to be missed again.
        rate = 0.02 + 0.35 * np.exp(-(size.min() - 14) / 14) + 0.3 * max(0.0, 0.7 - one.visible)
        miss = bool(rng.random() < (0.4 + 0.6 * rate if missed.get(one.number, False) else 0.7 * rate))
        missed[one.number] = miss
        if miss:
            continue
        box = np.clip(box + rng.normal(0, box_jitter * (BOX_JITTER[0] + BOX_JITTER[1] * size)), 0, limit)
        confidence = np.clip(0.93 - 0.55 * np.exp(-size.min() / 25) + rng.normal(0, 0.05), 0.25, 0.99)
        boxes.append((*box, confidence, 0.0))
    for _ in range(rng.poisson(0.04)):
        corner, size = rng.uniform((0, 50), (1700, 300)), rng.uniform(15, 120, 2)
        boxes.append((*corner, *(corner + size), float(rng.uniform(0.25, 0.5)), 0.0))
    found = np.array(boxes, np.float32).reshape(-1, 6)
    return found[np.argsort(-found[:, 4], kind="stable")]
