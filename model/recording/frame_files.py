"""A frame's file: what counts as one, what kind of picture it holds, whether that is whole, and which way up it is."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from model.recording.times import plain_time

SUFFIXES = (".jpg", ".jpeg", ".png")
"""In any case. The content says what it is: cameras and converters name PNG files .jpg."""
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"
UPRIGHT = 1
_OTHER_KINDS = (
    (b"WEBP", 8, "WebP: convert it"),
    (b"ftyphe", 4, "HEIC: convert it"),
    (b"ftypavif", 4, "AVIF: convert it"),
    (b"ftyp", 4, "a video"),
    (b"BM", 0, "BMP: convert it"),
    (b"GIF8", 0, "GIF: convert it"),
    (b"II*\0", 0, "TIFF: convert it"),
    (b"MM\0*", 0, "TIFF: convert it"),
    (b"version https://git-lfs", 0, "a pointer of Git LFS: fetch what it stands for (git lfs pull)"),
)
_TAIL = 4096
_ORIENTATION = 0x0112
_HEADER = 4096
_SCAN, _NO_LENGTH = 0xDA, {0x01, *range(0xD0, 0xD9)}


def is_frame(name: str) -> bool:
    """Whether a file of this name is a frame."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def frame_name(time: str) -> str:
    """The file of the frame that was taken at a row's Time."""
    return f"{time}{SUFFIXES[0]}"


def frame_time(name: str) -> str:
    """The Time of the row that a frame's file belongs to."""
    return plain_time(name.rpartition(".")[0])


def is_whole(path: Path) -> bool:
    """Whether a file holds a JPEG or PNG from its start to its end; what a maker's camera writes behind is tolerated.

    The picture's data is not decoded.
    """
    with path.open("rb") as stream:
        start = stream.read(len(PNG_START))
        end = JPEG_END if start.startswith(JPEG_START) else PNG_END if start == PNG_START else None
        if end is None:
            return False
        size = stream.seek(0, 2)
        stream.seek(max(len(start), size - _TAIL))
        if end in stream.read():
            return True
        stream.seek(0)
        content = stream.read()
    return content.find(end, _data_start(content) if end == JPEG_END else 0) >= 0


def content_kind(path: Path) -> str:
    """What a file that is no whole JPEG or PNG is, as far as its first bytes tell: `is cut`, or `holds WebP`."""
    with path.open("rb") as stream:
        start = stream.read(64)
    if start.startswith((JPEG_START, PNG_START)):
        return "is cut"
    kinds = (name for mark, place, name in _OTHER_KINDS if start[place : place + len(mark)] == mark)
    return f"holds {next(kinds, 'no picture')}" if start else "is empty"


def _data_start(content: bytes) -> int:
    """Where the data of a JPEG's picture begins: behind the thumbnails that its header may hold. Its end if nowhere."""
    place = len(JPEG_START)
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == _SCAN:
            return place
        length = 0 if marker in _NO_LENGTH else int.from_bytes(content[place + 2 : place + 4], "big")
        place += 2 + length
    return len(content)


def is_plain_jpeg(content: bytes) -> bool:
    """Whether content is a JPEG whose pixels lie as they are to be seen."""
    if not content.startswith(JPEG_START):
        return False
    return b"Exif\0\0" not in content[:_HEADER] or orientation(content) == UPRIGHT


def orientation(content: bytes) -> int:
    """EXIF's number for how a picture lies: 1 is upright. Upright too if the picture does not say, or says nonsense."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            found = image.getexif().get(_ORIENTATION, UPRIGHT)
    except (OSError, SyntaxError, ValueError):
        return UPRIGHT
    return found if found in range(1, 9) else UPRIGHT


def repeated_frames(frames: Mapping[str, Path]) -> list[str]:
    """Times of the frames that are, byte for byte, the one before: a camera that hung."""
    repeated, before, digest_before = [], -1, ""
    for (time, path), earlier in zip(frames.items(), [None, *frames.values()], strict=False):
        size, digest = path.stat().st_size, ""
        if size == before and earlier is not None:
            digest = _digest(path)
            if digest == (digest_before or _digest(earlier)):
                repeated.append(time)
        before, digest_before = size, digest
    return repeated


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
