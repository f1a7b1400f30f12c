import random
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest

from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.split_files import write_split_file
from model.common.errors import DataError
from model.dataset.split_file import Split, read_fingerprint, read_split, write_split
from model.dataset.windows import WindowConfig
from model.evaluation.events import driven_ms, merge_ms, runs
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording
from model.recording.labels import future_labels, write_future_labels


def _same(first: Split, second: Split) -> bool:
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name), equal_nan=field.name == "targets")
        if isinstance(getattr(first, field.name), np.ndarray)
        else getattr(first, field.name) == getattr(second, field.name)
        for field in fields(Split)
    )


def test_a_flipped_bit_is_named_or_harmless(tmp_path: Path) -> None:
    path = write_split_file(tmp_path / "train.h5")
    whole, content, detected, chance = read_split(path), path.read_bytes(), 0, random.Random(0)
    for _ in range(60):
        place = chance.randrange(len(content) * 8)
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert _same(read_split(path), whole), f"bit {place} changed what is read, in silence"
        except DataError as error:
            assert str(path) in str(error)
            detected += 1
    assert detected > 30  # the others lie where nothing is


def test_a_file_that_is_missing_or_no_h5_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_split(tmp_path / "train.h5")
    (tmp_path / "train.h5").write_text("no H5")
    with pytest.raises(DataError, match="cannot be read as an H5 file"):
        read_split(tmp_path / "train.h5")


@pytest.mark.parametrize("name", ["features", "window", "schema_version", "fingerprint", "checksum"])
def test_a_changed_attribute_is_named(tmp_path: Path, name: str) -> None:
    path = write_split_file(tmp_path / "train.h5", frames=60)
    with h5py.File(path, "a") as file:
        file.attrs[name] = "5"
    for read in (read_split, read_fingerprint):
        with pytest.raises(DataError, match=r"train\.h5.*build the splits again"):
            read(path)


def test_windows_on_both_sides_of_a_clock_that_was_set_back_are_no_event_together(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "2024-05-01_10-00-00", rows=60)
    recording = Recording(folder)
    lines = recording.telemetry_path.read_text().splitlines()
    later = [line.replace(" 10-00-", " 09-59-") for line in lines[1:]]
    recording.telemetry_path.write_text("\n".join([*lines, *later]) + "\n")
    table, report = recording.telemetry()
    assert report.backwards == 1
    write_future_labels(recording.labels_path, future_labels(table))
    seen = Annotations.from_frames(table["Time"], table["Time"], [np.empty((0, 6), np.float32)] * len(table))
    write_annotations(recording.annotations_path, seen)
    write_split(tmp_path / "test.h5", [folder], WindowConfig(stride=1))
    split = read_split(tmp_path / "test.h5")
    assert split.clock_ms.tolist() == table["t"].tolist()
    assert (np.diff(split.time_ms) > 0).all()
    last_and_first = split.time_ms[[59, 60]]
    assert len(runs(np.array([True, True]), last_and_first, merge_ms(split.time_ms, split.recording))) == 2
    assert driven_ms(split.time_ms, split.recording) == 118 * 500 + 6_010  # a gap counts for some seconds at most
