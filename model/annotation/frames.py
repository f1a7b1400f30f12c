"""Frames, from files to the detector's input: checked, decoded, cropped to the region of interest, letterboxed."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from model.common.errors import DataError
from model.recording.folder import DEFAULT_REGION, ROI, Region

Frame = npt.NDArray[np.uint8]
"""(height, width, 3) BGR"""
Detections = npt.NDArray[np.float32]
"""(n,6) x1, y1, x2, y2 in px of the region of interest, confidence, class id."""
SIZE_SAMPLES = 64
LARGEST_PIXELS = 100_000_000
"""A small file can hold a picture that takes minutes and gigabytes to decode."""
ORIENTATION = 0x0112
TURNED, SIDEWAYS = range(2, 9), range(5, 9)
"""EXIF's numbers for pictures that are not stored upright, and for those of swapped width and height."""
PNG_METADATA = (b"eXIf", b"type exif", b"adobe.xmp")
"""Marks of an orientation in a PNG. It may follow the pixels, so that Pillow decodes them to find it."""


class UnreadableFrame(Exception):
    """A file cannot be read, is not a JPEG or PNG, is truncated, too large, or its data is damaged."""


class OtherSize(Exception):
    """A frame's size is not that of its recording."""


@dataclass(frozen=True)
class View:
    """The part of a recording's frames that the network sees."""

    frame: tuple[int, int]
    """Width and height of the recording's frames, px"""
    roi: Region
    image_size: int
    stride: int = 32


class _Picture(NamedTuple):
    content: bytes
    size: tuple[int, int]
    """Width and height in px of the upright picture."""
    is_plain_jpeg: bool
    """Whether it is a JPEG whose pixels are stored upright."""


def view_of(recording: Path, frames: Sequence[Path], roi: Region, image_size: int, stride: int = 32) -> View:
    """The view of a recording's frames, whose size is the most frequent one in a sample.

    The default region of interest is that of a camera 1,920 px wide; of other frames, all is seen.

    Raises:
        DataError: none of the sample can be read, or the region of interest does not fit.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    picked: Any = np.unique(np.linspace(0, len(frames) - 1, SIZE_SAMPLES).astype(int)) if frames else []
    for index in picked:
        try:
            sizes[_read(frames[index]).size] += 1
        except UnreadableFrame:
            continue
    if not sizes:
        raise DataError(f"{recording} has no readable frame: {len(picked)} were tried; copy the recording again.")
    (frame, _), *_ = sizes.most_common(1)
    x, y, width, height = roi
    fits = x + width <= frame[0] and y + height <= frame[1]
    if roi == DEFAULT_REGION and not (fits and width == frame[0]):
        return View(frame, Region(0, 0, *frame), image_size, stride)
    if not fits:
        raise DataError(
            f"{recording} has frames of {frame[0]}x{frame[1]} px: the region of interest {tuple(roi)} (x, y, width, "
            f"height) does not fit. Set roi in the launchpad, or put a {ROI} beside the recording."
        )
    return View(frame, roi, image_size, stride)


def read_letterboxed(path: Path, view: View) -> Frame:
    """The region of interest, scaled so that its longer side is the image size, padded to multiples of the stride.

    Raises:
        UnreadableFrame, OtherSize
    """
    from ultralytics.data.augment import LetterBox

    letterbox = LetterBox((view.image_size, view.image_size), auto=True, stride=view.stride)
    return np.asarray(letterbox(image=read_region(path, view)), np.uint8)


def read_region(path: Path, view: View) -> Frame:
    """The region of interest of a file, upright.

    Raises:
        UnreadableFrame: also for damaged data, which OpenCV would decode to a partly grey picture.
        OtherSize: the frame does not have the view's size.
    """
    picture = _read(path)
    if picture.size != view.frame:
        width, height = picture.size
        raise OtherSize(f"{width}x{height} px; the recording's frames are {view.frame[0]}x{view.frame[1]}")
    try:
        image = simplejpeg.decode_jpeg(picture.content, "BGR") if picture.is_plain_jpeg else _upright(picture.content)
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableFrame(str(error)) from error
    x, y, roi_width, roi_height = view.roi
    return np.asarray(image[y : y + roi_height, x : x + roi_width])


def _read(path: Path) -> _Picture:
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            (width, height), is_jpeg = image.size, image.format != "PNG"
            if width * height > LARGEST_PIXELS:
                raise UnreadableFrame(f"{width}x{height} px: more than {LARGEST_PIXELS / 1e6:.0f} million pixels")
            may_turn = "exif" in image.info if is_jpeg else any(mark in content for mark in PNG_METADATA)
            orientation = image.getexif().get(ORIENTATION) if may_turn else None
    except (UnidentifiedImageError, ImportError) as error:  # ultralytics makes Pillow look for a HEIF reader first
        raise UnreadableFrame("it is not a JPEG or PNG") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableFrame(getattr(error, "strerror", None) or str(error)) from error
    size = (height, width) if orientation in SIDEWAYS else (width, height)
    return _Picture(content, size, is_jpeg and orientation not in TURNED)


def _upright(content: bytes) -> Frame:
    """A picture turned as its EXIF data ask. Raises OSError, SyntaxError or ValueError if it is damaged."""
    with Image.open(io.BytesIO(content)) as image:
        if image.format != "PNG":  # "JPEG", or "MPO" for a JPEG with a preview after it
            simplejpeg.decode_jpeg(content, "GRAY", min_height=1, min_width=1, min_factor=8)  # Pillow overlooks damage
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        return np.asarray(cv2.cvtColor(np.asarray(upright.convert("RGB")), cv2.COLOR_RGB2BGR), np.uint8)
