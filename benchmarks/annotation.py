"""Times annotating 1920x1080 JPEG files against ultralytics' own `predict` on the same files, in one run.

    python benchmarks/annotation.py [--weights FILE] [--frames 300] [--source FOLDER]

`--source` names a folder of JPEGs to repeat as frames, re-encoded with sensor noise to about 320 KB each; without it
frames are drawn. Ratios are what counts: times depend on what else the machine does.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from model.annotation.config import AnnotationConfig
from model.annotation.pipeline import Annotator
from model.detection.detector import BUNDLED, configure_ultralytics, load_detector

HEADER = "Time,SPEED,RPM,ACCELERATOR_POS_D,ENGINE_LOAD,BRAKE_SIGNAL,GEAR,BRAKE_FORCE,PRE_BRAKING,WHILE_BRAKING"
ROI = (0, 320, 1920, 575)
SIZE, BATCH, REPEATS, DISTINCT = 704, 16, 3, 24


def make_recording(folder: Path, frames: int, source: Path | None) -> Path:
    """A recording of `frames` frames; 24 distinct pictures, each with noise as a camera's."""
    rng = np.random.default_rng(0)
    files = sorted(source.glob("*.jpg"))[:DISTINCT] if source else []
    pictures = []
    for number in range(DISTINCT):
        image = cv2.imread(str(files[number % len(files)])) if files else _draw(rng)
        noise = cv2.GaussianBlur(rng.normal(0, 1, image.shape[:2]).astype(np.float32), (0, 0), 0.7)
        noisy = np.clip(image + 3.4 * noise[..., None] / noise.std(), 0, 255).astype(np.uint8)
        pictures.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    recording = folder / "2024-05-01_10-00-00"
    recording.mkdir()
    lines = [HEADER]
    for row in range(frames):
        second = row // 2
        moment = f"2024-05-01 {10 + second // 3600:02}-{second // 60 % 60:02}-{second % 60:02}-{5 * (row % 2)}"
        lines.append(f"{moment},100,2000,30,40,False,5,0.0,[],[]")
        (recording / f"{moment}.jpg").write_bytes(pictures[row % DISTINCT])
    (recording / "telemetry.csv").write_text("\n".join(lines) + "\n")
    print(f"{frames} frames of {statistics.mean(map(len, pictures)) / 1000:.0f} KB", flush=True)
    return recording


def _draw(rng: np.random.Generator) -> Any:
    """Sky, a road, and some cars."""
    rows = np.linspace(0, 1, 1080, dtype=np.float32)[:, None, None]
    image = np.where(rows < 0.45, 200 - 60 * rows, 90 + 30 * rows) * np.ones((1, 1920, 3), np.float32)
    image += cv2.resize(
        rng.normal(0, 14, (108, 192, 3)).astype(np.float32), (1920, 1080), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(6):
        width, x, y = int(rng.integers(30, 220)), int(rng.integers(100, 1600)), int(rng.integers(490, 640))
        colour = tuple(int(value) for value in rng.integers(20, 230, 3))
        cv2.rectangle(image, (x, y), (x + width, y + int(width * 0.75)), colour, -1)
    return np.clip(image, 0, 255)


def crop(path: Path) -> Any:
    x, y, width, height = ROI
    return cv2.imread(str(path))[y : y + height, x : x + width]


def one_by_one(detector: Any, paths: list[Path]) -> None:
    for path in paths:
        detector.predict(crop(path), imgsz=SIZE, conf=0.25, iou=0.7, verbose=False)


def batched(detector: Any, paths: list[Path]) -> None:
    for start in range(0, len(paths), BATCH):
        images = [crop(path) for path in paths[start : start + BATCH]]
        detector.predict(images, imgsz=SIZE, conf=0.25, iou=0.7, verbose=False)


def ours(annotator: Annotator, recording: Path) -> None:
    annotator.annotate(recording)
    for name in ("annotations.csv", "annotations.json"):
        (recording / name).unlink()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, default=BUNDLED)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--source", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        configure_ultralytics(root / "cache" / "ultralytics")
        recording = make_recording(root, options.frames, options.source)
        paths = sorted(recording.glob("*.jpg"))
        predictor = load_detector(options.weights)
        ways: dict[str, Callable[[], None]] = {
            "predict, one by one": lambda: one_by_one(predictor, paths),
            f"predict, batches of {BATCH}": lambda: batched(predictor, paths),
        }
        gpu = torch.cuda.is_available()
        for backend in ("auto",) if gpu else ("torch", "openvino"):
            if backend == "openvino" and find_spec("openvino") is None:
                print("openvino is not installed: extra `cpu`")
                continue
            annotator = Annotator(options.weights, AnnotationConfig(backend=backend), root / "cache")
            ways[annotator.backend.name] = lambda annotator=annotator: ours(annotator, recording)
        for way in ways.values():
            way()  # files into the page cache, networks compiled
        seconds: dict[str, list[float]] = {what: [] for what in ways}
        cpu: dict[str, list[float]] = {what: [] for what in ways}
        for _ in range(REPEATS):  # in turns, so that what else the machine does falls on all alike
            for what, way in ways.items():
                started, worked = time.perf_counter(), time.process_time()
                way()
                seconds[what].append(time.perf_counter() - started)
                cpu[what].append(time.process_time() - worked)
        slowest = min(seconds["predict, one by one"])
        for what, times in seconds.items():
            best = min(times)
            work = 1000 * min(cpu[what]) / len(paths)
            print(f"{what}: {len(paths) / best:.1f} images/s, {slowest / best:.2f} times one by one; "
                  f"{work:.1f} ms of CPU an image", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
