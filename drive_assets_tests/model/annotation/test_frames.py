import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model.annotation.frames import ORIENTATION, UnreadableFrame, View, read_region, view_of
from model.common.errors import DataError
from model.recording.folder import DEFAULT_REGION, Region

ROI = Region(0, 320, 1920, 575)
VIEW = View((1920, 1080), ROI, 704)


def jpeg(width: int = 1920, height: int = 1080, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]


def test_decodes_the_pixels_that_opencv_does(tmp_path: Path) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(jpeg().tobytes())
    assert np.array_equal(read_region(path, VIEW), cv2.imread(str(path))[320:895])


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise", "no jpeg", "empty"])
def test_damaged_data_between_intact_markers_is_found(tmp_path: Path, damage: str) -> None:
    content = jpeg()
    middle = len(content) // 2
    if damage == "cut":
        content = np.concatenate([content[:middle], np.array([0xFF, 0xD9], np.uint8)])
    elif damage == "zeros":  # a page that never reached the disk
        content[middle : middle + 4096] = 0
    elif damage == "noise":
        content[middle : middle + 512] = np.random.default_rng(1).integers(0, 256, 512)
    else:
        content = np.frombuffer(b"<html>" if damage == "no jpeg" else b"", np.uint8)
    path = tmp_path / "frame.jpg"
    path.write_bytes(content.tobytes())
    with pytest.raises(UnreadableFrame):
        read_region(path, VIEW)


@pytest.mark.parametrize("turned", [False, True])
def test_jpegs_with_a_preview_are_decoded_and_checked_like_others(tmp_path: Path, turned: bool) -> None:
    """Pillow names them MPO."""
    exif, stored = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = 3 if turned else 1
    image = Image.open(io.BytesIO(jpeg().tobytes()))
    image.save(stored, "MPO", save_all=True, append_images=[image.resize((160, 90))], exif=exif)
    content, path = bytearray(stored.getvalue()), tmp_path / "frame.jpg"
    path.write_bytes(content)
    assert np.array_equal(read_region(path, VIEW), cv2.imread(str(path))[320:895])
    content[len(content) // 2 : len(content) // 2 + 4096] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(UnreadableFrame):
        read_region(path, VIEW)


@pytest.mark.parametrize("mark", ["exif", "exif after the pixels", "xmp"])
def test_the_size_of_a_png_is_that_of_the_upright_picture(tmp_path: Path, mark: str) -> None:
    exif, stored, path = Image.Exif(), io.BytesIO(), tmp_path / "frame.png"
    exif[ORIENTATION] = 6
    about = PngInfo()
    about.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    options = {"pnginfo": about} if mark == "xmp" else {"exif": exif}
    Image.new("RGB", (60, 100)).save(stored, "PNG", **options)
    content = stored.getvalue()
    if mark == "exif after the pixels":
        start, end = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
        content = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    path.write_bytes(content)
    region = Region(0, 0, 100, 60)
    view = view_of(tmp_path, [path], region, 704)
    assert view.frame == (100, 60) and read_region(path, view).shape == (60, 100, 3)


def test_huge_frames_are_refused_by_their_header(tmp_path: Path) -> None:
    content = jpeg().tobytes()
    start = content.index(b"\xff\xc0")
    (tmp_path / "0.jpg").write_bytes(content[: start + 5] + b"\xff\xdc\xff\xdc" + content[start + 9 :])
    header = b"IHDR" + (40_000).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
    png = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + zlib.crc32(header).to_bytes(4, "big") + b"\0\0\0\0IDAT" + bytes(4)
    (tmp_path / "1.jpg").write_bytes(png)
    paths = sorted(tmp_path.glob("*.jpg"))
    for path in paths:
        with pytest.raises(UnreadableFrame, match=r"(4290250000|1600000000) pixels"):
            read_region(path, VIEW)
    with pytest.raises(DataError, match="no readable frame"):
        view_of(tmp_path, paths, ROI, 704)


def test_the_size_of_most_frames_counts(tmp_path: Path) -> None:
    frames = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path, (width, height) in zip(frames, [(640, 480), (1920, 1080), (1920, 1080), (0, 0)], strict=True):
        path.write_bytes(jpeg(width, height).tobytes() if width else b"no jpeg")
    assert view_of(tmp_path, frames, ROI, 704) == VIEW


@pytest.mark.parametrize("size", [(1280, 720), (1920, 800), (3840, 2160), (480, 640)])
def test_of_frames_that_the_default_region_is_not_made_for_all_is_seen(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "frame.jpg").write_bytes(jpeg(*size).tobytes())
    assert view_of(tmp_path, [tmp_path / "frame.jpg"], DEFAULT_REGION, 704).roi == (0, 0, *size)
    with pytest.raises(DataError, match="does not fit"):
        view_of(tmp_path, [tmp_path / "frame.jpg"], Region(0, 0, size[0] + 1, size[1]), 704)


def test_grey_frames_of_16_bits_keep_their_shades(tmp_path: Path) -> None:
    shades = np.tile(np.linspace(0, 65535, 1920).astype(np.uint16), (1080, 1))
    cv2.imwrite(str(tmp_path / "frame.png"), shades)
    found = read_region(tmp_path / "frame.png", VIEW)
    assert np.abs(found[10, :, 0].astype(int) - (shades[0] >> 8)).max() <= 2
