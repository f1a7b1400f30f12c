"""The inbox sensor on a real instance: settled and complete recordings are requested once."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock, call

import pytest

from drive_assets.recordings.arrivals import ArrivalRules
from drive_assets.recordings.inbox import Memory, read_version
from drive_assets.recordings.ingest import ingest
from drive_assets.recordings.sources import lookup
from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive
from drive_assets_tests.recordings.conftest import Sensor, find_recordings, sketch, write_zip
from model.common.config import fingerprint
from model.common.errors import DataError

DAYS = [f"2024-05-0{day}_10-00-00" for day in range(1, 6)]


def test_a_missing_or_unreadable_inbox_is_reported(inbox: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(Path, "iterdir", lambda folder: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        assert inbox.tick() == [] and inbox.text == f"{inbox.storage.inbox} cannot be read: Input/output error."
    inbox.storage.inbox.rmdir()
    assert inbox.tick() == [] and "create it and drop recordings there" in inbox.text


def test_the_settling_time_counts_from_the_copy_whatever_times_the_files_have(inbox: Sensor, storage: Storage) -> None:
    drive = write_drive(storage.inbox / DAYS[0], rows=4)
    for path in [drive, *drive.iterdir()]:
        os.utime(path, (0, 0))  # as `cp -p` and `rsync -t` set them
    inbox.clock.ahead = 0
    assert inbox.tick() == []
    assert f"1 not settled: {DAYS[0]} changed 0 s ago (settling time 10 min)" in inbox.text


def test_a_settled_recording_is_requested_once_and_again_after_a_change(inbox: Sensor, storage: Storage) -> None:
    drive = write_drive(storage.inbox / DAYS[0], rows=4)
    assert inbox.tick() == [DAYS[0]]
    first = inbox.keys
    assert inbox.tick() == []
    (drive / "telemetry.csv").write_text((drive / "telemetry.csv").read_text() + "\n")
    assert inbox.tick() == [DAYS[0]]
    assert inbox.keys != first


def test_other_things_are_named_and_do_not_stop_the_recordings(
    inbox: Sensor, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (DAYS[1], "notes", "closed", "line\nbreak"):
        (storage.inbox / name).mkdir()
    (storage.inbox / "broken.zip").write_bytes(b"PK")
    (storage.inbox / "linked.zip").symlink_to(tmp_path / "none.zip")
    (storage.inbox / DAYS[2]).symlink_to(write_drive(tmp_path / "elsewhere" / DAYS[2], rows=2))
    os.mkfifo(storage.inbox / "pipe.zip")
    write_drive(storage.inbox / DAYS[3], rows=2)
    list_folder = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert inbox.tick() == [DAYS[3]]
    assert inbox.tick() == []
    for text in (
        f"1 not complete: {DAYS[1]} lacks telemetry.csv and a frame (.jpg)",
        "2 without a recording: linked.zip holds no recording",
        "closed cannot be read: Permission denied",
        "line\\nbreak has control characters in its path",
        f"{DAYS[2]}: it is a link to",
        f"broken.zip: {storage.inbox}/broken.zip is no complete zip",
        "pipe.zip is no regular file",
    ):
        assert text in inbox.text
    (storage.inbox / "broken.zip").unlink()
    write_zip(storage.inbox / "broken.zip", [sketch(tmp_path / "week", DAYS[0])])
    assert inbox.tick() == [DAYS[0]]


def test_a_zip_of_several_recordings_and_a_folder_of_several(inbox: Sensor, storage: Storage, tmp_path: Path) -> None:
    write_zip(storage.inbox / "week.zip", [write_drive(tmp_path / day, rows=3) for day in DAYS[:3]], "week/{name}/")
    for day in DAYS[3:]:
        write_drive(storage.inbox / "more" / day, rows=3)
    assert inbox.tick() == DAYS
    assert ingest(storage, lookup(storage, DAYS[1])).content.usable_frames == 3


def test_a_tick_requests_a_limited_number_and_the_next_continues(inbox: Sensor, storage: Storage) -> None:
    for day in DAYS:
        sketch(storage.inbox, day)
    inbox.rules = ArrivalRules(most_a_tick=2)
    assert [inbox.tick() for _ in range(4)] == [DAYS[:2], DAYS[2:4], DAYS[4:], []]


def test_a_recording_from_elsewhere_with_other_content_is_not_replaced(
    inbox: Sensor, storage: Storage, tmp_path: Path
) -> None:
    other = write_drive(tmp_path / "other" / DAYS[0], rows=6)
    ingest(storage, find_recordings(other)[0])
    new = write_drive(storage.inbox / DAYS[0], rows=4)
    assert inbox.tick() == []
    assert f"{DAYS[0]} exists already from {other} with other content than {new}" in inbox.text
    shutil.rmtree(other)  # frees the name; the earlier version will be moved aside
    assert inbox.tick() == [DAYS[0]]


def test_two_units_with_one_name(inbox: Sensor, storage: Storage) -> None:
    drive = write_drive(storage.inbox / DAYS[0], rows=4)
    shutil.make_archive(str(storage.inbox / DAYS[0]), "zip", drive)
    (drive / "telemetry.csv").write_text("Time\n")
    assert inbox.tick() == [DAYS[0]]
    assert inbox.tick() == []
    assert f"than {storage.inbox / DAYS[0]}.zip" in inbox.text
    assert set(Memory.parse(inbox.cursor).requested) == {DAYS[0]}


def test_the_settling_time_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_SETTLING_S", "90")
    assert ArrivalRules.from_environment().settling_s == 90
    monkeypatch.setenv("DRIVE_ASSETS_SETTLING_S", "soon")
    with pytest.raises(DataError, match="DRIVE_ASSETS_SETTLING_S"):
        ArrivalRules.from_environment()


def plain_version(unit: Path) -> str:
    """The identity of a folder's or zip's files, on which the run keys of all installations depend."""
    paths = [unit, *sorted(unit.rglob("*"))] if unit.is_dir() else [unit]
    stats = [(path, path.lstat()) for path in paths]
    return fingerprint(
        [(str(path.relative_to(unit.parent)), s.st_size, s.st_mtime_ns) for path, s in stats if stat.S_ISREG(s.st_mode)]
    )


def test_the_version_of_content_is_that_of_earlier_requests(inbox: Sensor, storage: Storage) -> None:
    drive = write_drive(storage.inbox / DAYS[0], rows=4)
    for folder in ("b", "b/c", "b c", "b.d", "B", "z", "empty"):  # b/c comes after "b c" as text, before it as a path
        (drive / folder).mkdir()
        (drive / folder / "x.txt").write_text(folder)
    (drive / "empty" / "x.txt").unlink()
    for name in ("b-c", "b!", ".hidden", "Ü", "b/.x", os.fsdecode(b"latin-\xe4")):
        (drive / name).write_text(name.encode("utf-8", "replace").decode())
    (drive / "link").symlink_to(drive / "b")
    (drive / "broken").symlink_to(drive / "none")
    os.mkfifo(drive / "pipe")
    assert read_version(drive)[0] == plain_version(drive)
    zipped = Path(shutil.make_archive(str(storage.inbox / DAYS[1]), "zip", drive / "b"))
    assert read_version(zipped)[0] == plain_version(zipped)


@pytest.mark.parametrize("name", ["telemetry.csv", "roi.json", "reading.json", "more.jpg"])
def test_a_change_is_noticed_at_a_glance_and_nothing_else_is_read(
    inbox: Sensor, storage: Storage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for day in DAYS[:2]:
        sketch(storage.inbox, day)
        (storage.inbox / day / "roi.json").write_text("{}")
        (storage.inbox / day / "reading.json").write_text("{}")
    assert inbox.tick() == DAYS[:2]
    read = Mock(side_effect=read_version)
    monkeypatch.setattr("drive_assets.recordings.inbox.read_version", read)
    (storage.inbox / DAYS[1] / name).write_text("changed")
    assert inbox.tick() == [DAYS[1]]
    assert read.call_args_list == [call(storage.inbox / DAYS[1])]
    shutil.rmtree(storage.inbox / DAYS[1])
    inbox.tick()
    assert [*Memory.parse(inbox.cursor).scanned] == [DAYS[0]]


def test_what_is_scanned_in_vain_does_not_hold_up_the_others(inbox: Sensor, storage: Storage) -> None:
    (storage.inbox / DAYS[0]).mkdir()
    for day in DAYS[1:3]:
        sketch(storage.inbox, day)
    inbox.rules = ArrivalRules(slice_s=0)
    assert [inbox.tick() for _ in range(3)] == [[], [DAYS[1]], [DAYS[2]]]


@pytest.mark.parametrize("cursor", ['{"requested": {}}', "nonsense", "", "QlpoOTE="])
def test_a_cursor_that_cannot_be_read_counts_as_none(inbox: Sensor, storage: Storage, cursor: str) -> None:
    sketch(storage.inbox, DAYS[0])
    inbox.cursor = cursor
    assert inbox.tick() == [DAYS[0]]


def test_a_tick_ends_in_time_and_the_next_continues(inbox: Sensor, storage: Storage) -> None:
    for day in DAYS[:3]:
        sketch(storage.inbox / "week" if day == DAYS[1] else storage.inbox, day)
    inbox.rules = ArrivalRules(slice_s=0)
    assert [inbox.tick() for _ in range(3)] == [[DAYS[0]], [DAYS[2]], [DAYS[1]]]
