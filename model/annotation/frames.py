"""Frames, from files to the detector's input: checked, decoded, cropped to the region of interest, letterboxed."""

import io
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps

from model.common.errors import DataError
from model.recording.folder import ROI, Region
from model.recording.frame_files import JPEG_START, PNG_START, is_plain_jpeg, orientation

Frame = npt.NDArray[np.uint8]
"""(height, width, 3) BGR"""
Jpeg = npt.NDArray[np.uint8]
"""(n,) a file's bytes"""
Detections = npt.NDArray[np.float32]
"""(n,6) x1, y1, x2, y2 in px of the region of interest, confidence, class id."""
STRIDE = 32
PAD = 114
SIZE_SAMPLES = 64
LARGEST_PIXELS = 100_000_000
"""A small file can hold a picture that takes minutes and gigabytes to decode."""
SIDEWAYS = range(5, 9)
"""EXIF orientations that swap width and height."""
SHRINKING = 8
"""Largest factor by which libjpeg shrinks a picture while it decodes."""
_scratch = threading.local()


class UnreadableFrame(Exception):
    """A file cannot be read, is not a JPEG or PNG, is truncated, too large, or its data is damaged."""


class OtherSize(Exception):
    """A frame's size is not that of its recording."""


class Geometry(NamedTuple):
    """Where a region of interest lies in its letterbox, px."""

    width: int
    height: int
    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class View:
    """The part of a recording's frames that the network sees."""

    frame: tuple[int, int]
    """Width and height of the recording's frames, px"""
    roi: Region
    image_size: int
    stride: int = STRIDE

    @property
    def geometry(self) -> Geometry:
        return letterbox_geometry(self.roi[2], self.roi[3], self.image_size, self.stride)

    @property
    def letterboxed(self) -> tuple[int, int]:
        """Height and width of the network's input, px."""
        g = self.geometry
        return g.top + g.height + g.bottom, g.left + g.width + g.right


def view_of(recording: Path, frames: Sequence[Path], roi: Region, image_size: int, stride: int = STRIDE) -> View:
    """The view of a recording's frames, whose size is the most frequent one in a sample.

    Raises:
        DataError: none of the sample can be read, or the region of interest does not fit.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    picked: Any = np.unique(np.linspace(0, len(frames) - 1, SIZE_SAMPLES).astype(int)) if frames else []
    for index in picked:
        try:
            sizes[picture_size(_read(frames[index]))] += 1
        except UnreadableFrame:
            continue
    if not sizes:
        raise DataError(f"{recording} has no readable frame: {len(picked)} were tried; copy the recording again.")
    (frame, _), *_ = sizes.most_common(1)
    x, y, width, height = roi
    if x + width > frame[0] or y + height > frame[1]:
        raise DataError(
            f"{recording} has frames of {frame[0]}x{frame[1]} px: the region of interest {tuple(roi)} (x, y, width, "
            f"height) does not fit. Set roi in the launchpad, or put a {ROI} beside the recording."
        )
    return View(frame, roi, image_size, stride)


def picture_size(content: Jpeg) -> tuple[int, int]:
    """Width and height in px of the upright picture, from its header.

    Raises:
        UnreadableFrame: it is not a JPEG or PNG.
    """
    data = content.tobytes()
    if data.startswith(PNG_START):
        width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
    else:
        width, height = jpeg_size(content)
    if width * height > LARGEST_PIXELS:
        raise UnreadableFrame(f"{width}x{height} px: more than {LARGEST_PIXELS / 1e6:.0f} million pixels")
    return (width, height) if is_plain_jpeg(data) or orientation(data) not in SIDEWAYS else (height, width)


def _upright_jpeg(content: Jpeg) -> Jpeg:
    """Any picture as an upright JPEG of best quality, which the backends expect."""
    if content[: len(JPEG_START)].tobytes() == JPEG_START:
        check_jpeg(content)
    try:
        with Image.open(io.BytesIO(content.tobytes())) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            pixels = np.asarray(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableFrame(str(error)) from error
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 100, "RGB", "444")
    return np.frombuffer(encoded, np.uint8)


def jpeg_size(content: Jpeg) -> tuple[int, int]:
    """Width and height in px from a JPEG's header.

    Raises:
        UnreadableFrame: it is not a JPEG.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        raise UnreadableFrame(str(error)) from error
    return int(width), int(height)


def read_jpeg(path: Path, view: View) -> Jpeg:
    """A file as an upright JPEG of the view's frame size: turned as EXIF asks, converted if it is a PNG.

    Raises:
        UnreadableFrame, OtherSize
    """
    content = _read(path)
    size = picture_size(content)
    if size != view.frame:
        raise OtherSize(f"{size[0]}x{size[1]} px; the recording's frames are {view.frame[0]}x{view.frame[1]}")
    return content if is_plain_jpeg(content.tobytes()) else _upright_jpeg(content)


def _read(path: Path) -> Jpeg:
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableFrame(error.strerror or str(error)) from error


def check_jpeg(content: Jpeg) -> None:
    """Check all of a JPEG's data at 60 % of the cost of decoding it.

    Raises:
        UnreadableFrame: the data is truncated or damaged; OpenCV and nvJPEG decode it to a partly grey picture.
    """
    try:
        simplejpeg.decode_jpeg(content, "GRAY", min_height=1, min_width=1, min_factor=SHRINKING)
    except ValueError as error:
        raise UnreadableFrame(str(error)) from error


def decode(content: Jpeg, view: View) -> Frame:
    """The region of interest, in a buffer of this thread that the next call overwrites.

    Raises:
        UnreadableFrame: the data is truncated or damaged; libjpeg's warnings count.
    """
    width, height = view.frame
    buffer: Frame | None = getattr(_scratch, "buffer", None)
    if buffer is None or buffer.shape != (height, width, 3):
        buffer = _scratch.buffer = np.empty((height, width, 3), np.uint8)  # reused: new pages cost as much as decoding
    try:
        image = simplejpeg.decode_jpeg(content, "BGR", buffer=buffer)
    except ValueError as error:
        raise UnreadableFrame(str(error)) from error
    x, y, roi_width, roi_height = view.roi
    return np.asarray(image[y : y + roi_height, x : x + roi_width])


def read_letterboxed(path: Path, view: View) -> Frame:
    """The region of interest of a file, letterboxed.

    Raises:
        UnreadableFrame, OtherSize
    """
    return letterbox(decode(read_jpeg(path, view), view), view.image_size, view.stride)


def letterbox_geometry(width: int, height: int, size: int, stride: int = STRIDE) -> Geometry:
    """How an image is scaled so that its longer side is `size`, and padded to a multiple of the stride."""
    ratio = min(size / height, size / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pad_x, pad_y = ((size - new_width) % stride) / 2, ((size - new_height) % stride) / 2
    top, bottom, left, right = (round(v) for v in (pad_y - 0.1, pad_y + 0.1, pad_x - 0.1, pad_x + 0.1))
    return Geometry(new_width, new_height, top, bottom, left, right)


def letterbox(image: Frame, size: int, stride: int = STRIDE) -> Frame:
    """Scale an image so that its longer side is `size`, and pad the shorter to a multiple of the stride with grey.

    The same pixels as ultralytics' LetterBox with `auto=True`, which its `predict` applies to images of one shape.
    """
    height, width = image.shape[:2]
    g = letterbox_geometry(width, height, size, stride)
    if (g.width, g.height) != (width, height):
        image = np.asarray(cv2.resize(image, (g.width, g.height), interpolation=cv2.INTER_LINEAR), np.uint8)
    padded = cv2.copyMakeBorder(image, g.top, g.bottom, g.left, g.right, cv2.BORDER_CONSTANT, value=(PAD, PAD, PAD))
    return np.asarray(padded, np.uint8)
