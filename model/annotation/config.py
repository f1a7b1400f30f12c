"""Options of annotation. Imports no torch: the launchpad is built from them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from model.common.config import Config
from model.recording.folder import DEFAULT_REGION, check_region

PACE = ("batch", "decode_threads", "checkpoint_every")
"""Options that change the speed but not the annotations."""


class AnnotationConfig(Config):
    """How frames are annotated."""

    roi: list[int] = Field(
        list(DEFAULT_REGION),
        description="Region of interest: x, y, width, height, px. The default applies to frames 1,920 px wide; of "
        "frames of other sizes, all is seen",
    )
    image_size: int = Field(
        704, ge=32, multiple_of=32, description="Longer side that the network sees, px; a multiple of 32"
    )
    confidence: float = Field(0.25, ge=0, le=1, description="Detections below this confidence are dropped")
    class_confidence: dict[str, float] = Field({}, description="Other thresholds for single classes, by class name")
    class_map: dict[str, str] = Field(
        {}, description="Output class by detector's class; empty: vehicle and vehicle.*, or else COCO's vehicles"
    )
    iou: float = Field(0.7, gt=0, le=1, description="Overlap above which the weaker of two boxes is dropped")
    agnostic_nms: bool = Field(
        False, description="Also between classes: COCO detectors report one vehicle as car and as truck"
    )
    max_detections: int = Field(300, ge=1, description="Maximum number of detections per frame")
    batch: int = Field(0, ge=0, description="Frames per batch; 0: 64 on a GPU, 4 on a CPU, 4 a core with OpenVINO")
    decode_threads: int = Field(0, ge=0, description="Threads that read and decode frames; 0: as many as cores")
    backend: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="auto (OpenVINO on a CPU where installed), torch or openvino"
    )
    half: bool = Field(True, description="Half precision on CUDA")
    checkpoint_every: int = Field(300, ge=1, description="Frames after which the annotations are saved for a resume")

    @model_validator(mode="after")
    def _rectangle(self) -> Self:
        check_region(self.roi, "roi")
        return self
