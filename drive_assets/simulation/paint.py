"""Polygons with anti-aliased edges, and pictures as files."""

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.camera import Points
from drive_assets.simulation.look import Colour

Image = NDArray[np.uint8]
SUBPIXEL_BITS = 4
"""Fractional bits of OpenCV's fixed-point coordinates."""


def fixed(points: Points) -> NDArray[np.int32]:
    """OpenCV's fixed-point px, limited to the range that it can draw."""
    limited = np.minimum(np.maximum(points, -16000), 16000)
    return np.rint(limited * (1 << SUBPIXEL_BITS)).astype(np.int32)


def fill(image: Image, points: Points, colour: Colour) -> None:
    """Fill a polygon of (N,2) px."""
    if len(points) >= 3:
        cv2.fillPoly(image, [fixed(points)], colour.tolist(), cv2.LINE_AA, SUBPIXEL_BITS)


def encode(image: Image, suffix: str, option: int, value: int) -> bytes:
    """A picture as the bytes of a file of type `suffix`, with one of OpenCV's options."""
    done, content = cv2.imencode(suffix, image, [option, value])
    if not done:
        raise RuntimeError(f"OpenCV could not encode a {suffix} file")
    return content.tobytes()
