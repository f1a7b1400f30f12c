"""Simulated drives as recording folders, with the true boxes beside the frames."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.camera import Camera
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.driver import drive
from drive_assets.simulation.look import Light, Look
from drive_assets.simulation.output import exists, new_folder, side_by_side
from drive_assets.simulation.paint import encode
from drive_assets.simulation.recorder import Record, record, sample_steps
from drive_assets.simulation.render import Renderer
from drive_assets.simulation.traffic import Traffic, simulate_traffic
from drive_assets.simulation.vehicles import Seen
from model.common.files import write_json
from model.common.progress import Log
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import DEFAULT_REGION, ROI, TELEMETRY, TRUE_ANNOTATIONS, Region
from model.recording.frame_files import frame_name

ROI_TOP = 320
"""Upper edge of the recorder's default region of interest; true boxes are in px of this crop."""
FRAME_SIZE = (1920, 1080)
_OPTIONS = ("duration_s", "seed", "fault_rate", "density_min", "density_max", "image_width", "image_height",
            "jpeg_quality", "min_box_px", "min_visible")  # fmt: skip
_HOURS: dict[Light, tuple[int, int]] = {"day": (9, 15), "dusk": (17, 18), "night": (19, 22)}


@dataclass(frozen=True)
class DriveReport:
    """Counts of one drive's rows, frames and faults, the bytes of its frames, and the seconds it took to draw them."""

    name: str
    rows: int
    frames: int
    image_bytes: int
    faults: dict[str, int]
    seconds: float


def simulate_drives(output: Path, config: SimulationConfig, tell: Log = print) -> list[Path]:
    """Write `config.recordings` drives as folders of `output`, named by their start, and return them in order.

    Each has telemetry.csv, one `<Time>.jpg` per row, and true_annotations.csv (px of the default region of interest).
    Folders that equal options made before are kept, so that an interrupted run resumes. If frames are not 1920x1080, a
    roi.json has the region in their pixels.

    Raises:
        DataError: a folder of that name holds something else, `output` cannot be written, SUMO is missing or fails.
    """
    start, count = monotonic(), config.recordings
    folders = [output / drive_name(config, index) for index in range(count)]
    missing = [index for index, folder in enumerate(folders) if not exists(folder, _made_from(config, index))]
    if len(missing) < count:
        tell(f"{count - len(missing)} of {count} drives already exist")
    frames = [0]

    def done(position: int, report: DriveReport) -> None:
        frames[0] += report.frames
        faults = ", ".join(f"{number} {kind}" for kind, number in report.faults.items()) or "no faults"
        tell(
            f"drive {missing[position] + 1}/{count} {report.name}: {report.rows} rows, {report.frames} frames "
            f"({report.frames / report.seconds:.0f} frames/s drawn, {frames[0] / (monotonic() - start):.0f} overall), "
            f"{report.image_bytes / max(report.frames, 1) / 1000:.0f} kB per frame, {faults}"
        )

    side_by_side(_simulate, [(folders[index], config, index) for index in missing], config.workers, done)
    return folders


def drive_name(config: SimulationConfig, index: int) -> str:
    """The recording name of drive `index`: its start, at an hour that matches its light."""
    return f"{_start(config, index):%Y-%m-%d_%H-%M-%S}"


def _drive_seed(config: SimulationConfig, index: int) -> int:
    return config.seed * 10_007 + index


def _made_from(config: SimulationConfig, index: int) -> dict[str, Any]:
    options = config.model_dump()
    return {"drive": index, **{name: options[name] for name in _OPTIONS}}


def _start(config: SimulationConfig, index: int) -> datetime:
    rng = np.random.default_rng([config.seed, index, 2])
    first, last = _HOURS[Look.of_seed(_drive_seed(config, index)).light]
    second = int(rng.integers(first * 3600, last * 3600))
    return datetime(2025, 1, 1) + timedelta(days=(config.seed * 37) % 300 + index, seconds=second)


def _simulate(folder: Path, config: SimulationConfig, index: int) -> DriveReport:
    """Write one drive's folder."""
    seed = _drive_seed(config, index)
    rng = np.random.default_rng([config.seed, index, 4])
    traffic = simulate_traffic(config.duration_s + 1, (config.density_min, config.density_max), seed)
    controls = drive(traffic.speed, traffic.acceleration, rng)
    steps = sample_steps(config.duration_s, rng)
    recorded = record(_start(config, index), steps, controls, config.fault_rate, rng)
    with new_folder(folder, _made_from(config, index)) as temporary:
        (temporary / TELEMETRY).write_text(recorded.csv, encoding="utf-8")
        start = monotonic()
        annotations, frames, image_bytes = _draw(temporary, traffic, recorded, config, seed)
        write_annotations(temporary / TRUE_ANNOTATIONS, annotations)
        if (config.image_width, config.image_height) != FRAME_SIZE:
            write_json(temporary / ROI, dict(zip(Region._fields, region(config), strict=True)))
    rows = sum(sample.cells is not None for sample in recorded.samples)
    return DriveReport(folder.name, rows, frames, image_bytes, recorded.faults, max(monotonic() - start, 1e-3))


def _draw(
    folder: Path, traffic: Traffic, recorded: Record, config: SimulationConfig, seed: int
) -> tuple[Annotations, int, int]:
    """Write the frames; returns their true boxes, their number and their bytes."""
    renderer = Renderer(Camera.recorder(config.image_width, config.image_height), traffic.road, seed)
    crop = region(config)
    times, boxes, image_bytes = [], [], 0
    samples = [sample for sample in recorded.samples if sample.frame is not None]
    for sample in samples:
        step = sample.step
        image, seen = renderer.frame(traffic.x[step], traffic.y[step], traffic.around[step], (seed, step))
        jpeg = encode(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality)
        data = jpeg[: len(jpeg) // 2] if sample.truncated else jpeg
        (folder / frame_name(str(sample.frame))).write_bytes(data)
        image_bytes += len(data)
        if sample.cells is not None and sample.cells[0] == sample.frame and not sample.truncated:
            times.append(sample.frame)
            boxes.append(true_boxes(seen, crop, config))
    return Annotations.from_frames(times, [frame_name(time) for time in times], boxes), len(samples), image_bytes


def region(config: SimulationConfig) -> tuple[int, int, int, int]:
    """The default region of interest (x, y, width, height) in px of the config's frames."""
    scale = np.array((config.image_width, config.image_height, config.image_width, config.image_height)) / (
        FRAME_SIZE * 2
    )
    default = np.array((0, ROI_TOP, DEFAULT_REGION.width, DEFAULT_REGION.height))
    x, y, width, height = np.rint(default * scale).astype(int).tolist()
    return x, y, width, height


def true_boxes(seen: list[Seen], crop: tuple[int, int, int, int], config: SimulationConfig) -> NDArray[np.float32]:
    """(M,6) x1, y1, x2, y2 in px of the crop, confidence 1 and class 0, largest first.

    Without vehicles of which less than `min_visible` is visible, and without boxes smaller than `min_box_px`.
    """
    left, top, width, height = crop
    smallest = config.min_box_px * config.image_width / FRAME_SIZE[0]
    whole = np.array([one.whole for one in seen if one.visible >= config.min_visible], np.float32).reshape(-1, 4)
    box = np.clip(whole - np.array((left, top, left, top)), 0, np.array((width, height, width, height)))
    size = box[:, 2:] - box[:, :2]
    box = box[(size >= smallest).all(axis=1)]
    box = box[np.argsort(-np.prod(box[:, 2:] - box[:, :2], axis=1), kind="stable")]
    certain = np.broadcast_to(np.array((1.0, 0.0)), (len(box), 2))
    return np.concatenate([box, certain], axis=1).astype(np.float32)
