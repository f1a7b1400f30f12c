"""Public data sets, on files of their layouts."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from drive_assets_tests.model.imports.importing import imported
from drive_assets_tests.model.imports.videos import START, make_video
from model.common.errors import DataError
from model.imports import l2d, zod

CAMERA = "observation.images.front_left"


def zod_sequence(folder: Path, seconds: int = 20, start: float = START) -> Path:
    """Frames at 10 Hz, signals at 100 Hz that begin 5 s before: speed rises, brake for 60 ms at 3.15 s."""
    (folder / "camera_front_blur").mkdir(parents=True)
    for number in range(seconds * 10):
        moment = datetime.fromtimestamp(start + number / 10, UTC)
        picture = np.full((54, 96, 3), number, np.uint8)
        name = f"000002_romeo_{moment:%Y-%m-%dT%H:%M:%S.%f}Z.jpg"
        cv2.imwrite(str(folder / "camera_front_blur" / name), picture)
    t = np.arange(-5, seconds + 5, 0.01)
    nanoseconds = np.round((start + t) * 1e9).astype(np.int64)
    with h5py.File(folder / "vehicle_data.hdf5", "w") as file:
        controls, data = file.create_group("ego_vehicle_controls"), file.create_group("ego_vehicle_data")
        for group in (controls, data):
            group["timestamp/nanoseconds/value"] = nanoseconds
        controls["acceleration_pedal/ratio/unitless/value"] = np.float32(np.clip(t, 0, 100))
        pressed = (t > 3.12) & (t < 3.18)
        controls["brake_pedal_pressed/is_brake_pedal_pressed/unitless/value"] = pressed.astype(np.uint8)
        data["lon_vel_data/velocity/meters_per_second/value"] = np.float32(t + 5)
    (folder / "info.json").write_text("{}")
    return folder


def test_zod_sequences(tmp_path: Path) -> None:
    zod_sequence(tmp_path / "in" / "sequences" / "000002")
    zod_sequence(tmp_path / "in" / "drives" / "000010", start=START + 3600)
    later, first = sorted(imported(zod.IMPORTER, tmp_path / "in", tmp_path / "out"), key=lambda each: each.name)[::-1]
    assert (first.name, later.name) == ("2024-05-31_08-15-00", "2024-05-31_09-15-00")
    t = np.arange(0, 20, 0.5)
    np.testing.assert_allclose(first.rows["SPEED"][:40], (t + 5) * 3.6, atol=0.05)
    np.testing.assert_allclose(first.rows["ACCELERATOR_POS_D"][:40], t, atol=0.02)
    np.testing.assert_allclose(first.grey[:40], np.arange(0, 200, 5), atol=2)
    assert first.rows.index[first.rows["BRAKE_SIGNAL"]].tolist() == [7]
    again = imported(zod.IMPORTER, tmp_path / "in" / "sequences", tmp_path / "again")[0]
    assert again.origin["drive"] == first.origin["drive"] != later.origin["drive"]
    assert first.origin["licence"] == "CC BY-SA 4.0"
    assert "Zenseact" in first.origin["attribution"]


def test_zod_with_parts_missing(tmp_path: Path) -> None:
    place = zod_sequence(tmp_path / "in" / "000002", 2)
    with h5py.File(place / "vehicle_data.hdf5", "a") as file:
        del file["ego_vehicle_controls/acceleration_pedal"]
    with pytest.raises(DataError, match=r"vehicle_data.hdf5 lacks ego_vehicle_controls/acceleration_pedal/ratio"):
        imported(zod.IMPORTER, place, tmp_path / "1")
    (place / "vehicle_data.hdf5").write_bytes(b"")
    with pytest.raises(DataError, match=r"vehicle_data.hdf5 cannot be read.*download it again"):
        imported(zod.IMPORTER, place, tmp_path / "2")
    (place / "camera_front_blur").rename(place / "camera_front")
    with pytest.raises(DataError, match="000002 has no frames: expected one of the folders camera_front_blur"):
        imported(zod.IMPORTER, place, tmp_path / "3")


def l2d_data_set(folder: Path, *episodes: tuple[str, float, int], version: str = "v3.0") -> Path:
    """A LeRobot data set of `episodes`: session, s of the first frame, frames at 10 Hz. Of a session, speed (km/h) and
    the frames' grey are s since its start; the brake is pressed where s is in [4, 5)."""
    features: dict[str, Any] = {name: {} for name in (CAMERA, l2d.VEHICLE, l2d.ACTIONS, l2d.CLOCK)}
    (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(
        json.dumps({"codebase_version": version, "fps": 10, "features": features})
    )
    rows, table = [], []
    seconds: list[float] = []
    for index, (session, start, length) in enumerate(episodes):
        place = {"chunk_index": 0, "file_index": 0}
        table.append(
            {"episode_index": index, "length": length, "session_id": session}
            | {f"data/{key}": value for key, value in place.items()}
            | {f"videos/{CAMERA}/{key}": value for key, value in place.items()}
            | {f"videos/{CAMERA}/from_timestamp": len(seconds) / 10}
        )
        for number in range(length):
            t = start + number / 10
            vehicle, brake = np.array([t, 0, 0, 0, 0, 0, 0, 0], np.float32), 0.3 * (4 <= t < 5)
            clock = round((START + t) * 1e9)
            actions = np.array([t / 100, brake, 0], np.float32)
            rows.append({"episode_index": index, l2d.CLOCK: clock, l2d.VEHICLE: vehicle, l2d.ACTIONS: actions})
            seconds.append(t)
    pd.DataFrame(table).to_parquet(folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    data, video = (folder / kind / "chunk-000" for kind in ("data", f"videos/{CAMERA}"))
    data.mkdir(parents=True)
    video.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(data / "file-000.parquet")
    make_video(
        video / "file-000.mp4",
        len(seconds) / 10,
        10,
        picture=lambda number: np.full((180, 320, 3), min(255, round(seconds[number] * 4)), np.uint8),
    )
    return folder


def test_l2d_episodes_of_a_session_join_without_frames_twice(tmp_path: Path) -> None:
    folder = l2d_data_set(
        tmp_path / "in", ("b", 15, 300), ("a", 0, 300), ("b", 0, 300), ("a", 30, 100), ("a", 400, 100)
    )
    drives = imported(l2d.IMPORTER, folder, tmp_path / "out")
    assert [drive.name for drive in drives] == [f"2024-05-31_{time}" for time in ("10-15-00", "10-21-40", "10-15-00")]
    assert drives[0].origin["drive"] == drives[1].origin["drive"] != drives[2].origin["drive"]
    for drive, t in zip(drives, (np.arange(0, 40, 0.5), np.arange(400, 410, 0.5), np.arange(0, 45, 0.5)), strict=True):
        rows = drive.rows.iloc[: len(t)]
        assert len(drive.rows) <= len(t) + 1
        np.testing.assert_allclose(rows["SPEED"], t, atol=0.01)
        np.testing.assert_allclose(drive.grey[: len(t)], np.minimum(255, t * 4), atol=4)
        np.testing.assert_allclose(rows["ACCELERATOR_POS_D"], t, atol=0.01)
        assert t[rows["BRAKE_SIGNAL"]].tolist() == ([4.0, 4.5, 5.0] if t[0] == 0 else [])
        assert drive.origin["licence"] == "Apache-2.0"
        assert drive.origin["drivetrain"] == "electric"


def test_l2d_with_parts_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"info.json: version v2.1: expected v3"):
        l2d.IMPORTER.find(l2d_data_set(tmp_path / "old", ("a", 0, 20), version="v2.1"), {})
    folder = l2d_data_set(tmp_path / "in", ("a", 0, 50))
    video = folder / "videos" / CAMERA / "chunk-000" / "file-000.mp4"
    video.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"file-000.mp4 cannot be read"):
        imported(l2d.IMPORTER, folder, tmp_path / "1")
    video.unlink()
    l2d._episodes.cache_clear()
    with pytest.raises(DataError, match="has the data and the front camera's video of no episode"):
        l2d.IMPORTER.find(folder, {})
    video.write_bytes(b"")
    (folder / "data" / "chunk-000" / "file-000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"file-000.parquet cannot be read as Parquet"):
        l2d.IMPORTER.find(folder, {})
    (folder / "meta" / "info.json").write_text("[]")
    with pytest.raises(DataError, match=r"info.json does not describe a LeRobot data set"):
        l2d.IMPORTER.find(folder, {})
