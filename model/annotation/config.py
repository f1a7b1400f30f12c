"""Options of annotating. Free of torch: the launchpad is made from them."""

import json
from dataclasses import dataclass
from pathlib import Path

from model.common.config import option
from model.common.errors import DataError

ROI_FILE = "roi.json"
BACKENDS = ("auto", "torch", "openvino")
PACE = ("batch", "decode_threads", "checkpoint_every")
"""Options that change how fast frames are annotated, and not what is found."""


@dataclass(frozen=True)
class AnnotationConfig:
    """How frames are annotated."""

    roi: tuple[int, int, int, int] = option((0, 320, 1920, 575), "Region of interest: x, y, width, height, px")
    image_size: int = option(704, "Longer side that the network sees, px; a multiple of 32")
    confidence: float = option(0.25, "Detections below this confidence are dropped")
    class_confidence: dict[str, float] = option({}, "Other thresholds for single classes, by class name")
    class_map: dict[str, str] = option({}, "Output class by detector's class; empty: own classes, or COCO's vehicles")
    iou: float = option(0.7, "Overlap above which the weaker of two boxes is dropped")
    agnostic_nms: bool = option(
        False, "Drop it also where the classes differ: COCO's give one vehicle as car and truck"
    )
    max_detections: int = option(300, "Most detections a frame")
    batch: int = option(0, "Frames the network takes at once; 0: 64 on a GPU, 4 on a CPU")
    decode_threads: int = option(0, "Threads that read and decode frames; 0: as many as cores")
    backend: str = option("auto", "auto (OpenVINO on a CPU where installed), torch or openvino")
    half: bool = option(True, "Half precision on CUDA")
    checkpoint_every: int = option(300, "Frames after which a killed run loses nothing")

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % 32:
            raise DataError(f"image_size {self.image_size}: expected a multiple of 32, such as 704.")
        if not 0 <= self.confidence <= 1 or not 0 < self.iou <= 1:
            raise DataError(f"confidence {self.confidence}, iou {self.iou}: expected from 0 to 1.")
        for name, least in (("max_detections", 1), ("checkpoint_every", 1), ("batch", 0), ("decode_threads", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name} {getattr(self, name)}: expected at least {least}.")
        if self.backend not in BACKENDS:
            raise DataError(f"backend {self.backend!r}: expected one of {', '.join(BACKENDS)}.")
        check_roi(tuple(self.roi), "roi")


def check_roi(roi: tuple[int, ...], name: str) -> None:
    """Raises DataError unless `roi` is x, y, width, height of a rectangle."""
    if len(roi) != 4 or min(roi) < 0 or min(roi[2:]) < 1:
        raise DataError(f"{name} {list(roi)}: expected x, y, width, height in px, the last two positive.")


def region_of_interest(recording: Path, config: AnnotationConfig) -> tuple[int, int, int, int]:
    """That of the recording's own roi.json ({"x", "y", "width", "height"}) if there is one, else the config's."""
    path = recording / ROI_FILE
    if not path.is_file():
        return config.roi
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        roi = (int(content["x"]), int(content["y"]), int(content["width"]), int(content["height"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: expected {{"x": .., "y": .., "width": .., "height": ..}} in px ({error}).') from error
    check_roi(roi, str(path))
    return roi
