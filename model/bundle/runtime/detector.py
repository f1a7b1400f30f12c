"""The detector: a picture to vehicles in px of the region of interest."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from .bundle import DETECTOR, DETECTOR_INPUT, Bundle
from .errors import BundleError, FrameError

PADDING = 114
"""Grey around the picture, as in the detector's training."""
SHARES = 11
"""Bits of the shares in OpenCV's bilinear interpolation."""
Boxes = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Detector:
    """Crops, scales and pads pictures as annotation does, and keeps the detections that it would."""

    def __init__(self, bundle: Bundle, region: tuple[int, int, int, int] | None = None) -> None:
        """Args:
        region: x, y, width and height of the region of interest, if another camera mounting moves it.

        Raises:
            BundleError: it has another size than the bundle's, or leaves the frame.
        """
        options = bundle.detector
        self.session = bundle.session(DETECTOR)
        self.frame: tuple[int, int] = tuple(options["frame"])
        x, y, width, height = self.region = region or tuple(options["region"])
        expected = tuple(options["region"][2:])
        if (width, height) != expected or min(x, y) < 0 or x + width > self.frame[0] or y + height > self.frame[1]:
            raise BundleError(
                f"The region of interest {self.region} (x, y, width, height): expected one of {expected[0]}x"
                f"{expected[1]} px within {self.frame[0]}x{self.frame[1]}; make a bundle for this camera."
            )
        self.shape: tuple[int, int] = tuple(options["shape"])
        self.thresholds = np.array(options["thresholds"], np.float32)
        self.outputs = np.array(options["outputs"], np.float32)
        self.iou, self.limit = options["iou"], options["limit"]
        self.agnostic, self.end_to_end = options["agnostic"], options["end_to_end"]

    def __call__(self, content: bytes) -> Boxes:
        """(n,7) class id, confidence, x1, y1, x2, y2 in px of the region, and area; the most confident first.

        Raises:
            FrameError: the file is no whole picture, or has another size than the bundle's camera.
        """
        x, y, width, height = self.region
        pixels = self._picture(content)[y : y + height, x : x + width]
        scale = min(self.shape[0] / height, self.shape[1] / width)
        inner = max(round(width * scale), 1), max(round(height * scale), 1)
        left, top = (round((self.shape[1] - inner[0]) / 2 - 0.1), round((self.shape[0] - inner[1]) / 2 - 0.1))
        filled = np.full((*self.shape, 3), PADDING, np.uint8)
        filled[top : top + inner[1], left : left + inner[0]] = resized(pixels, inner)
        image = np.ascontiguousarray(filled.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        boxes, confidence, number = self._kept(self.session.run(None, {DETECTOR_INPUT: image})[0][0])
        boxes -= np.array([left, top] * 2, np.float32)
        boxes /= np.array([inner[0] / width, inner[1] / height] * 2, np.float32)
        # rounded as annotations are
        corners = boxes.clip(0, np.array([width, height] * 2, np.float32)).astype(float).round(2)
        area = ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])).round(2)
        columns = (self.outputs[number], confidence.astype(float).round(4), corners, area)
        return np.column_stack(columns).astype(np.float32)

    def _picture(self, content: bytes) -> npt.NDArray[np.uint8]:
        try:
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
                upright = ImageOps.exif_transpose(image)
                if upright.size != self.frame:
                    raise FrameError(f"a frame of {upright.width}x{upright.height} px")
                return np.asarray(upright.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise FrameError("an unreadable frame") from error

    def _kept(self, raw: npt.NDArray[np.float32]) -> tuple[Boxes, npt.NDArray[np.float32], Indices]:
        """Corners in px of the network's input, confidences and class numbers that are kept, by confidence."""
        if self.end_to_end:
            boxes, confidence, number = raw[:, :4], raw[:, 4], raw[:, 5].astype(np.int64)
        else:
            centre, half = raw[:2].T, raw[2:4].T / 2
            boxes = np.concatenate((centre - half, centre + half), axis=1)
            number, confidence = raw[4:].argmax(0), raw[4:].max(0)
        likely = np.flatnonzero(confidence > self.thresholds[number])
        order = likely[np.argsort(-confidence[likely], kind="stable")]
        boxes, confidence, number = boxes[order], confidence[order], number[order]
        kept = np.arange(len(order))
        if not self.end_to_end:
            kept = suppressed(boxes, np.zeros_like(number) if self.agnostic else number, self.iou)
        kept = kept[: self.limit]
        return boxes[kept], confidence[kept], number[kept]


def suppressed(boxes: Boxes, group: Indices, iou: float) -> Indices:
    """Which of boxes (n,4), the most confident first, repeat no earlier one of their group (n,)."""
    corners = boxes.astype(np.float64)
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    left, kept = np.arange(len(boxes)), []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        low = np.maximum(corners[first, :2], corners[left, :2])
        high = np.minimum(corners[first, 2:], corners[left, 2:])
        common = (high - low).clip(0).prod(1)
        repeats = common > iou * (area[first] + area[left] - common)
        left = left[~(repeats & (group[left] == group[first]))]
    return np.array(kept, np.int64)


def resized(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Pixels (H,W,3) scaled to a width and height, bit for bit as OpenCV's INTER_LINEAR: bilinear, without smoothing
    before, with shares of 11 bits and sums of 16."""
    height, width = pixels.shape[:2]
    if size == (width, height):
        return pixels
    rows, below, *shares_y = _places(height, size[1])
    columns, right, *shares_x = _places(width, size[0])
    before, after = (share[:, None] for share in shares_x)

    def lines(picked: Indices) -> npt.NDArray[np.int32]:
        whole = pixels[picked]
        return (whole.take(columns, 1) * before + whole.take(right, 1) * after) >> 4

    upper, lower = (share[:, None, None] for share in shares_y)
    mixed = (upper * lines(rows) >> 16) + (lower * lines(below) >> 16)
    return ((mixed + 2) >> 2).astype(np.uint8)


def _places(old: int, new: int) -> tuple[Indices, Indices, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """For each new pixel the old one before it, the one after it, and the shares of both."""
    place = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    share = (place - first).astype(np.float32)
    share[(first < 0) | (first >= old - 1)] = 0
    first = first.clip(0, old - 1)
    whole = np.float32(1 << SHARES)
    shares = (np.rint(part * whole).astype(np.int32) for part in (np.float32(1) - share, share))
    return first, np.minimum(first + 1, old - 1), *shares
