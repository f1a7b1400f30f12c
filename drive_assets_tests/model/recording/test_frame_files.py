"""One notion of a frame: what cameras write is read upright, and truncated files are detected."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drive_assets_tests.drives import respell, write_drive
from model.annotation.frames import UnreadableFrame, View, read_region, view_of
from model.common.errors import DataError
from model.recording.folder import Recording, Region, inspect_recording
from model.recording.frame_files import is_frame, is_whole, repeated_frames

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 16, 3), np.uint8)).resize((320, 180))
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, rotation: int = 1) -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = rotation
    image.save(stream, kind, quality=95, **({"exif": exif} if rotation != 1 else {}))
    return stream.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_names() -> None:
    assert [is_frame(name) for name in ("a.jpg", "a.JPG", "a.jpeg", "a.Png", "._a.jpg", "a.csv")] == [True] * 4 + [
        False
    ] * 2


def test_pictures_are_whole_whatever_stands_behind_them(tmp_path: Path) -> None:
    jpeg, png = encoded(PICTURE, "JPEG"), encoded(PICTURE, "PNG")
    trailer = b"\0" * 8 + b"trailer " * 900
    thumbnail = jpeg[:2] + b"\xff\xe1" + (len(jpeg) + 2).to_bytes(2, "big") + jpeg + jpeg[2:]
    assert len(jpeg) < 60_000
    for content in (jpeg, jpeg + trailer, png, png + trailer, thumbnail, thumbnail + trailer):
        assert is_whole(written(tmp_path / "a.jpg", content))
    cut = thumbnail[: len(jpeg) + 700]  # the thumbnail in it has an end
    for content in (jpeg[:-600], png[:-600], cut + trailer, b"", b"<html>"):
        assert not is_whole(written(tmp_path / "a.jpg", content))


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    content = encoded(PICTURE, "PNG")
    assert not is_whole(written(tmp_path / "a.png", content + bytes(9000)))


@pytest.mark.parametrize("segments_before", [0, 2])
@pytest.mark.parametrize(("rotation", "stored"), [(6, Image.Transpose.ROTATE_90), (3, Image.Transpose.ROTATE_180)])
def test_pictures_are_seen_upright(
    tmp_path: Path, rotation: int, stored: Image.Transpose, segments_before: int
) -> None:
    content = encoded(PICTURE.transpose(stored), "JPEG", rotation)
    makers = b"\xff\xe3" + (60_000).to_bytes(2, "big") + b"\xff\xda" * 29_999
    path = written(tmp_path / "a.jpg", content[:2] + segments_before * makers + content[2:])
    view = View((320, 180), Region(0, 0, 320, 180), 160)
    assert view_of(tmp_path, [path], view.roi, 160) == view
    seen = read_region(path, view)[..., ::-1].astype(int)
    assert np.abs(seen - np.asarray(PICTURE)).mean() < 2


def test_png_files_are_read_and_damage_in_them_is_found(tmp_path: Path) -> None:
    view, content = View((320, 180), Region(0, 0, 320, 180), 160), encoded(PICTURE, "PNG")
    path = written(tmp_path / "a.jpg", content)
    assert np.abs(read_region(path, view)[..., ::-1].astype(int) - np.asarray(PICTURE)).mean() < 1
    middle = len(content) // 2
    written(path, content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(UnreadableFrame):
        read_region(path, view)


def test_a_recording_of_other_suffixes_and_a_camera_that_hung(tmp_path: Path) -> None:
    drive = write_drive(tmp_path / "2024-05-01_10-00-00", rows=8)
    frames = list(Recording(drive).frames().values())
    for path, suffix in zip(frames[:3], (".JPG", ".jpeg", ".PNG"), strict=True):
        path.rename(path.with_suffix(suffix))
    frames[5].write_bytes(frames[4].read_bytes())
    frames[6].write_bytes(frames[4].read_bytes())
    report = inspect_recording(drive)
    assert (report.frames, report.usable_frames, report.repeated_frames) == (8, 8, 2)
    assert report.examples["repeated_frames"] == [frames[5].stem, frames[6].stem]
    assert repeated_frames({"a": frames[4], "b": frames[7]}) == []


def test_frames_named_by_milliseconds_belong_to_their_rows(tmp_path: Path) -> None:
    drive = write_drive(tmp_path / "2024-05-01_10-00-00", rows=8)
    frames = respell(drive, {"0": "5", "5": "500"})
    assert list(Recording(drive).frames().values()) == frames
    assert inspect_recording(drive).usable_frames == 8


def test_a_region_with_other_keys_and_fractions_is_read(tmp_path: Path) -> None:
    region = '\ufeff{"camera": "left", "x": 0, "y": 320.7, "width": 1920.0, "height": 575}'
    (tmp_path / "roi.json").write_text(region, encoding="utf-8")
    assert Recording(tmp_path).region() == Region(0, 320, 1920, 575)


@pytest.mark.parametrize(
    "content",
    ["", "7", "{", "[" * 100_000, '{"x": 0, "y": 0, "width": 1e400, "height": 9}', '{"x": 0, "y": 0, "width": NaN}'],
)
def test_a_region_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "roi.json").write_text(content)
    with pytest.raises(DataError, match=r"roi\.json.*: expected"):
        Recording(tmp_path).region()


def test_frames_whose_clock_is_another_one_are_named(tmp_path: Path) -> None:
    drive = write_drive(tmp_path / "2024-05-01_10-00-00", rows=20)
    for number, path in enumerate(sorted(drive.glob("*.jpg"))):
        if number % 4:  # a few match by chance
            path.rename(path.with_stem(f"{path.stem}3"))
    with pytest.raises(DataError, match=r"15 of 20 frames have the time of no row .* two clocks, such as"):
        inspect_recording(drive)
