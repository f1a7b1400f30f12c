"""Images as arrays and as small JPEGs."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image file as (height, width, 3) BGR."""
    return np.asarray(cv2.imread(str(path)), np.uint8)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, evenly spaced from the first to the last."""
    return sorted({int(index) for index in np.linspace(0, count - 1, most)}) if count else []


def contact_sheet(tiles: Sequence[npt.NDArray[np.uint8]], columns: int, limit: int) -> bytes:
    """Images of equal size (height, width, 3) side by side, as JPEG of at most `limit` bytes; gaps are white."""
    blank = np.full_like(tiles[0], 255) if tiles else np.full((240, 320, 3), 255, np.uint8)
    filled = [*tiles, *[blank] * (-len(tiles) % columns or (0 if tiles else columns))]
    rows = [np.hstack(filled[start : start + columns]) for start in range(0, len(filled), columns)]
    return small_jpeg(np.vstack(rows), limit)


def small_jpeg(image: npt.NDArray[np.uint8], limit: int) -> bytes:
    """An image as JPEG of at most `limit` bytes, as good as that allows."""
    for quality in (85, 70, 55, 40, 25, 10):
        _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(content) <= limit:
            return content.tobytes()
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return small_jpeg(np.asarray(half, np.uint8), limit)
