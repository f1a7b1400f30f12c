"""A frame's file: which names are frames, the kind of picture, and whether it is whole."""

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

from PIL import Image

from model.common.files import explained_errors, sha256

SUFFIXES = (".jpg", ".jpeg", ".png")
"""In upper or lower case. The content decides the kind: cameras and converters name PNG files .jpg."""
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_TAIL = 4096


def is_frame(name: str) -> bool:
    """Whether a file of this name is a frame."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def frame_name(time: str) -> str:
    """The file of the frame that was taken at a row's Time."""
    return f"{time}{SUFFIXES[0]}"


def is_whole(path: Path) -> bool:
    """Whether a file holds a JPEG or PNG from its start to its end. Cameras may append data.

    A picture is decoded only if its end is not near the file's.
    """
    with explained_errors(path, "read"), path.open("rb") as stream:
        start = stream.read(len(PNG_START))
        end = JPEG_END if start.startswith(JPEG_START) else PNG_END if start == PNG_START else None
        if end is None:
            return False
        size = stream.seek(0, 2)
        stream.seek(max(len(start), size - _TAIL))
        if end in stream.read():
            return True
    try:
        with Image.open(path) as image:
            image.draft("L", (1, 1))
            image.load()
    except _UNREADABLE:
        return False
    return True


def repeated_frames(frames: Mapping[str, Path]) -> list[str]:
    """Times of the frames that equal the one before byte for byte: the camera hung."""
    sizes = {path: path.stat().st_size for path in frames.values()}
    digest = cache(sha256)
    return [
        time
        for (_, earlier), (time, path) in pairwise(frames.items())
        if sizes[path] == sizes[earlier] and digest(path) == digest(earlier)
    ]
