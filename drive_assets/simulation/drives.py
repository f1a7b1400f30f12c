"""Simulated drives as recording folders, with the true boxes beside the frames."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.camera import RECORDER
from drive_assets.simulation.config import DENSITY, SimulationConfig
from drive_assets.simulation.driver import drive
from drive_assets.simulation.look import Look
from drive_assets.simulation.output import exists, new_folder, side_by_side
from drive_assets.simulation.recorder import Sample, record, sample_steps, to_csv
from drive_assets.simulation.render import JPEG, Renderer
from drive_assets.simulation.traffic import Traffic, simulate_traffic
from drive_assets.simulation.vehicles import MIN_BOX_PX, MIN_VISIBLE, Seen
from model.common.progress import Log
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import DEFAULT_REGION, TELEMETRY, TRUE_ANNOTATIONS
from model.recording.frame_files import frame_name

_OPTIONS = {"duration_s", "seed", "fault_rate"}
_HOURS = {"day": (9, 15), "dusk": (17, 18), "night": (19, 22)}


def simulate_drives(output: Path, config: SimulationConfig, log: Log = print) -> list[Path]:
    """Write `config.recordings` drives as folders of `output`, named by their start, and return them in order.

    Each has telemetry.csv, one `<Time>.jpg` per row, and true_annotations.csv (px of the default region of interest).
    Folders that equal options made before are kept, so that an interrupted run resumes.

    Raises:
        DataError: a folder of that name holds something else, `output` cannot be written, SUMO is missing or fails.
    """
    folders = [output / f"{_start(config, index):%Y-%m-%d_%H-%M-%S}" for index in range(config.recordings)]
    missing = [index for index, folder in enumerate(folders) if not exists(folder, _made_from(config, index))]
    if len(missing) < len(folders):
        log(f"{len(folders) - len(missing)} of {len(folders)} drives already exist")
    summaries = side_by_side(_simulate, [(folders[index], config, index) for index in missing], config.workers)
    for index, summary in zip(missing, summaries, strict=True):
        log(f"drive {index + 1}/{len(folders)} {folders[index].name}: {summary}")
    return folders


def _drive_seed(config: SimulationConfig, index: int) -> int:
    return config.seed * 10_007 + index


def _made_from(config: SimulationConfig, index: int) -> dict[str, Any]:
    return {"drive": index, **config.model_dump(include=_OPTIONS)}


def _start(config: SimulationConfig, index: int) -> datetime:
    """When a drive starts: at an hour that matches its light."""
    rng = np.random.default_rng([config.seed, index, 2])
    first, last = _HOURS[Look.of_seed(_drive_seed(config, index)).light]
    second = int(rng.integers(first * 3600, last * 3600))
    return datetime(2025, 1, 1) + timedelta(days=(config.seed * 37) % 300 + index, seconds=second)


def _simulate(folder: Path, config: SimulationConfig, index: int) -> str:
    """Write one drive's folder; returns the numbers of its rows and frames."""
    seed = _drive_seed(config, index)
    rng = np.random.default_rng([config.seed, index, 4])
    traffic = simulate_traffic(config.duration_s + 1, DENSITY, seed)
    controls = drive(traffic.speed, traffic.acceleration, rng)
    steps = sample_steps(config.duration_s, rng)
    samples = record(_start(config, index), steps, controls, config.fault_rate, rng)
    with new_folder(folder, _made_from(config, index)) as temporary:
        (temporary / TELEMETRY).write_text(to_csv(samples), encoding="utf-8")
        frames = _write_frames(temporary, traffic, samples, seed)
    return f"{sum(sample.cells is not None for sample in samples)} rows, {frames} frames"


def _write_frames(folder: Path, traffic: Traffic, samples: list[Sample], seed: int) -> int:
    """Write the frames and their true boxes; returns the number of frames."""
    renderer = Renderer(RECORDER, traffic.road, seed)
    times, boxes = [], []
    samples = [sample for sample in samples if sample.frame is not None]
    for sample in samples:
        step = sample.step
        image, seen = renderer.frame(traffic.x[step], traffic.y[step], traffic.around[step], (seed, step))
        jpeg = cv2.imencode(".jpg", image, JPEG)[1].tobytes()
        (folder / frame_name(str(sample.frame))).write_bytes(jpeg[: len(jpeg) // 2] if sample.truncated else jpeg)
        if sample.cells is not None and sample.cells[0] == sample.frame and not sample.truncated:
            times.append(sample.frame)
            boxes.append(true_boxes(seen))
    annotations = Annotations.from_frames(times, [frame_name(time) for time in times], boxes)
    write_annotations(folder / TRUE_ANNOTATIONS, annotations)
    return len(samples)


def true_boxes(seen: list[Seen]) -> NDArray[np.float32]:
    """(M,6) x1, y1, x2, y2 in px of the default region of interest, confidence 1 and class 0, largest first.

    Without vehicles that are hidden, and boxes that are small.
    """
    x, y, width, height = DEFAULT_REGION
    whole = np.array([one.whole for one in seen if one.visible >= MIN_VISIBLE], np.float32).reshape(-1, 4)
    box = np.clip(whole - np.array((x, y, x, y)), 0, np.array((width, height, width, height)))
    size = box[:, 2:] - box[:, :2]
    box = box[(size >= MIN_BOX_PX).all(axis=1)]
    box = box[np.argsort(-np.prod(box[:, 2:] - box[:, :2], axis=1), kind="stable")]
    certain = np.broadcast_to(np.array((1.0, 0.0)), (len(box), 2))
    return np.concatenate([box, certain], axis=1).astype(np.float32)
