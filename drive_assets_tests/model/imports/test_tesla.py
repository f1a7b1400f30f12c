"""Clips of a Tesla, made by x264 with SEI messages that Google's protobuf library writes."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from drive_assets_tests.model.imports.importing import imported, real
from drive_assets_tests.model.imports.videos import make_video
from model.common.errors import DataError
from model.imports.tesla import IMPORTER

TYPES = {
    "uint32": ["version"],
    "enum": ["gear_state"],
    "uint64": ["frame_seq_no"],
    "float": ["vehicle_speed_mps", "accelerator_pedal_position", "steering_wheel_angle"],
    "bool": ["blinker_on_left", "blinker_on_right", "brake_applied"],
    "enum ": ["autopilot_state"],
    "double": ["latitude_deg", "longitude_deg", "heading_deg", *(f"linear_acceleration_mps2_{axis}" for axis in "xyz")],
}
"""Fields of Tesla's message, in the order of their numbers."""


def message_class() -> type:
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
    states = file.enum_type.add(name="State")
    for number in range(4):
        states.value.add(name=f"STATE_{number}", number=number)
    message = file.message_type.add(name="Sei")
    names = [(name, kind.strip()) for kind, names in TYPES.items() for name in names]
    for number, (name, kind) in enumerate(names, start=1):
        message.field.add(
            name=name,
            number=number,
            type=f"TYPE_{kind.upper()}",
            label="LABEL_OPTIONAL",
            type_name=".test.State" if kind == "enum" else None,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Sei"))


MESSAGE = message_class()


def message(number: int) -> bytes:
    """Of a frame, 20 a second: the brake is touched in the 33rd only, reversed for 3 s, then with autopilot."""
    content = MESSAGE(
        version=1,
        gear_state=2 if number < 60 else 1,
        frame_seq_no=number,
        vehicle_speed_mps=number / 10,
        accelerator_pedal_position=number / 4,
        steering_wheel_angle=-166.4,
        brake_applied=number == 33,
        autopilot_state=3 if number >= 180 else 0,
        latitude_deg=48.1,
    )
    return b"\x42" * 3 + b"\x69" + content.SerializeToString()


def clip(folder: Path, time: str, **options: object) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"2024-05-31_{time}-front.mp4"
    return make_video(path, start="", message=message, **options)  # type: ignore[arg-type]


def test_signals_and_frames_are_in_step(tmp_path: Path) -> None:
    (drive,) = imported(IMPORTER, clip(tmp_path, "08-15-00"), tmp_path / "out")
    assert drive.name == "2024-05-31_08-15-00"
    rows, frames = drive.rows, np.arange(0, 200, 10)
    assert rows["Time"].iloc[3] == "2024-05-31 08-15-01-500"
    np.testing.assert_allclose(rows["SPEED"], frames / 10 * 3.6, atol=0.01)
    np.testing.assert_allclose(rows["ACCELERATOR_POS_D"], frames / 4, atol=0.01)
    np.testing.assert_allclose(drive.grey, frames, atol=3)
    assert rows.index[rows["BRAKE_SIGNAL"]].tolist() == [4]  # touched for 50 ms between two rows
    assert rows["REVERSE"].tolist() == [True] * 6 + [True] + [False] * 13
    assert rows["ASSISTANCE"].tolist() == [False] * 18 + [True] * 2
    assert drive.origin["drivetrain"] == "electric"
    assert drive.region == {"x": 0, "y": 0, "width": 320, "height": 180}
    assert drive.origin["videos"][0]["start"] == 1_717_143_300.0


def test_clips_of_a_drive_join_and_a_bad_one_loses_no_other(tmp_path: Path) -> None:
    card = tmp_path / "TeslaCam"
    first = clip(card / "RecentClips", "08-15-00")
    clip(card / "RecentClips", "08-15-11")  # at once after the first: names have whole seconds
    saved = card / "SavedClips" / "2024-05-31_08-15-30"
    clip(saved, "08-17-00")
    shutil.copy(first, saved)
    shutil.copy(first, saved / first.name.replace("front", "back"))
    (saved / "2024-05-31_08-16-00-front.mp4").write_bytes(bytes(range(256)) * 40)
    (saved / "2024-05-31_08-18-00-front.mp4").write_bytes(b"")
    clip(card / "RecentClips", "09-30-00")
    first_drive, second_drive = imported(IMPORTER, card, tmp_path / "out")
    assert len(first_drive.rows) == 61  # the last frame before the gap is one
    assert len(second_drive.rows) == 20
    steps = pd.to_datetime(first_drive.rows["Time"], format="%Y-%m-%d %H-%M-%S-%f").diff().dt.total_seconds()
    assert steps.max() == pytest.approx(100.05)
    assert sorted(steps.dropna())[-2] == 0.5
    assert "100 s are missing before 2024-05-31_08-17-00-front.mp4" in first_drive.notes
    assert "08-16-00-front.mp4 is encrypted or damaged" in first_drive.notes
    assert "08-18-00-front.mp4 is empty" in first_drive.notes
    assert any("is encrypted" in line for line in first_drive.log)


def test_clips_imported_one_at_a_time_are_of_one_drive(tmp_path: Path) -> None:
    clips = [clip(tmp_path / "in", time) for time in ("08-15-00", "08-16-00", "09-30-00")]
    first, second, later = (imported(IMPORTER, each, tmp_path / each.stem)[0].origin["drive"] for each in clips)
    assert first == second != later


def test_clips_that_give_nothing_say_what_to_do(tmp_path: Path) -> None:
    encrypted = tmp_path / "2024-05-31_08-15-00-front.mp4"
    encrypted.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(DataError, match=r"08-15-00-front.mp4 is encrypted or damaged.*Save a decrypted copy"):
        imported(IMPORTER, encrypted, tmp_path / "1")
    make_video(encrypted, 2.0)
    with pytest.raises(DataError, match=r"has no signals in its stream.*2025.44.25"):
        imported(IMPORTER, encrypted, tmp_path / "2")
    encrypted.write_bytes(encrypted.read_bytes()[:3000])
    with pytest.raises(DataError, match="cannot be read"):
        imported(IMPORTER, encrypted, tmp_path / "3")
    encrypted.rename(tmp_path / "other.mp4")
    assert IMPORTER.find(tmp_path, {}) == []


def test_a_renamed_clip_is_found_by_its_signals(tmp_path: Path) -> None:
    clip(tmp_path / "clips", "08-15-00", seconds=2.0).rename(tmp_path / "clips" / "holiday.mp4")
    (drive,) = imported(IMPORTER, tmp_path / "clips", tmp_path / "out")
    assert "holiday.mp4 has none in its name" in drive.notes


def test_frames_of_a_real_drive_with_made_messages(tmp_path: Path) -> None:
    folder = real("tesla")
    truth = pd.read_csv(folder / "synthetic-sei_truth.csv")
    (drive,) = imported(IMPORTER, folder, tmp_path / "out")
    at = truth.iloc[::10]
    np.testing.assert_allclose(drive.rows["SPEED"], at["speed_mps"] * 3.6, atol=0.006)
    np.testing.assert_allclose(drive.rows["ACCELERATOR_POS_D"], at["accel_pedal"], atol=0.006)
    pressed = [truth["brake"][max(0, frame - 9) : frame + 1].any() for frame in at["frame"]]
    assert drive.rows["BRAKE_SIGNAL"].tolist() == pressed
    assert not drive.rows["ASSISTANCE"].any()
