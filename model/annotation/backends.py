"""The network on a device: OpenVINO or torch on a CPU, or nvJPEG, torch and NMS on a GPU.

A backend has two halves: `load` runs in many threads and prepares a file for `detect`, which runs in `lanes` threads,
each with a batch of its own, so that one lane decodes while the other's network runs.
"""

import os
import queue
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model.annotation.frames import PAD, Detections, Frame, Jpeg, View, check_jpeg, decode, read_jpeg, read_letterboxed
from model.common.errors import DataError, is_out_of_memory

CPU_BATCH, CUDA_BATCH = 4, 64
NMS_LIMIT = 20_000
"""Boxes that one NMS takes: its memory grows with their square."""
WARM_UPS = 3
NVJPEG_MEMORY = re.compile(r": 5\b")
"""nvJPEG's status ALLOCATOR_FAILURE in torchvision's error text (NVIDIA, nvJPEG documentation)."""


class Backend(Protocol):
    """Finds vehicles in frames."""

    name: str
    batch: int
    """Frames in a call of `detect`, unless the user chooses another number."""
    lanes: int

    def load(self, path: Path, view: View) -> Any:
        """A file as `detect` expects it. Raises UnreadableFrame or OtherSize."""

    def detect(self, loaded: Sequence[Any], view: View) -> list[Detections]:
        """Detections of each frame. Raises torch.OutOfMemoryError or MemoryError for a batch that is too large."""


@dataclass(frozen=True)
class Keep:
    """Which of a network's raw predictions are detections."""

    thresholds: torch.Tensor
    """(classes,) lowest confidence of each of the detector's classes; above 1 for unused ones"""
    outputs: npt.NDArray[np.int64]
    """(classes,) output id of each of the detector's classes"""
    iou: float
    limit: int
    """Most detections a frame"""
    agnostic: bool
    """Whether boxes of different classes suppress each other"""

    @classmethod
    def of(
        cls,
        classes: int,
        class_ids: Mapping[int, int],
        lowest: Sequence[float],
        iou: float,
        limit: int,
        device: str,
        agnostic: bool = False,
    ) -> "Keep":
        """From output ids by detector's class and the lowest confidence of each output."""
        thresholds, outputs = torch.full((classes,), 2.0), np.zeros(classes, np.int64)
        for number, output in class_ids.items():
            thresholds[number], outputs[number] = lowest[output], output
        return cls(thresholds.to(device), outputs, iou, limit, agnostic)


def suppress(raw: torch.Tensor, end_to_end: bool, keep: Keep, view: View) -> list[Detections]:
    """Non-maximum suppression over a whole batch at once, on its device, and boxes in px of the region of interest.

    The same boxes as ultralytics' `non_max_suppression`, which goes image by image and waits for the GPU at each.

    Args:
        raw: (B, 4 + classes, anchors) centre, size, class scores; of an end-to-end network (B, n, 6) corners,
            confidence, class.
    """
    from torchvision.ops import nms
    from ultralytics.utils.ops import scale_boxes, xywh2xyxy

    if end_to_end:
        confidence, number = raw[..., 4].float(), raw[..., 5].long()
        image, place = (confidence > keep.thresholds[number]).nonzero(as_tuple=True)
        box = raw[image, place, :4].float()
    else:
        confidence, number = raw[:, 4:].max(dim=1)
        confidence = confidence.float()
        image, place = (confidence > keep.thresholds[number]).nonzero(as_tuple=True)
        if len(image) > NMS_LIMIT and len(raw) > 1:
            half = len(raw) // 2
            return suppress(raw[:half], end_to_end, keep, view) + suppress(raw[half:], end_to_end, keep, view)
        box = xywh2xyxy(raw[image, :4, place].float())
    confidence, number = confidence[image, place], number[image, place]
    if end_to_end:
        order = confidence.argsort(descending=True)
    else:
        # Boxes of each image and class are shifted apart, so that one call does not mix them.
        group = image if keep.agnostic else image * len(keep.thresholds) + number
        order = nms(box.double() + (group * 4.0 * view.image_size)[:, None], confidence.double(), keep.iou)
    box = scale_boxes(view.letterboxed, box[order], (view.roi[3], view.roi[2]))
    rows = torch.column_stack([box, confidence[order], number[order].float(), image[order].float()]).cpu().numpy()
    images = rows[:, 6].astype(np.int64)
    rows[:, 5] = keep.outputs[rows[:, 5].astype(np.int64)]
    return [rows[images == index, :6][: keep.limit] for index in range(len(raw))]


class TorchBackend:
    """Letterboxed frames through torch on the CPU."""

    batch, lanes = CPU_BATCH, 1

    def __init__(self, network: Any, keep: Keep) -> None:
        self.network, self.keep = network, keep
        self.name = "torch on cpu, single precision"
        self.end_to_end = _is_end_to_end(network)

    def load(self, path: Path, view: View) -> Frame:
        return read_letterboxed(path, view)

    @torch.inference_mode()
    def detect(self, loaded: Sequence[Frame], view: View) -> list[Detections]:
        return suppress(self.forward(loaded), self.end_to_end, self.keep, view)

    def forward(self, images: Sequence[Frame]) -> torch.Tensor:
        """Raw predictions."""
        stacked = torch.from_numpy(np.stack(images)[..., ::-1].transpose(0, 3, 1, 2).copy())
        return _first(self.network(stacked.float() / 255))


class OpenVinoBackend(TorchBackend):
    """Letterboxed frames through OpenVINO: one stream of single images for each of its infer requests."""

    def __init__(self, network: Any, keep: Keep) -> None:
        super().__init__(network, keep)
        self.name = "openvino on cpu, single precision"
        self._compiled: dict[tuple[int, int], Any] = {}
        self._lock, self._local = threading.Lock(), threading.local()
        self.lanes = torch.get_num_threads()

    def forward(self, images: Sequence[Frame]) -> torch.Tensor:
        size = (images[0].shape[0], images[0].shape[1])
        with self._lock:
            if size not in self._compiled:
                self._compiled[size] = self._compile(size)
        requests: dict[tuple[int, int], Any] = self._local.__dict__.setdefault("requests", {})
        if size not in requests:
            requests[size] = self._compiled[size].create_infer_request()
        return torch.cat([torch.from_numpy(requests[size].infer([image[None]])[0].copy()) for image in images])

    def _compile(self, size: tuple[int, int]) -> Any:
        """Compiled for (1, height, width, 3) BGR bytes."""
        import openvino
        from openvino.preprocess import ColorFormat, PrePostProcessor

        head = self.network.model[-1]
        head.export, head.format = True, "openvino"
        example = torch.zeros(1, 3, *size)
        self.network(example)  # fills the head's cache of anchors, so that tracing sees the same graph each time
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about tracing
            converted = openvino.convert_model(self.network, example_input=example, input=[1, 3, *size])
        steps = PrePostProcessor(converted)
        source = steps.input().tensor()
        source.set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC")).set_color_format(ColorFormat.BGR)
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(openvino.Type.f32).convert_color(ColorFormat.RGB).scale(255.0)
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.lanes, "INFERENCE_PRECISION_HINT": "f32"}
        return openvino.compile_model(steps.build(), "CPU", options)


class CudaBackend:
    """JPEG bytes through nvJPEG, letterboxing, the captured network and NMS on a GPU.

    Two lanes with a CUDA stream each: while one decodes, the other's network runs. All of a lane's work is over when
    its detections are on the host, so that no buffer of nvJPEG, which has a stream of its own, is reused too early.
    """

    batch, lanes = CUDA_BATCH, 2

    def __init__(self, network: Any, keep: Keep, half: bool, device: str = "cuda") -> None:
        self.device, self.keep = device, keep
        self.type = torch.float16 if half else torch.float32
        self.network = network.to(device).to(self.type).to(memory_format=torch.channels_last)
        self.name = f"torch on {device}, {'half' if half else 'single'} precision"
        self.end_to_end = _is_end_to_end(network)
        self._lock = threading.Lock()
        self._streams: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """One for each lane, reused: torch caches memory for each stream, and has few of them."""
        if device != "cpu":
            torch.cuda.synchronize()  # the streams do not wait until the network is copied
            for _ in range(self.lanes):
                self._streams.put(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
        self._decoders = ThreadPoolExecutor(os.cpu_count())
        self._graphs: dict[tuple[int, ...], _Graph | None] = {}
        self._nvjpeg = True

    def load(self, path: Path, view: View) -> Jpeg:
        content = read_jpeg(path, view)
        check_jpeg(content)  # the cores are idle here, and nvJPEG does not report damage
        return content

    @torch.inference_mode()
    def detect(self, loaded: Sequence[Jpeg], view: View) -> list[Detections]:
        if self.device == "cpu":
            return self._detect(loaded, view)
        stream = self._streams.get()
        try:
            with torch.cuda.stream(stream):
                return self._detect(loaded, view)
        except torch.OutOfMemoryError:
            with self._lock:
                self._graphs.clear()
            torch.cuda.empty_cache()
            raise
        finally:
            self._streams.put(stream)

    def _detect(self, loaded: Sequence[Jpeg], view: View) -> list[Detections]:
        images = letterbox_batch(self._decode(loaded, view), view, self.type)
        with self._lock:  # the graph has one output buffer: the other lane waits until it is copied
            raw = self._forward(images)
            if self.device != "cpu":
                torch.cuda.current_stream().synchronize()
        return suppress(raw, self.end_to_end, self.keep, view)

    def _decode(self, loaded: Sequence[Jpeg], view: View) -> torch.Tensor:
        """(B,3,h,w) RGB bytes of the regions of interest, on the device."""
        x, y, width, height = view.roi
        if self._nvjpeg:
            try:
                images = decode_jpegs([torch.from_numpy(content) for content in loaded], self.device)
                return torch.stack([image[:, y : y + height, x : x + width] for image in images])
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ImportError, AttributeError) as error:
                if is_out_of_memory(error) or NVJPEG_MEMORY.search(str(error)):
                    raise torch.OutOfMemoryError(f"nvJPEG is out of memory: {error}") from error
                # nvJPEG is not available, or cannot read this kind of JPEG: libjpeg reads it.
                self._nvjpeg = len(loaded) == 1 or not isinstance(error, (ImportError, AttributeError))
        crops = np.stack(list(self._decoders.map(lambda content: decode(content, view).copy(), loaded)))
        return torch.from_numpy(crops).to(self.device).flip(-1).permute(0, 3, 1, 2)

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        """Raw predictions from a CUDA graph; smaller batches are padded to the usual size."""
        if self.device == "cpu":
            return _first(self.network(images))
        missing = self.batch - len(images)
        filled = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing)) if missing > 0 else images
        key = tuple(filled.shape)
        if key not in self._graphs:
            self._graphs[key] = _Graph.capture(self.network, filled)
        graph = self._graphs[key]
        raw = _first(self.network(filled)) if graph is None else graph(filled)
        return raw[: len(images)].clone()


class _Graph:
    """A network's kernels for one shape of input, launched at once."""

    def __init__(self, graph: Any, source: torch.Tensor, result: torch.Tensor, head: Any) -> None:
        self.graph, self.source, self.result = graph, source, result
        # The kernels read these; the head releases them when it receives another shape.
        self.held = (head.anchors, head.strides)

    @classmethod
    def capture(cls, network: Any, example: torch.Tensor) -> "_Graph | None":
        """None if the network cannot be captured and has to run kernel by kernel.

        Captures with `thread_local`, since the other lane may allocate meanwhile.
        """
        source = example.clone()
        for _ in range(WARM_UPS):
            network(source)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = _first(network(source))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None
        return cls(graph, source, result, network.model[-1])

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.source.copy_(images)
        self.graph.replay()
        return self.result


def decode_jpegs(contents: list[torch.Tensor], device: str) -> list[torch.Tensor]:
    """(3,h,w) RGB bytes of each JPEG, by nvJPEG if `device` is a GPU."""
    from torchvision.io import ImageReadMode, decode_jpeg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, about a move to torchcodec
        return decode_jpeg(contents, ImageReadMode.RGB, device)


def letterbox_batch(images: torch.Tensor, view: View, dtype: torch.dtype) -> torch.Tensor:
    """(B,3,H,W) network's input in 0..1 from (B,3,h,w) bytes: `frames.letterbox` on a device, within 1 grey level."""
    g = view.geometry
    scaled = functional.interpolate(images.float(), (g.height, g.width), mode="bilinear", align_corners=False)
    padded = functional.pad(scaled.round(), (g.left, g.right, g.top, g.bottom), value=PAD)
    return (padded / 255).to(dtype).contiguous(memory_format=torch.channels_last)


def choose_backend(name: str, network: Any, keep: Keep, half: bool, device: str) -> Backend:
    """The requested backend; for `auto` the fastest that is installed.

    Raises:
        DataError: OpenVINO is requested and not installed.
    """
    if device == "cuda":
        return CudaBackend(network, keep, half)
    if name == "torch":
        return TorchBackend(network, keep)
    try:
        import openvino  # noqa: F401
    except ImportError:
        if name == "openvino":
            raise DataError(
                "backend openvino is not installed: install the extra `cpu`, or use backend torch."
            ) from None
        return TorchBackend(network, keep)
    return OpenVinoBackend(network, keep)


def _first(raw: Any) -> torch.Tensor:
    result: torch.Tensor = raw[0] if isinstance(raw, (list, tuple)) else raw
    return result


def _is_end_to_end(network: Any) -> bool:
    return bool(getattr(network.model[-1], "end2end", False))
