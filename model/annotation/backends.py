"""The network on a device: torch on a CPU or a GPU, or OpenVINO on a CPU."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model.annotation.frames import Detections, Frame
from model.common.errors import DataError
from model.recording.folder import Region

CPU_BATCH, CUDA_BATCH = 4, 64
WARM_UPS = 3


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
    agnostic: bool = False
    """Whether boxes of different classes suppress each other"""


def suppress(
    raw: torch.Tensor, end_to_end: bool, keep: Keep, shape: tuple[int, int], region: Region
) -> list[Detections]:
    """Non-maximum suppression over a whole batch at once, on its device, and boxes in px of the region of interest.

    The same boxes as ultralytics' `non_max_suppression`, which goes image by image and waits for the GPU at each.

    Args:
        raw: (B, 4 + classes, anchors) centre, size, class scores; of an end-to-end network (B, n, 6) corners,
            confidence, class.
        shape: height and width of the network's input, px.
    """
    from torchvision.ops import batched_nms
    from ultralytics.utils.ops import scale_boxes, xywh2xyxy

    if end_to_end:
        box, confidence, number = raw[..., :4], raw[..., 4], raw[..., 5].long()
    else:
        box, (confidence, number) = raw[:, :4].transpose(1, 2), raw[:, 4:].max(dim=1)
    confidence = confidence.float()
    image, place = (confidence > keep.thresholds.to(raw.device)[number]).nonzero(as_tuple=True)
    box, confidence, number = box[image, place].float(), confidence[image, place], number[image, place]
    if end_to_end:
        order = confidence.argsort(descending=True)
    else:
        box = xywh2xyxy(box)
        group = image if keep.agnostic else image * len(keep.thresholds) + number
        positive = box.double() + 4 * max(shape)  # negative corners would reach into the next group
        order = batched_nms(positive, confidence.double(), group, keep.iou)
    box = scale_boxes(shape, box[order], (region.height, region.width))
    rows = torch.column_stack([box, confidence[order], number[order].float(), image[order].float()]).cpu().numpy()
    images = rows[:, 6].astype(np.int64)
    rows[:, 5] = keep.outputs[rows[:, 5].astype(np.int64)]
    return [rows[images == index, :6][: keep.limit] for index in range(len(raw))]


class TorchBackend:
    """The network in torch; on a GPU as CUDA graphs, for batches of one size each."""

    def __init__(self, network: Any, keep: Keep, device: str = "cpu", half: bool = False) -> None:
        self.keep, self.device = keep, device
        self.batch = CUDA_BATCH if device == "cuda" else CPU_BATCH
        """Frames in a call of `detect`, unless the user chooses another number."""
        self.type = torch.float16 if half else torch.float32
        self.layout = torch.channels_last if device == "cuda" else torch.contiguous_format
        self.network = network.to(device).to(self.type).to(memory_format=self.layout)
        self.name = f"torch on {device}, {'half' if half else 'single'} precision"
        self.end_to_end = bool(getattr(network.model[-1], "end2end", False))
        self._graphs: dict[torch.Size, _Graph | None] = {}

    @torch.inference_mode()
    def detect(self, images: Sequence[Frame], region: Region) -> list[Detections]:
        """Detections of each letterboxed frame.

        Raises:
            torch.OutOfMemoryError, MemoryError: the batch is too large.
        """
        height, width, _ = images[0].shape
        try:
            return suppress(self.forward(images), self.end_to_end, self.keep, (height, width), region)
        except torch.OutOfMemoryError:
            self._graphs.clear()
            torch.cuda.empty_cache()
            raise

    def forward(self, images: Sequence[Frame]) -> torch.Tensor:
        """Raw predictions."""
        pixels = torch.from_numpy(np.stack(images)).to(self.device).flip(-1).permute(0, 3, 1, 2)
        batch = (pixels / 255).to(self.type).contiguous(memory_format=self.layout)
        return self._replayed(batch) if self.device == "cuda" else _first(self.network(batch))

    def _replayed(self, batch: torch.Tensor) -> torch.Tensor:
        """Raw predictions from a CUDA graph; smaller batches are padded to the usual size."""
        missing = max(self.batch - len(batch), 0)
        filled = functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, missing))
        if filled.shape not in self._graphs:
            self._graphs[filled.shape] = _Graph.capture(self.network, filled)
        graph = self._graphs[filled.shape]
        raw = _first(self.network(filled)) if graph is None else graph(filled)
        return raw[: len(batch)]


class OpenVinoBackend(TorchBackend):
    """The network in OpenVINO: single images on as many streams as torch has threads."""

    def __init__(self, network: Any, keep: Keep) -> None:
        super().__init__(network, keep)
        self.name = "openvino on cpu, single precision"
        self.streams = torch.get_num_threads()
        self.batch = CPU_BATCH * self.streams
        self._queues: dict[tuple[int, ...], Any] = {}

    def forward(self, images: Sequence[Frame]) -> torch.Tensor:
        shape = images[0].shape
        queue = self._queues.pop(shape) if shape in self._queues else self._compile(shape)
        raw = [torch.empty(0)] * len(images)

        def store(request: Any, index: int) -> None:
            raw[index] = torch.from_numpy(request.get_output_tensor().data.copy())

        queue.set_callback(store)
        for index, image in enumerate(images):
            queue.start_async([image[None]], index)
        queue.wait_all()
        self._queues[shape] = queue  # after a failure, requests may still run and the queue cannot be used again
        return torch.cat(raw)

    def _compile(self, shape: tuple[int, ...]) -> Any:
        """A queue of requests for (1, height, width, 3) BGR bytes."""
        import openvino
        from openvino.preprocess import ColorFormat, PrePostProcessor

        size, head = shape[:2], self.network.model[-1]
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
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.streams, "INFERENCE_PRECISION_HINT": "f32"}
        return openvino.AsyncInferQueue(openvino.compile_model(steps.build(), "CPU", options), self.streams)


@dataclass(frozen=True)
class _Graph:
    """A network's kernels for one shape of input, launched at once."""

    graph: Any
    source: torch.Tensor
    result: torch.Tensor
    head: tuple[Any, ...]
    """Anchors and strides, which the kernels read; the network's head releases them when it receives another shape."""

    @classmethod
    def capture(cls, network: Any, example: torch.Tensor) -> "_Graph | None":
        """None if the network cannot be captured and has to run kernel by kernel."""
        source = example.clone()
        for _ in range(WARM_UPS):
            network(source)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                result = _first(network(source))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None
        return cls(graph, source, result, (network.model[-1].anchors, network.model[-1].strides))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.source.copy_(images)
        self.graph.replay()
        return self.result


def choose_backend(name: str, network: Any, keep: Keep, half: bool, device: str) -> TorchBackend:
    """The requested backend; for `auto` the fastest that is installed.

    Raises:
        DataError: OpenVINO is requested and cannot be imported.
    """
    if device == "cuda" or name == "torch":
        return TorchBackend(network, keep, device, half and device == "cuda")
    try:
        import_module("openvino")
    except (ImportError, OSError) as error:
        if name == "openvino":
            raise DataError(
                f"backend openvino cannot be imported ({error}): install the extra `cpu`, or use backend torch."
            ) from error
        return TorchBackend(network, keep, device)
    return OpenVinoBackend(network, keep)


def _first(raw: Any) -> torch.Tensor:
    result: torch.Tensor = raw[0] if isinstance(raw, (list, tuple)) else raw
    return result
