"""Recording + detector -> annotations.csv: threads decode, crop and letterbox while the network runs over batches."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from model.annotation_config import ROI_FILE, AnnotationConfig, region_of_interest
from model.annotations import DETAILS, Annotations, read_annotations, write_annotations
from model.config import fingerprint, to_dict
from model.detector import configure_ultralytics, load_detector, vehicle_classes
from model.errors import DataError
from model.files import sha256, write_json
from model.recording import TELEMETRY, is_whole_jpeg
from model.telemetry import read_telemetry

Frame = npt.NDArray[np.uint8]
Detections = npt.NDArray[np.float32]
"""(n,6) x1, y1, x2, y2 in px of the region of interest, confidence, class id."""
STRIDE = 32
PAD = 114
PROGRESS_S = 5.0
CONFIDENCE_BINS = 20
_OPENVINO_OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


@dataclass(frozen=True)
class AnnotationReport:
    """What annotating a recording found."""

    recording: str
    frames: int
    resumed: int
    """Of the frames, those that an earlier run had done."""
    without_row: int
    missing: int
    """Telemetry rows without a frame."""
    unreadable: int
    detections: int
    vehicles_per_frame: float
    frames_without_vehicle: int
    confidence_histogram: list[int]
    """Detections by confidence, 20 bins of 0.05."""
    roi: list[int]
    class_names: list[str]
    backend: str
    frames_per_s: float


class Annotator:
    """A detector, loaded once, for any number of recordings."""

    def __init__(self, weights: Path, config: AnnotationConfig, cache: Path) -> None:
        """Raises DataError if `weights` are no detector or have none of the classes asked for."""
        configure_ultralytics(cache / "ultralytics")
        self.config, self.cache = config, cache
        detector = load_detector(weights)
        self.class_ids, self.class_names = vehicle_classes(detector.names, config.class_map)
        self.lowest = np.full(len(self.class_names), config.confidence, np.float32)
        for name, threshold in config.class_confidence.items():
            if name not in self.class_names:
                raise DataError(f"class_confidence names {name!r}: expected some of {', '.join(self.class_names)}.")
            self.lowest[self.class_names.index(name)] = threshold
        self.digest = sha256(weights)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = detector.model.eval().to(self.device)
        self.network.fuse(verbose=False)
        self.half = config.half and self.device == "cuda"
        if self.half:
            self.network.half()
        self.backend = _choose_backend(config.backend, self.device)
        self._compiled: dict[tuple[int, int], Any] = {}

    def annotate(
        self, recording: Path, output: Path, progress: Callable[[str], None] = lambda line: None
    ) -> AnnotationReport:
        """Annotate the frames of `recording` that have a telemetry row; write `output` and, beside it, its details.

        Frames that a killed run, or an earlier run with equal weights and options, has done are kept.

        Raises:
            DataError: wrong telemetry, no readable frame, or a region of interest outside the frame.
        """
        started = time.perf_counter()
        telemetry, _ = read_telemetry(recording / TELEMETRY)
        roi = region_of_interest(recording, self.config)
        identity = fingerprint(self.digest, to_dict(self.config), roi)
        wanted = [f"{name}.jpg" for name in telemetry["Time"]]
        present = {path.name for path in recording.iterdir() if path.suffix.lower() == ".jpg"}
        names = [name for name in wanted if name in present]
        with _Progress(output, identity) as done:
            resumed = sum(name in done.frames for name in names)
            todo = [recording / name for name in names if name not in done.frames]
            unreadable = self._run(todo, roi, done, f"{recording.name}:", progress)
            found = [name for name in names if name in done.frames]
            if not found:
                raise DataError(f"{recording} has no frame that can be read: {len(names)} were tried; copy it again.")
            times = [name.removesuffix(".jpg") for name in found]
            annotations = Annotations.from_frames(times, found, [done.frames[name] for name in found])
            write_annotations(output, annotations)
            seconds = max(time.perf_counter() - started, 1e-9)
            confidences = annotations.confidence
            report = AnnotationReport(
                recording=recording.name,
                frames=len(found),
                resumed=resumed,
                without_row=len(present - set(wanted)),
                missing=len(set(wanted) - present),
                unreadable=unreadable,
                detections=len(confidences),
                vehicles_per_frame=len(confidences) / len(found),
                frames_without_vehicle=int((annotations.count == 0).sum()),
                confidence_histogram=np.histogram(confidences, CONFIDENCE_BINS, (0, 1))[0].tolist(),
                roi=list(roi),
                class_names=self.class_names,
                backend=f"{self.backend} on {self.device}, {'half' if self.half else 'single'} precision",
                frames_per_s=(len(found) - resumed) / seconds,
            )
            write_json(output.with_name(DETAILS), {**asdict(report), "fingerprint": identity})
            done.finished()
        return report

    def _run(
        self,
        frames: list[Path],
        roi: tuple[int, int, int, int],
        done: "_Progress",
        label: str,
        progress: Callable[[str], None],
    ) -> int:
        """Annotate `frames` into `done`; return how many could not be read."""
        threads = self.config.decode_threads or max(2, os.cpu_count() or 2)
        unreadable, told, batch = 0, time.perf_counter(), list[tuple[str, Frame]]()
        with ThreadPoolExecutor(threads) as pool:
            ready = _bounded(
                pool, lambda path: _decode(path, roi, self.config.image_size), frames, 2 * self.config.batch
            )
            for number, (path, image) in enumerate(ready, 1):
                if image is None:
                    unreadable += 1
                    progress(f"{label} {path.name} cannot be read and is skipped")
                else:
                    batch.append((path.name, image))
                if len(batch) == self.config.batch or (batch and number == len(frames)):
                    found = self._detect([image for _, image in batch], (roi[3], roi[2]))
                    done.add(zip([name for name, _ in batch], found, strict=True), self.config.checkpoint_every)
                    batch = []
                if time.perf_counter() - told > PROGRESS_S:
                    told = time.perf_counter()
                    progress(f"{label} {number} of {len(frames)} frames")
        return unreadable

    @torch.inference_mode()
    def _detect(self, images: list[Frame], crop: tuple[int, int]) -> list[Detections]:
        """Detections of letterboxed images (h,w,3) BGR, in px of the crop (height, width)."""
        from ultralytics.utils.nms import non_max_suppression
        from ultralytics.utils.ops import scale_boxes

        stacked = torch.from_numpy(np.stack(images)[..., ::-1].transpose(0, 3, 1, 2).copy()).to(self.device)
        scaled = (stacked.half() if self.half else stacked.float()) / 255
        raw = self._forward(scaled)
        kept = non_max_suppression(
            raw,
            float(self.lowest.min()),
            self.config.iou,
            classes=list(self.class_ids),
            max_det=self.config.max_detections,
        )
        results = []
        for found in kept:
            found[:, :4] = scale_boxes(tuple(scaled.shape[2:]), found[:, :4], crop)
            values = found.float().cpu().numpy()
            values[:, 5] = [self.class_ids[int(number)] for number in values[:, 5]]
            results.append(values[values[:, 4] >= self.lowest[values[:, 5].astype(int)]])
        return results

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        """Raw predictions (B,4+classes,anchors)."""
        if self.backend == "openvino":
            compiled = self._openvino((int(images.shape[2]), int(images.shape[3])))
            return torch.from_numpy(compiled(images.numpy())[0])
        raw = self.network(images)
        return raw[0] if isinstance(raw, (list, tuple)) else raw

    def _openvino(self, size: tuple[int, int]) -> Any:
        if size not in self._compiled:
            import openvino

            head = self.network.model[-1]
            head.export, head.format = True, "openvino"
            example = torch.zeros(1, 3, *size)
            self.network(example)  # fills the head's cache of anchors, so that tracing sees the same graph each time
            converted = openvino.convert_model(self.network, example_input=example, input=[-1, 3, *size])
            self._compiled[size] = openvino.compile_model(converted, "CPU", _OPENVINO_OPTIONS)
        return self._compiled[size]


class _Progress:
    """Frames annotated so far, in memory and in a file beside the output that outlives a killed run."""

    def __init__(self, output: Path, identity: str) -> None:
        self.path = output.with_name(f".{output.stem}.{identity}.partial")
        self.frames: dict[str, Detections] = {}
        self._unwritten: list[str] = []
        details = output.with_name(DETAILS)
        if output.is_file() and details.is_file() and _fingerprint_of(details) == identity:
            earlier = read_annotations(output)
            self.frames = {name: earlier.frame(index) for index, name in enumerate(earlier.filename)}
        if self.path.is_file():
            self._recover()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, frames: Iterable[tuple[str, Detections]], every: int) -> None:
        for name, found in frames:
            self.frames[name] = found
            self._unwritten.append(json.dumps([name, found.tolist()]) + "\n")
        if len(self._unwritten) >= every:
            self._write()

    def finished(self) -> None:
        self._unwritten = []
        for left in self.path.parent.glob(f"{self.path.name.split('.')[0]}.{self.path.name.split('.')[1]}.*.partial"):
            left.unlink()

    def _write(self) -> None:
        if self._unwritten:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.writelines(self._unwritten)
                stream.flush()
                os.fsync(stream.fileno())
            self._unwritten = []

    def _recover(self) -> None:
        """Read what a killed run left; its last line may be cut."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        for line in whole:
            name, found = json.loads(line)
            self.frames[name] = np.array(found, np.float32).reshape(-1, 6)
        if len(whole) < len(lines):
            self.path.write_text("".join(whole), encoding="utf-8")


def _fingerprint_of(details: Path) -> str | None:
    try:
        return json.loads(details.read_text(encoding="utf-8")).get("fingerprint")
    except ValueError:
        return None


def _bounded(
    pool: ThreadPoolExecutor,
    work: Callable[[Path], Frame | None],
    items: Iterable[Path],
    ahead: int,
) -> Iterator[tuple[Path, Frame | None]]:
    """Each item with its result, in order, with at most `ahead` under way or waiting."""
    waiting: deque[tuple[Path, Future[Frame | None]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) >= ahead:
            path, future = waiting.popleft()
            yield path, future.result()
    for path, future in waiting:
        yield path, future.result()


def _decode(path: Path, roi: tuple[int, int, int, int], image_size: int) -> Frame | None:
    """The region of interest of a frame, letterboxed; None if the file is cut or no JPEG."""
    if not is_whole_jpeg(path):
        return None
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return None
    x, y, width, height = roi
    if x + width > image.shape[1] or y + height > image.shape[0]:
        raise DataError(
            f"{path} is {image.shape[1]}x{image.shape[0]} px: the region of interest {roi} (x, y, width, height) does "
            f"not fit. Set roi in the launchpad, or put a {ROI_FILE} beside the recording."
        )
    return letterbox(np.asarray(image[y : y + height, x : x + width], np.uint8), image_size)


def letterbox(image: Frame, size: int) -> Frame:
    """Scale an image so that its longer side is `size`, and pad the shorter to a multiple of the stride with grey.

    The same pixels as ultralytics' LetterBox with `auto=True`, which its `predict` uses for images of one shape.
    """
    height, width = image.shape[:2]
    ratio = min(size / height, size / width)
    new_width, new_height = round(width * ratio), round(height * ratio)
    pad_x, pad_y = ((size - new_width) % STRIDE) / 2, ((size - new_height) % STRIDE) / 2
    if (new_width, new_height) != (width, height):
        image = np.asarray(cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR), np.uint8)
    top, bottom, left, right = (round(v) for v in (pad_y - 0.1, pad_y + 0.1, pad_x - 0.1, pad_x + 0.1))
    padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(PAD, PAD, PAD))
    return np.asarray(padded, np.uint8)


def _choose_backend(name: str, device: str) -> str:
    if name == "torch" or device == "cuda":
        return "torch"
    try:
        import openvino  # noqa: F401
    except ImportError:
        if name == "openvino":
            raise DataError(
                "backend openvino is not installed: install the extra `cpu`, or use backend torch."
            ) from None
        return "torch"
    return "openvino"
