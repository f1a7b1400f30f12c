import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.common.errors import DataError
from model.detection.boxy import BoxyConfig, convert_boxy
from model.detection.dataset_folder import mosaic
from model.detection.yolo_dataset import split_groups

PNG = cv2.imencode(".png", np.zeros((1028, 1232, 3), np.uint8))[1].tobytes()


def box(x1: float, y1: float, x2: float, y2: float) -> dict[str, float]:
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2}


def vehicle(whole: dict[str, float], rear: dict[str, float] | None = None) -> dict:
    return {"AABB": whole, "rear": rear, "side": None}


def write_raw(raw: Path, frames: dict[str, list[dict]], flaws: tuple[str, ...] = (), sequences: int = 2) -> Path:
    """The same frames in each sequence."""
    raw.mkdir()
    labels = {}
    for number in range(sequences):
        sequence = f"bluefox_2016-10-0{number + 1}-10-00-00_bag"
        with zipfile.ZipFile(raw / f"{sequence}.zip", "w") as archive:
            for frame, vehicles in frames.items():
                archive.writestr(f"{sequence}/{frame}.png", PNG)
                labels[f"./{sequence}/{frame}.png"] = {
                    "vehicles": vehicles,
                    "flaws": ["x"] if frame in flaws else ["no-issues"],
                }
    (raw / "boxy_labels_train.json").write_text(json.dumps(labels))
    return raw


def lines_of(dataset: Path, split: str = "train") -> dict[str, list[str]]:
    files = (dataset / "labels" / split).glob("*.txt")
    return {path.stem.split("__")[1]: path.read_text().splitlines() for path in files}


def test_full_size_labels_become_normalised_lines(tmp_path: Path) -> None:
    frames = {
        "1": [vehicle(box(0, 0, 1232, 1028), box(616, 514, 1232, 1028)), vehicle(box(-100, 0, 246.4, 205.6))],
        "2": [],
        "3": [vehicle(box(1100, 1950, 1300, 2050)), vehicle(box(0, 0, 100, 100))],
        "4": [vehicle(box(10, 10, 10, 20))],
        "5": [vehicle(box(0, 0, 100, 100))],
    }
    report = convert_boxy(write_raw(tmp_path / "raw", frames, flaws=("5",)), tmp_path / "set", BoxyConfig())
    assert report.classes["val"] == {"vehicle": 3}
    found = lines_of(tmp_path / "set")
    assert sorted(found) == ["1", "2", "3"]
    assert found["1"] == ["0 0.375000 0.375000 0.250000 0.250000", "0 0.050000 0.050000 0.100000 0.100000"]
    assert found["2"] == []
    assert len(found["3"]) == 1
    assert report.images == {"train": 3, "val": 3}
    assert report.dropped == {"images with flaws": 2, "boxes on the bonnet": 2, "images with a degenerate box": 2}
    assert (tmp_path / "set" / "dataset.yaml").read_text().endswith("names:\n  0: vehicle\n")
    assert json.loads((tmp_path / "set" / "source.json").read_text()) == {"source": f"{tmp_path.name}/raw"}
    assert mosaic(tmp_path / "set")[:2] == b"\xff\xd8"


def test_sides_follow_where_the_vehicle_drives(tmp_path: Path) -> None:
    rear = box(1000, 1000, 1200, 1200)
    frames = {
        "1": [vehicle(box(800, 1000, 1200, 1200), rear)],  # its left flank is seen: it is to our right
        "2": [vehicle(box(995, 1000, 1205, 1200), rear)],
        "3": [vehicle(box(1000, 1000, 1400, 1200), rear)],
    }
    convert_boxy(write_raw(tmp_path / "raw", frames), tmp_path / "set", BoxyConfig(classes="sides"))
    assert {name: int(lines[0][0]) for name, lines in lines_of(tmp_path / "set").items()} == {"1": 2, "2": 1, "3": 0}


def test_small_boxes_and_other_sequences_are_left_out(tmp_path: Path) -> None:
    frames = {"1": [vehicle(box(0, 0, 30, 100)), vehicle(box(0, 0, 50, 50))]}
    raw = write_raw(tmp_path / "raw", frames, sequences=3)
    chosen = ("bluefox_2016-10-01-10-00-00_bag", "bluefox_2016-10-03-10-00-00_bag")
    report = convert_boxy(raw, tmp_path / "set", BoxyConfig(min_box_px=40, sequences=chosen))
    assert sorted(report.groups["train"] + report.groups["val"]) == sorted(chosen)
    assert report.boxes == {"train": 1, "val": 1}
    with pytest.raises(DataError, match="not in the labels"):
        convert_boxy(raw, tmp_path / "set", BoxyConfig(sequences=["none"]))


def images_of(dataset: Path) -> dict[str, int]:
    """Inodes by file name."""
    return {path.name: path.stat().st_ino for path in (dataset / "images").rglob("*.png")}


def test_zips_are_extracted_once_and_a_conversion_that_fails_changes_nothing(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", {"1": []}, sequences=3)
    convert_boxy(raw, tmp_path / "set", BoxyConfig())
    before = images_of(tmp_path / "set")
    convert_boxy(raw, tmp_path / "set", BoxyConfig(min_box_px=9))
    assert images_of(tmp_path / "set") == before
    for broken in sorted(raw.glob("*.zip"))[:2]:
        broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"1 of the 3 sequences .*{broken.name} cannot be extracted"):
        convert_boxy(raw, tmp_path / "set", BoxyConfig())
    assert images_of(tmp_path / "set") == before
    assert [path.name for path in tmp_path.glob(".set*") if ".lock" not in path.name] == []


def test_missing_images_are_counted_and_hostile_or_missing_labels_refused(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", {"1": []})
    labels = json.loads((raw / "boxy_labels_train.json").read_text())
    sequence = "bluefox_2016-10-01-10-00-00_bag"
    (raw / "boxy_labels_train.json").write_text(json.dumps(labels | {f"./{sequence}/9.png": {"vehicles": []}}))
    report = convert_boxy(raw, tmp_path / "set", BoxyConfig())
    assert report.dropped == {"images that are missing": 1}
    (raw / "boxy_labels_train.json").write_text(json.dumps({"./../../evil.png": {"vehicles": []}}))
    with pytest.raises(DataError, match="evil"):
        convert_boxy(raw, tmp_path / "set", BoxyConfig())
    (raw / "boxy_labels_train.json").write_text(json.dumps(labels)[:-20])
    with pytest.raises(DataError, match=r"boxy_labels_train\.json is not valid JSON"):
        convert_boxy(raw, tmp_path / "set", BoxyConfig())
    with pytest.raises(DataError, match="no Boxy labels"):
        convert_boxy(tmp_path, tmp_path / "set", BoxyConfig())


def test_unusable_images_and_labels_are_left_out(tmp_path: Path) -> None:
    frames: dict[str, list[dict]] = {str(n): [vehicle(box(0, 0, 1232, 1028))] for n in range(1, 4)}
    frames["7"] = [{"AABB": {"x1": 1, "y1": 1, "x2": "wide", "y2": 9}, "rear": None}]
    frames["8"] = [vehicle(box(-300, 0, -100, 50)), vehicle(box(2400, 2000, 9999, 9999))]
    raw = write_raw(tmp_path / "raw", frames, sequences=3)
    sequence = "bluefox_2016-10-01-10-00-00_bag"
    (raw / f"{sequence}.zip").unlink()
    folder = raw / sequence
    folder.mkdir()
    full_size = cv2.imencode(".png", np.zeros((2056, 2464, 3), np.uint8))[1].tobytes()
    for frame, content in {"1": PNG, "2": PNG[:-30], "3": full_size, "7": PNG, "8": PNG}.items():
        (folder / f"{frame}.png").write_bytes(content)
    third = raw / "bluefox_2016-10-03-10-00-00_bag.zip"
    damaged = bytearray(third.read_bytes())
    damaged[200] ^= 255  # within the first PNG
    third.write_bytes(damaged)
    report = convert_boxy(raw, tmp_path / "set", BoxyConfig())
    assert report.dropped == {
        "images whose zip is missing or damaged": 5,
        "labels that cannot be read": 2,
        "boxes outside the image": 2,
        "images that are damaged": 1,
    }
    assert any(f"{third} cannot be extracted" in problem for problem in report.problems)
    used = [path for path in (tmp_path / "set" / "images").rglob("*.png") if sequence in path.name]
    assert {path.name for path in used} == {f"{sequence}__{frame}.png" for frame in "138"}
    assert all(path.stat().st_nlink == 2 for path in used)
    lines = lines_of(tmp_path / "set")
    assert lines["3"] == ["0 0.250000 0.250000 0.500000 0.500000"]
    assert lines["8"][0] == "0 0.987013 0.986381 0.025974 0.027237"


def test_sequences_are_split_whole() -> None:
    split = split_groups([f"s{i:02}" for i in range(10)], 0.2)
    assert sorted(split.values()) == ["train"] * 8 + ["val"] * 2
    with pytest.raises(DataError, match="at least 2"):
        split_groups(["one"], 0.2)


def test_sequences_with_images_are_split(tmp_path: Path) -> None:
    """The label file names all sequences, of which users may download a few."""
    raw = write_raw(tmp_path / "raw", {"1": [vehicle(box(0, 0, 1232, 1028))]}, sequences=9)
    archives = sorted(raw.glob("*.zip"))
    for archive in archives[:6]:
        archive.unlink()
    report = convert_boxy(raw, tmp_path / "set", BoxyConfig())
    assert sorted(report.groups["train"] + report.groups["val"]) == [path.stem for path in archives[6:]]
    assert (report.images, report.dropped) == ({"train": 2, "val": 1}, {"images whose zip is missing or damaged": 6})
    assert report.problems[0] == f"{archives[0].name} is missing in {raw}."
    archives[7].unlink()
    archives[8].unlink()
    with pytest.raises(DataError, match="images of 1 of the 9 sequences that the labels name: expected at least 2"):
        convert_boxy(raw, tmp_path / "set", BoxyConfig())
