"""A bundle: its description, checked files, and the two networks."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from .errors import BundleError

FORMAT = 1
DESCRIPTION, EXPECTED, GOLDEN = "bundle.json", "expected.json", "golden"
NETWORK, DETECTOR = "network.onnx", "detector.onnx"
NETWORK_INPUTS = ("telemetry", "detections", "mask")
DETECTOR_INPUT = "images"


@dataclass(frozen=True)
class Task:
    """A prediction, and when it raises an alarm."""

    name: str
    action: str
    """What the driver will do: brake, coast or slow."""
    horizon_s: int
    on: float | None
    """Calibrated probability at which an alarm begins; None if no threshold keeps the budget."""
    off: float
    """Probability below which it ends."""


@dataclass(frozen=True)
class Bundle:
    """The content of `bundle.json` that the runtime uses."""

    folder: Path
    identity: str
    """SHA-256 of `bundle.json`, which holds those of all other files."""
    schema: str
    """Fingerprint of channels and labels."""
    inputs: tuple[str, ...]
    """Telemetry channels, in the order of the network's columns."""
    telemetry: dict[str, Any]
    """How rows are read: channels, spellings, ranges."""
    coast_threshold: float
    """Accelerator position (%) below which the car coasts."""
    tasks: tuple[Task, ...]
    length: int
    """Frames of a window."""
    step_ms: int
    """From one frame of a window to the next."""
    fastest_ms: int
    """Rows that follow each other faster are thinned out."""
    max_gap_ms: int
    """A longer step between two frames begins a new window."""
    alarm_min_s: float
    merge_s: float
    """An alarm that resumes within this time is the same one."""
    detector: dict[str, Any]
    limits: dict[str, float]
    """Largest differences from torch on the golden drive."""
    slots: int
    """Detections of a frame that the network takes."""

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Raises BundleError if the folder holds no complete, undamaged bundle of this format."""
        path = folder / DESCRIPTION
        try:
            text = path.read_bytes()
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise BundleError(f"{path} has format {content['format']}, expected {FORMAT}: use its own runtime.")
            for name, digest in content["files"].items():
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                    raise BundleError(f"{folder / name} is not the file that {path} describes: copy the bundle again.")
            return cls(
                folder=folder,
                identity=hashlib.sha256(text).hexdigest(),
                inputs=tuple(content["inputs"]),
                tasks=tuple(Task(**task) for task in content["tasks"]),
                **{name: content[name] for name in cls.__annotations__ if name not in _READ_APART},
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise BundleError(f"{folder} holds no complete bundle ({error}): copy it again.") from error

    def session(self, name: str) -> onnxruntime.InferenceSession:
        """A network on one core."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(self.folder / name), options, providers=["CPUExecutionProvider"])

    def expected(self) -> dict[str, Any]:
        """What torch gives for the golden drive: times, boxes, probabilities and alarms."""
        content: dict[str, Any] = json.loads((self.folder / GOLDEN / EXPECTED).read_bytes())
        return content


_READ_APART = ("folder", "identity", "inputs", "tasks")


class Network:
    """The network: windows of raw telemetry and detections to calibrated probabilities."""

    def __init__(self, bundle: Bundle) -> None:
        self.session, self.slots = bundle.session(NETWORK), bundle.slots

    def __call__(
        self, telemetry: npt.NDArray[np.float32], boxes: list[npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """telemetry (T,C) in the channels' units, detections (n,7) of T frames -> probabilities (tasks,)."""
        detections = np.zeros((1, len(boxes), self.slots, 7), np.float32)
        mask = np.zeros(detections.shape[:3], bool)
        for place, found in enumerate(boxes):
            kept = found[: self.slots]
            detections[0, place, : len(kept)], mask[0, place, : len(kept)] = kept, True
        inputs = dict(zip(NETWORK_INPUTS, (telemetry[None], detections, mask), strict=True))
        return np.asarray(self.session.run(None, inputs)[0][0], np.float32)
