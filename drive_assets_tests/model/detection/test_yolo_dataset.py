import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.common.errors import DataError
from model.detection.dataset_folder import dataset_version, link_or_copy, replaced_folder
from model.detection.json_rows import json_items, json_rows
from model.detection.yolo_dataset import LabelledImage, UnusableImage, check_usable


def encoded(kind: str, width: int = 64, height: int = 32) -> bytes:
    return cv2.imencode(kind, np.zeros((height, width, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_sizes_are_read_and_unusable_images_refused(kind: str, tmp_path: Path) -> None:
    whole = encoded(kind)
    path = tmp_path / f"image{kind}"
    path.write_bytes(whole)
    check_usable(str(path), (128, 64))
    with pytest.raises(UnusableImage, match="aspect ratio"):
        check_usable(str(path), (64, 64))
    for content in (whole[: len(whole) // 2], whole[:30], b"", b"GIF89a", b"\0" * 500):
        path.write_bytes(content)
        with pytest.raises(UnusableImage, match="damaged"):
            check_usable(str(path), (64, 32))


def test_huge_images_are_refused_by_their_header(tmp_path: Path) -> None:
    whole = bytearray(encoded(".png"))
    whole[16:24] = (60_000).to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(whole)
    with pytest.raises(UnusableImage, match="too large"):
        check_usable(str(tmp_path / "huge.png"), (64, 32))


def test_boxes_are_clipped_and_become_shares() -> None:
    image = LabelledImage("raw/a.png", "a.png", "group", 100, 50)
    boxes = [(3, -50, 0, 50, 50), (0, 20, 10, 40, 20), (0, 5, 5, 5, 9), (0, 100, 0, 120, 9), (0, 0, 0, 3, 9)]
    reasons = ["", "", "boxes without extent", "boxes outside the image", "boxes too small"]
    assert [image.add_box(*box, min_px=4) for box in boxes] == reasons
    assert image.text == "3 0.250000 0.500000 0.500000 1.000000\n0 0.300000 0.300000 0.200000 0.200000\n"


def test_the_version_follows_labels_and_classes(tmp_path: Path) -> None:
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "dataset.yaml").write_text("a")
    (tmp_path / "labels" / "train" / "1.txt").write_text("")
    versions = {dataset_version(tmp_path)}
    (tmp_path / "dataset.yaml").write_text("b")
    versions.add(dataset_version(tmp_path))
    (tmp_path / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 1 1\n")
    versions.add(dataset_version(tmp_path))
    assert len(versions) == 3


def test_without_hard_links_files_are_linked_symbolically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("image")

    def across(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", across)
    link_or_copy(f"{tmp_path}/a", f"{tmp_path}/b")
    assert (tmp_path / "b").is_symlink() and (tmp_path / "b").read_text() == "image"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    output = tmp_path / "set"
    with replaced_folder(output) as new:
        (new / "a").write_text("1")
    with pytest.raises(RuntimeError), replaced_folder(output) as new:
        (new / "a").write_text("2")
        raise RuntimeError
    assert (output / "a").read_text() == "1"
    output.rename(tmp_path / ".set.old")  # killed between the two renames
    with replaced_folder(output):
        assert (output / "a").read_text() == "1"
    assert {path.name for path in tmp_path.iterdir() if ".lock" not in path.name} == {"set"}


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[{}", '[{"a": }]', "[{} x]", '[{"a": "b]', '[{}] {"b": 1}'])
def test_broken_json_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"table\.json"):
        list(json_rows(path))


def test_members_of_json_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(' \n{"./a.png": {"x1": 1.5, "y1": 2, "rear": null}, "b": [true, "\u00e9"]}', encoding="utf-8")
    assert list(json_items(path)) == [("./a.png", {"x1": 1.5, "y1": 2, "rear": None}), ("b", [True, "\u00e9"])]
    path.write_text('[{"a": 1},\n{"a": 2}')
    rows = json_rows(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(DataError, match=r"labels\.json is not valid JSON after 2 entries"):
        list(rows)
