"""Drawing of polygons with anti-aliased edges."""

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.camera import Points
from drive_assets.simulation.look import Colour

Image = NDArray[np.uint8]
# OpenCV's polygons take px in fixed point with this many bits after the point.
SUBPIXEL_BITS = 4


def fixed(points: Points) -> NDArray[np.int32]:
    """OpenCV's fixed-point px, kept within what its drawing can take."""
    scaled: NDArray[np.int32] = np.rint(np.minimum(np.maximum(points, -16000), 16000) * (1 << SUBPIXEL_BITS)).astype(
        np.int32
    )
    return scaled


def fill(image: Image, points: Points, colour: Colour) -> None:
    """Fill a polygon of (N,2) px."""
    if len(points) >= 3:
        cv2.fillPoly(image, [fixed(points)], colour.tolist(), cv2.LINE_AA, SUBPIXEL_BITS)
