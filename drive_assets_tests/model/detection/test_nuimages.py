import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model.common.errors import DataError
from model.detection.dataset_folder import PARTS
from model.detection.nuimages import CLASSES, NuimagesConfig, convert_nuimages, extract_nuimages

JPEG = cv2.imencode(".jpg", np.zeros((90, 160, 3), np.uint8))[1].tobytes()
CAMERAS = ("CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT")
NAMES = ["vehicle.car", "vehicle.bus.rigid", "vehicle.bus.bendy", "vehicle.trailer", "vehicle.truck", "animal",
         "human.pedestrian.adult", "movable_object.trafficcone", "vehicle.motorcycle"]  # fmt: skip


def tables(name: str, logs: list[str], boxes: list[tuple[str, list[float]]]) -> dict[str, list[dict[str, Any]]]:
    """A set with an image of each camera a log, each with the same boxes."""
    found: dict[str, list[dict[str, Any]]] = {
        "sensor": [{"token": f"s-{camera}", "channel": camera, "modality": "camera"} for camera in CAMERAS],
        "calibrated_sensor": [{"token": f"c-{camera}", "sensor_token": f"s-{camera}"} for camera in CAMERAS],
        "category": [{"token": f"t-{category}", "name": category, "description": ""} for category in NAMES],
        "log": [{"token": f"l-{log}", "logfile": log} for log in logs],
        "sample": [],
        "sample_data": [],
        "object_ann": [],
    }
    for log in logs:
        for camera in CAMERAS:
            key = f"{name}-{log}-{camera}"
            found["sample"].append({"token": key, "log_token": f"l-{log}", "key_camera_token": f"d-{key}"})
            image = {"calibrated_sensor_token": f"c-{camera}", "width": 1600, "height": 900, "fileformat": "jpg"}
            file = f"samples/{camera}/{log}__{camera}__1.jpg"
            found["sample_data"].append({"token": f"d-{key}", "filename": file, "is_key_frame": True} | image)
            found["sample_data"].append(
                {"token": f"x-{key}", "filename": "sweeps/a.jpg", "is_key_frame": False} | image
            )
            for category, box in boxes:
                row = {"token": f"o-{key}", "category_token": f"t-{category}", "sample_data_token": f"d-{key}"}
                found["object_ann"].append(row | {"bbox": box, "mask": {"size": [900, 1600], "counts": "Z15v"}})
    return found


def write_raw(raw: Path, sets: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
    for name, content in sets.items():
        (raw / name).mkdir(parents=True)
        for table, rows in content.items():
            (raw / name / f"{table}.json").write_text(json.dumps(rows, indent=0))
        for row in content["sample_data"]:
            if row["filename"].startswith("samples/"):
                (raw / row["filename"]).parent.mkdir(parents=True, exist_ok=True)
                (raw / row["filename"]).write_bytes(JPEG)
    return raw


def labels(dataset: Path) -> dict[str, dict[str, list[str]]]:
    """Lines by image, by part."""
    folders = {part: dataset / "labels" / part for part in PARTS}
    return {
        part: {path.stem: path.read_text().splitlines() for path in folder.glob("*.txt")}
        for part, folder in folders.items()
    }


def test_published_sets_keep_their_images_and_classes_are_mapped(tmp_path: Path) -> None:
    boxes = [(name, [160.0, 90.0, 320.0, 180.0]) for name in NAMES]
    sets = {
        "v1.0-train": tables("train", ["a", "b"], boxes),
        "v1.0-val": tables(
            "val", ["c", "b"], [("vehicle.car", [-50, -50, 800, 450]), ("vehicle.car", [1600, 0, 1700, 9])]
        ),
        "v1.0-mini": tables("mini", ["m"], boxes),
        "v1.0-test": tables("test", ["t"], []),
    }
    raw = write_raw(tmp_path / "raw", sets)
    report = convert_nuimages(raw, tmp_path / "set", NuimagesConfig())
    found = labels(tmp_path / "set")
    assert sorted(found["val"]) == ["c__CAM_BACK__1", "c__CAM_FRONT__1"]
    assert sorted(found["train"]) == [f"{log}__{camera}__1" for log in "ab" for camera in ("CAM_BACK", "CAM_FRONT")]
    assert found["val"]["c__CAM_FRONT__1"] == ["1 0.250000 0.250000 0.500000 0.500000"]
    place = "0.150000 0.150000 0.100000 0.100000"
    assert found["train"]["a__CAM_BACK__1"] == [f"{number} {place}" for number in (1, 3, 3, 4, 4, 0, 5, 2)]
    assert report.groups == {"train": ["a", "b"], "val": ["c"]}
    assert report.classes["train"] == dict(zip(CLASSES, (4, 4, 4, 8, 8, 4), strict=True))
    assert report.dropped == {"boxes of other classes": 4, "boxes outside the image": 4, "images that occur twice": 2}
    assert (tmp_path / "set" / "dataset.yaml").read_text().splitlines()[3:] == [
        f"  {number}: {name}" for number, name in enumerate(CLASSES)
    ]
    linked = list((tmp_path / "set" / "images").rglob("*.jpg"))
    assert len(linked) == 6 and all(path.stat().st_nlink == 2 for path in linked)


def test_mini_is_split_by_log_and_other_cameras_can_be_chosen(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", {"v1.0-mini": tables("mini", list("abcde"), [("vehicle.car", [0, 0, 9, 9])])})
    report = convert_nuimages(raw, tmp_path / "set", NuimagesConfig(cameras=["CAM_FRONT_LEFT"], min_box_px=9))
    assert (report.images, report.groups["val"]) == ({"train": 4, "val": 1}, ["c"])
    assert all("CAM_FRONT_LEFT" in name for part in labels(tmp_path / "set").values() for name in part)
    with pytest.raises(DataError, match="has no CAM_ROOF: it has CAM_BACK, CAM_FRONT, CAM_FRONT_LEFT"):
        convert_nuimages(raw, tmp_path / "set", NuimagesConfig(cameras=["CAM_ROOF"]))


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    mini = tables("mini", list("abcdefghijkl"), [("vehicle.car", [0, 0, 160, 90])])
    rows = {row["token"]: row for table in ("sample", "sample_data") for row in mini[table]}
    rows["d-mini-a-CAM_FRONT"]["calibrated_sensor_token"] = "none"
    rows["mini-b-CAM_FRONT"]["log_token"] = "none"
    rows["mini-d-CAM_FRONT"]["key_camera_token"] = "none"
    rows["d-mini-e-CAM_FRONT"]["width"] = None
    own = {row["sample_data_token"]: row for row in mini["object_ann"]}
    own["d-mini-f-CAM_FRONT"]["category_token"] = "none"
    own["d-mini-g-CAM_FRONT"]["bbox"] = [1, 2]
    own["d-mini-h-CAM_FRONT"]["bbox"] = [9, 9, 9, 12]
    own["d-mini-i-CAM_FRONT"]["sample_data_token"] = "none"
    raw = write_raw(tmp_path / "raw", {"v1.0-mini": mini})
    front = raw / "samples" / "CAM_FRONT"
    (front / "j__CAM_FRONT__1.jpg").write_bytes(JPEG[:-20])
    (front / "k__CAM_FRONT__1.jpg").unlink()
    (front / "l__CAM_FRONT__1.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((90, 90, 3), np.uint8))[1].tobytes())
    report = convert_nuimages(raw, tmp_path / "set", NuimagesConfig(cameras=["CAM_FRONT"]))
    assert report.dropped == {
        "images whose rows cannot be read": 3,
        "samples whose image is not in sample_data": 1,
        "boxes that cannot be read": 4,  # among them that of the sample without an image
        "boxes without extent": 1,
        "images that are damaged": 1,
        "images that are missing": 1,
        "images whose aspect ratio does not fit their boxes": 1,
    }
    assert any("object_ann.json, o-mini-f-CAM_FRONT: category none" in problem for problem in report.problems)
    assert sum(report.images.values()) == 12 - 7


def test_wrong_tables_are_named(tmp_path: Path) -> None:
    mini = tables("mini", ["a", "b"], [])
    raw = write_raw(tmp_path / "raw", {"v1.0-mini": mini})
    mini["sample_data"][0]["filename"] = "samples/../../secret.jpg"
    (raw / "v1.0-mini" / "sample_data.json").write_text(json.dumps(mini["sample_data"]))
    with pytest.raises(DataError, match="secret"):
        convert_nuimages(raw, tmp_path / "set", NuimagesConfig())
    for row in mini["sample"]:
        row["key_camera_token"] += "-of-another-set"
    (raw / "v1.0-mini" / "sample.json").write_text(json.dumps(mini["sample"]))
    with pytest.raises(DataError, match=r"sample\.json: key_camera_token d-mini-a-CAM_FRONT-of-another-set is not in"):
        convert_nuimages(raw, tmp_path / "set", NuimagesConfig())
    (raw / "v1.0-mini" / "log.json").unlink()
    with pytest.raises(DataError, match=r"log\.json cannot be read"):
        convert_nuimages(raw, tmp_path / "set", NuimagesConfig())
    (raw / "v1.0-mini" / "log.json").write_text('[{"token": "l"}]')
    with pytest.raises(DataError, match=r"log\.json, row 1: no 'logfile'"):
        convert_nuimages(raw, tmp_path / "set", NuimagesConfig())
    (raw / "v1.0-mini" / "log.json").write_text('[{"token": "l", "logfile": "f"},\n{"token"')
    with pytest.raises(DataError, match=r"log\.json is not valid JSON after 1 entries"):
        convert_nuimages(raw, tmp_path / "set", NuimagesConfig())
    with pytest.raises(DataError, match=r"tables one folder deeper: name .*/raw as raw"):
        convert_nuimages(tmp_path, tmp_path / "set", NuimagesConfig())
    with pytest.raises(DataError, match="holds no v1"):
        convert_nuimages(tmp_path / "none", tmp_path / "set", NuimagesConfig())
    (raw / "v1.0-mini" / "sample_annotation.json").write_text("[]")
    with pytest.raises(DataError, match="holds nuScenes"):
        convert_nuimages(raw, tmp_path / "set", NuimagesConfig())


def archive(path: Path, members: dict[str, bytes], link: str = "") -> None:
    with tarfile.open(path, "w:gz") as opened:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            opened.addfile(info)


def test_archives_are_extracted_once_and_without_hostile_members(tmp_path: Path) -> None:
    given = write_raw(tmp_path / "given", {"v1.0-mini": tables("mini", ["a", "b"], [("vehicle.car", [0, 0, 9, 9])])})
    members = {str(path.relative_to(given)): path.read_bytes() for path in given.rglob("*.*") if path.is_file()}
    raw = tmp_path / "raw"
    raw.mkdir()
    archive(raw / "nuimages-v1.0-mini.tgz", members | {"sweeps/CAM_FRONT/s.jpg": JPEG})
    logged: list[str] = []
    extract_nuimages(raw, logged.append)
    extract_nuimages(raw, logged.append)
    assert (
        logged == ["Extracting nuimages-v1.0-mini.tgz", "nuimages-v1.0-mini.tgz: 13 files extracted"]
        and not (raw / "sweeps").exists()
    )
    assert convert_nuimages(raw, tmp_path / "set", NuimagesConfig()).images == {"train": 2, "val": 2}

    name = "samples/CAM_FRONT/x.jpg"
    archive(
        raw / "hostile.tgz",
        {name: JPEG, "../evil.jpg": JPEG, "samples/CAM_FRONT/../../evil.jpg": JPEG},
        "samples/CAM_FRONT/link.jpg",
    )
    extract_nuimages(raw, logged.append)
    assert logged[3:] == ["hostile.tgz: 1 files extracted"] and (raw / name).is_file()
    assert not list(tmp_path.rglob("evil.jpg")) and not list(raw.rglob("link.jpg")) and not list(raw.glob(".hostile*"))
    (raw / name).unlink()
    archive(raw / "hostile.tgz", {"../evil.jpg": JPEG})
    with pytest.raises(DataError, match=r"hostile\.tgz holds none of the expected files"):
        extract_nuimages(raw)
    (raw / "hostile.tgz").write_bytes((raw / "nuimages-v1.0-mini.tgz").read_bytes()[:-200])
    with pytest.raises(DataError, match=r"hostile\.tgz cannot be extracted"):
        extract_nuimages(raw)
