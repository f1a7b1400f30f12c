from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from model.annotation.backends import letterbox_batch
from model.annotation.frames import (
    OtherSize,
    UnreadableFrame,
    View,
    check_jpeg,
    decode,
    jpeg_size,
    letterbox,
    read_jpeg,
    view_of,
)
from model.common.errors import DataError
from model.recording.folder import Region

ROI = Region(0, 320, 1920, 575)
VIEW = View((1920, 1080), ROI, 704)


def jpeg(width: int = 1920, height: int = 1080, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]


def test_decodes_the_pixels_that_opencv_does() -> None:
    content = jpeg()
    assert np.array_equal(decode(content, VIEW), cv2.imdecode(content, cv2.IMREAD_COLOR)[320:895])


def test_letterboxes_are_ultralytics_own() -> None:
    from ultralytics.data.augment import LetterBox

    rng = np.random.default_rng(0)
    for height, width, size in ((575, 1920, 704), (575, 1920, 160), (300, 200, 320), (64, 64, 64)):
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        assert np.array_equal(letterbox(image, size), LetterBox((size, size), auto=True, stride=32)(image=image))


def test_the_letterbox_of_a_gpu_differs_by_a_grey_level() -> None:
    images = np.stack([decode(jpeg(seed=seed), VIEW).copy() for seed in (1, 2)])
    ours = letterbox_batch(torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2), VIEW, torch.float32) * 255
    theirs = np.stack([letterbox(image, 704) for image in images])[..., ::-1].transpose(0, 3, 1, 2)
    assert ours.shape == (2, 3, *VIEW.letterboxed)
    assert np.abs(ours.numpy() - theirs).max() <= 1.01


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise", "no jpeg", "empty"])
def test_damage_is_found_though_the_markers_are_fine(tmp_path: Path, damage: str) -> None:
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
        decode(read_jpeg(path, VIEW), VIEW)
    with pytest.raises(UnreadableFrame):
        check_jpeg(read_jpeg(path, VIEW))


def test_a_huge_frame_is_refused_by_its_header(tmp_path: Path) -> None:
    content = jpeg().tobytes()
    start = content.index(b"\xff\xc0")
    path = tmp_path / "frame.jpg"
    path.write_bytes(content[: start + 5] + b"\xff\xdc\xff\xdc" + content[start + 9 :])
    assert jpeg_size(np.fromfile(path, np.uint8)) == (65500, 65500)
    with pytest.raises(OtherSize, match="65500x65500"):
        read_jpeg(path, VIEW)


def test_the_size_of_most_frames_counts(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(4)]
    for name, (width, height) in zip(names, [(640, 480), (1920, 1080), (1920, 1080), (0, 0)], strict=True):
        (tmp_path / name).write_bytes(jpeg(width, height).tobytes() if width else b"no jpeg")
    frames = [tmp_path / name for name in names]
    assert view_of(tmp_path, frames, ROI, 704) == VIEW
    with pytest.raises(DataError, match=r"1920x1080 px: the region of interest .* does not fit"):
        view_of(tmp_path, frames, Region(0, 600, 1920, 575), 704)
    with pytest.raises(DataError, match="no frame that can be read"):
        view_of(tmp_path, frames[3:], ROI, 704)


def test_grey_frames_of_16_bits_keep_their_shades(tmp_path: Path) -> None:
    shades = np.tile(np.linspace(0, 65535, 1920).astype(np.uint16), (1080, 1))
    cv2.imwrite(str(tmp_path / "frame.png"), shades)
    found = decode(read_jpeg(tmp_path / "frame.png", VIEW), VIEW)
    assert np.abs(found[10, :, 0].astype(int) - (shades[0] >> 8)).max() <= 2
