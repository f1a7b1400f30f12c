"""Images as arrays and as small JPEGs."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image file as (height, width, 3) BGR."""
    return np.asarray(cv2.imread(str(path)), np.uint8)


def small_jpeg(image: npt.NDArray[np.uint8], limit: int) -> bytes:
    """An image as JPEG of at most `limit` bytes, as good as that allows."""
    for quality in (85, 70, 55, 40, 25, 10):
        _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(content) <= limit:
            return content.tobytes()
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return small_jpeg(np.asarray(half, np.uint8), limit)
