"""The inbox sensor on a real instance: settled and complete recordings are requested once."""

import errno
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drive_assets.recordings import arrivals
from drive_assets.recordings import inbox as inbox_module
from drive_assets.recordings.arrivals import ArrivalRules
from drive_assets.recordings.inbox_memory import Content, Memory, read_content
from drive_assets.recordings.ingest import ingest
from drive_assets.recordings.sources import lookup
from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive
from drive_assets_tests.recordings.conftest import Sensor, find_recordings, sketch, write_zip
from model.common.config import fingerprint
from model.common.errors import DataError

DAYS = [f"2024-05-0{day}_10-00-00" for day in range(1, 6)]


class Scans:
    """The folders and zips that ticks scanned completely. Each scan takes `cost_s` by the clock of the ticks."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seconds, self.cost_s = 0.0, 2 * inbox_module.RESCAN_S

    def read(self, unit: Path) -> Content:
        self.names.append(unit.name)
        self.seconds += self.cost_s
        return read_content(unit)

    def of_last_tick(self) -> list[str]:
        names, self.names = self.names, []
        return names


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    scans = Scans()
    monkeypatch.setattr(arrivals, "clock", lambda: scans.seconds)
    monkeypatch.setattr(inbox_module, "read_content", scans.read)
    return scans


def test_a_missing_or_unreadable_inbox_is_reported(inbox: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(os, "scandir", lambda folder: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
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
        "2 without a recording: line\\nbreak (expected a zip or a folder with telemetry.csv); notes",
        "5 refused: closed cannot be read: Permission denied",
        f"{DAYS[2]}: it is a link to",
        f"broken.zip: {storage.inbox}/broken.zip is no complete zip",
        "linked.zip: it is a link to",
        "pipe.zip is no folder and no zip",
    ):
        assert text in inbox.text


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
    assert read_content(drive).version == plain_version(drive)
    assert sorted(read_content(drive).names or []) == sorted(path.name for path in drive.iterdir())
    zipped = Path(shutil.make_archive(str(storage.inbox / DAYS[1]), "zip", drive / "b"))
    assert read_content(zipped).version == plain_version(zipped)


def test_the_cursor_of_an_early_version_is_read(inbox: Sensor, storage: Storage) -> None:
    drive = write_drive(storage.inbox / DAYS[0], rows=4)
    write_drive(storage.inbox / DAYS[1], rows=4)
    inbox.cursor = json.dumps({DAYS[0]: plain_version(drive)})
    assert inbox.tick() == [DAYS[1]]


def test_requested_units_are_rescanned_in_turn_so_that_an_overwritten_frame_is_noticed(
    inbox: Sensor, storage: Storage, scans: Scans
) -> None:
    days = DAYS[:4]
    for day in days:
        sketch(storage.inbox, day)
    shutil.make_archive(str(storage.inbox / "2024-04-01_10-00-00"), "zip", storage.inbox / days[0])
    assert inbox.tick() == ["2024-04-01_10-00-00", *days]
    assert scans.of_last_tick() == ["2024-04-01_10-00-00.zip", *days]  # the zip never again: a glance misses nothing
    frame = next((storage.inbox / days[1]).glob("*.jpg"))
    frame.write_bytes(frame.read_bytes() * 2)
    (storage.inbox / days[3] / "telemetry.csv").write_text("Time\n")  # visible at a glance
    expected = [([days[0], days[3]], [days[3]]), ([days[1]], [days[1]]), ([days[2]], []), ([days[0]], [])]
    for scanned, requested in expected:
        assert (inbox.tick(), scans.of_last_tick()) == (requested, scanned)
    shutil.rmtree(storage.inbox / days[3])
    inbox.tick()
    memory = Memory.parse(inbox.cursor)
    assert [*memory.scanned][1:] == [days[2], days[0], days[1]] and set(memory.requested) > set(days)


def test_refused_units_are_reported_in_each_tick_and_rescanned_in_turn_or_after_a_change(
    inbox: Sensor, storage: Storage, scans: Scans, tmp_path: Path
) -> None:
    sketch(storage.inbox, DAYS[0])
    (storage.inbox / DAYS[1]).mkdir()
    (storage.inbox / "week.zip").write_bytes(b"PK")
    inbox.tick()
    assert scans.of_last_tick() == [DAYS[0], DAYS[1], "week.zip"]
    for turn in (DAYS[0], DAYS[1], "week.zip"):
        inbox.tick()
        assert scans.of_last_tick() == [turn]
        assert f"1 not complete: {DAYS[1]} lacks telemetry.csv and a frame (.jpg)" in inbox.text
        assert "1 refused: week.zip: " in inbox.text and "no complete zip" in inbox.text
    write_zip(storage.inbox / "week.zip", [sketch(tmp_path / "week", DAYS[2])])
    assert inbox.tick() == [DAYS[2]]


def test_units_that_are_not_settled_or_whose_name_is_in_use_are_scanned_in_each_tick(
    inbox: Sensor, storage: Storage, scans: Scans, tmp_path: Path
) -> None:
    inbox.clock.ahead = 0
    sketch(storage.inbox, DAYS[0])
    assert inbox.tick() == [] and "1 not settled" in inbox.text
    other = write_drive(tmp_path / "other" / DAYS[1], rows=3)
    ingest(storage, find_recordings(other)[0])
    sketch(storage.inbox, DAYS[1])
    inbox.clock.settle()
    assert inbox.tick() == [DAYS[0]] and scans.of_last_tick() == [DAYS[0], DAYS[0], DAYS[1]]
    shutil.rmtree(other)
    assert inbox.tick() == [DAYS[1]] and scans.of_last_tick() == [DAYS[0], DAYS[1]]


def test_a_tick_ends_in_time_and_the_next_continues_there(inbox: Sensor, storage: Storage, scans: Scans) -> None:
    for day in DAYS:
        sketch(storage.inbox / "week" if day == DAYS[3] else storage.inbox, day)
    for day in DAYS[:2]:  # scanned in each tick: the names are in use
        sketch(storage.recordings, day, rows=2)
    inbox.rules = ArrivalRules(slice_s=1.5 * scans.cost_s)
    assert (inbox.tick(), scans.of_last_tick()) == ([], DAYS[:2])
    assert f"1 left for the next tick: {DAYS[2]} and 2 more" in inbox.text
    assert inbox.tick() == scans.of_last_tick() == [DAYS[2], DAYS[4]]
    assert (inbox.tick(), scans.of_last_tick()) == ([DAYS[3]], [DAYS[2], DAYS[3]])  # one rescan, and the one left
    inbox.tick()
    assert scans.of_last_tick() == [DAYS[4], DAYS[0]]
    shutil.rmtree(storage.inbox / DAYS[1])  # where the next tick would start
    inbox.tick()
    assert scans.of_last_tick() == [DAYS[2], DAYS[0]]


def test_a_refused_recording_of_a_zip_does_not_stop_the_others(inbox: Sensor, storage: Storage) -> None:
    with zipfile.ZipFile(storage.inbox / "week.zip", "w") as archive:
        for day, telemetry in ((DAYS[0], ["telemetry.csv", "Telemetry.CSV"]), (DAYS[1], ["telemetry.csv"])):
            for file in [*telemetry, "1.jpg"]:
                archive.writestr(f"{day}/{file}", file)
    assert inbox.tick() == [DAYS[1]]
    inbox.tick()
    assert "1 refused: week.zip: " in inbox.text
