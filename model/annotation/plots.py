"""Figures of annotations: frames with their boxes, detections over time, confidences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from model.common.figures import COLOURS, new_figure
from model.recording.annotations import Annotations
from model.recording.folder import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def framed_boxes(
    recording: Recording, annotations: Annotations, indices: Sequence[int], width: int
) -> list[npt.NDArray[np.uint8]]:
    """The regions of interest of some annotated frames with their boxes, `width` px wide; blank where unreadable."""
    x, y, region_width, region_height = recording.annotated_region()
    scale, tiles = width / region_width, []
    size = (width, round(region_height * scale))
    for index in indices:
        image = cv2.imread(str(recording.folder / annotations.filename[index]))
        crop = None if image is None else image[y : y + region_height, x : x + region_width]
        if crop is None or not crop.size:
            tiles.append(np.full((size[1], size[0], 3), 255, np.uint8))
            continue
        tiles.append(np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8))
        _draw_boxes(tiles[-1], annotations.frame(index), scale)
    return tiles


def _draw_boxes(image: npt.NDArray[np.uint8], detections: npt.NDArray[np.float32], scale: float) -> None:
    """Draw detections (n,6) on a region of interest that was scaled by `scale`, in place."""
    for x1, y1, x2, y2, confidence, _ in detections:
        corners = [round(float(v) * scale) for v in (x1, y1, x2, y2)]
        cv2.rectangle(image, (corners[0], corners[1]), (corners[2], corners[3]), (0, 200, 255), 1, cv2.LINE_AA)
        place = (corners[0], max(corners[1] - 3, 8))
        cv2.putText(image, f"{confidence:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 200, 255), 1, cv2.LINE_AA)


def annotation_overview(annotations: Annotations, name: str) -> "Figure":
    """Vehicles per frame over the drive, and the histogram of confidences."""
    figure, (left, right) = new_figure(2, f"Detections of {name}")
    left.plot(annotations.count, color=COLOURS[0], linewidth=0.8)
    left.set(xlabel="frame", ylabel="vehicles", ylim=(0, None))
    right.hist(annotations.confidence, np.linspace(0, 1, 21).tolist(), color=COLOURS[0])
    right.set(xlabel="confidence", ylabel="detections", xlim=(0, 1))
    return figure
