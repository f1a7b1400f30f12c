"""The inbox sensor on a real instance: what is settled and complete is requested once."""

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.recordings import arrivals, inbox
from drive_assets.recordings.arrivals import ArrivalRules
from drive_assets.recordings.inbox import inbox_sensor
from drive_assets.recordings.inbox_memory import Content, Memory, read_content
from drive_assets.recordings.ingest import ingest
from drive_assets.recordings.sources import lookup
from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive
from drive_assets_tests.recordings.conftest import Clock, find_recordings, sketch
from model.common.config import fingerprint
from model.common.errors import DataError

NAME, OTHER = "2024-05-01_10-00-00", "2024-05-02_10-00-00"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Eleven minutes from now: all that is there is settled."""
    real = arrivals.now
    monkeypatch.setattr(arrivals, "now", lambda: real() + 660)
    yield


class Looks:
    """The folders and zips that ticks looked at in whole. Each look takes `cost_s` by the clock of the ticks."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seconds, self.cost_s = 0.0, 2 * inbox.AGAIN_S

    def read(self, unit: Path) -> Content:
        self.names.append(unit.name)
        self.seconds += self.cost_s
        return read_content(unit)

    def of_last_tick(self) -> list[str]:
        names, self.names = self.names, []
        return names


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(arrivals, "clock", lambda: looks.seconds)
    monkeypatch.setattr(inbox, "read_content", looks.read)
    return looks


def tick(
    instance: dg.DagsterInstance, storage: Storage, cursor: str | None = None, rules: ArrivalRules | None = None
) -> dg.SensorResult | dg.SkipReason:
    resources = {"storage": storage, "arrival_rules": rules or ArrivalRules()}
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
        result = inbox_sensor(context)
    assert isinstance(result, (dg.SensorResult, dg.SkipReason))
    return result


def names(result: dg.SensorResult | dg.SkipReason) -> list[str | None]:
    return (
        [request.partition_key for request in result.run_requests or []] if isinstance(result, dg.SensorResult) else []
    )


def cursor_of(result: dg.SensorResult | dg.SkipReason) -> str:
    assert isinstance(result, dg.SensorResult)
    return result.cursor or ""


def reason(result: dg.SensorResult | dg.SkipReason) -> str:
    skip = result if isinstance(result, dg.SkipReason) else result.skip_reason
    return str(getattr(skip, "skip_message", skip))


def test_a_missing_inbox_says_what_to_do(instance: dg.DagsterInstance, storage: Storage) -> None:
    assert "make it and drop recordings there" in reason(tick(instance, storage))


def test_a_recording_is_not_taken_before_it_is_settled_whatever_times_its_files_have(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    drive = write_drive(storage.inbox / NAME, rows=4)
    for path in [drive, *drive.iterdir()]:
        os.utime(path, (0, 0))  # as `cp -p` and `rsync -t` leave them
    result = tick(instance, storage)
    assert names(result) == []
    assert f"1 not settled: {NAME} changed 0 s ago, 10 min are waited for" in reason(result)


def test_a_settled_recording_is_requested_once_and_again_when_it_changed(
    instance: dg.DagsterInstance, storage: Storage, later: None
) -> None:
    drive = write_drive(storage.inbox / NAME, rows=4)
    result = tick(instance, storage)
    assert isinstance(result, dg.SensorResult)
    assert names(result) == [NAME]
    assert [list(add.partition_keys) for add in result.dynamic_partitions_requests or []] == [[NAME]]
    assert names(tick(instance, storage, result.cursor)) == []
    (drive / "telemetry.csv").write_text((drive / "telemetry.csv").read_text() + "\n")
    changed = tick(instance, storage, result.cursor)
    assert isinstance(changed, dg.SensorResult)
    assert (changed.run_requests or [])[0].run_key != (result.run_requests or [])[0].run_key


def test_what_is_no_recording_does_not_stop_the_others_and_is_named(
    instance: dg.DagsterInstance, storage: Storage, later: None
) -> None:
    write_drive(storage.inbox / NAME, rows=4)
    (storage.inbox / OTHER).mkdir()
    (storage.inbox / "notes").mkdir()
    (storage.inbox / "broken.zip").write_bytes(b"PK")
    result = tick(instance, storage)
    assert isinstance(result, dg.SensorResult)
    assert names(result) == [NAME]
    told = reason(tick(instance, storage, result.cursor))
    assert f"1 not complete: {OTHER} lacks telemetry.csv and a frame (.jpg)" in told
    assert "1 without a recording: notes" in told
    assert "1 refused: broken.zip: " in told and "no whole zip" in told


def test_a_zip_of_several_recordings_and_a_folder_of_several(
    instance: dg.DagsterInstance, storage: Storage, later: None, tmp_path: Path
) -> None:
    days = [f"2024-05-0{day}_10-00-00" for day in range(1, 6)]
    storage.inbox.mkdir(parents=True)
    with zipfile.ZipFile(storage.inbox / "week.zip", "w") as archive:
        for day in days[:3]:
            for path in write_drive(tmp_path / day, rows=3).iterdir():
                archive.write(path, f"week/{day}/{path.name}")
    for day in days[3:]:
        write_drive(storage.inbox / "more" / day, rows=3)
    assert sorted(map(str, names(tick(instance, storage)))) == days
    assert ingest(storage, lookup(storage, days[1])).content.usable_frames == 3


def test_a_tick_requests_a_bounded_number_and_the_next_goes_on(
    instance: dg.DagsterInstance, storage: Storage, later: None
) -> None:
    for day in range(1, 6):
        write_drive(storage.inbox / f"2024-05-0{day}_10-00-00", rows=2)
    found: list[str | None] = []
    cursor: str | None = None
    for expected in (2, 2, 1, 0):
        result = tick(instance, storage, cursor, ArrivalRules(most_a_tick=2))
        assert isinstance(result, dg.SensorResult)
        assert len(names(result)) == expected
        found, cursor = found + names(result), result.cursor
    assert len(set(found)) == 5


def test_a_recording_that_is_there_from_elsewhere_with_other_content_is_not_replaced(
    instance: dg.DagsterInstance, storage: Storage, later: None, tmp_path: Path
) -> None:
    given = write_drive(tmp_path / "given" / NAME, rows=6)
    ingest(storage, find_recordings(given)[0])
    write_drive(storage.inbox / NAME, rows=4)
    result = tick(instance, storage)
    assert names(result) == []
    assert f"{NAME} is there already from {given} with other content than {storage.inbox / NAME}" in reason(result)
    shutil.rmtree(given)  # the first is gone: the name is free, and the earlier version will be kept aside
    assert names(tick(instance, storage)) == [NAME]


def test_two_that_claim_one_name(instance: dg.DagsterInstance, storage: Storage, later: None) -> None:
    drive = write_drive(storage.inbox / NAME, rows=4)
    shutil.make_archive(str(storage.inbox / NAME), "zip", drive)
    (drive / "telemetry.csv").write_text("Time\n")
    result = tick(instance, storage)
    assert isinstance(result, dg.SensorResult)
    assert names(result) == [NAME]
    assert f"than {storage.inbox / NAME}.zip" in reason(tick(instance, storage, result.cursor))
    assert set(Memory.parse(result.cursor).requested) == {NAME}


def test_the_settling_time_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_SETTLING_S", "90")
    assert ArrivalRules.from_environment().settling_s == 90
    monkeypatch.setenv("DRIVE_ASSETS_SETTLING_S", "soon")
    with pytest.raises(DataError, match="DRIVE_ASSETS_SETTLING_S must be a number of seconds"):
        ArrivalRules.from_environment()


def test_one_that_is_odd_is_told_and_the_others_go_on(
    instance: dg.DagsterInstance, storage: Storage, later: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_drive(storage.inbox / NAME, rows=2)
    (storage.inbox / "linked.zip").symlink_to(tmp_path / "none.zip")
    write_drive(tmp_path / "elsewhere" / OTHER, rows=2)
    (storage.inbox / OTHER).symlink_to(tmp_path / "elsewhere" / OTHER)
    os.mkfifo(storage.inbox / "pipe.zip")
    (storage.inbox / "closed").mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    result = tick(instance, storage)
    assert isinstance(result, dg.SensorResult)
    assert names(result) == [NAME]
    told = reason(tick(instance, storage, result.cursor))
    assert "closed cannot be read: Permission denied" in told
    assert "linked.zip: it is a link to" in told and f"{OTHER}: it is a link to" in told
    assert "pipe.zip is no folder and no zip" in told


def plain_version(unit: Path) -> str:
    """The identity of a folder's or zip's files, as it always was."""
    paths = [unit, *sorted(unit.rglob("*"))] if unit.is_dir() else [unit]
    stats = [(path, path.lstat()) for path in paths]
    return fingerprint(
        [(str(path.relative_to(unit.parent)), s.st_size, s.st_mtime_ns) for path, s in stats if stat.S_ISREG(s.st_mode)]
    )


def test_the_version_of_content_is_what_it_was_when_earlier_ones_were_requested(storage: Storage) -> None:
    drive = write_drive(storage.inbox / NAME, rows=4)
    for nested in ("b", "b/c", "b c", "b.d", "B", "z", "empty"):  # b/c comes after "b c" as text, before it as a path
        (drive / nested).mkdir()
        (drive / nested / "x.txt").write_text(nested)
    (drive / "empty" / "x.txt").unlink()
    for name in ("b-c", "b!", ".hidden", "Ü", "b/.x", os.fsdecode(b"latin-\xe4")):
        (drive / name).write_text(name.encode("utf-8", "replace").decode())
    (drive / "link").symlink_to(drive / "b")
    (drive / "broken").symlink_to(drive / "none")
    os.mkfifo(drive / "pipe")
    assert read_content(drive).version == plain_version(drive)
    assert sorted(read_content(drive).names or []) == sorted(path.name for path in drive.iterdir())
    zipped = Path(shutil.make_archive(str(storage.inbox / OTHER), "zip", drive / "b"))
    assert read_content(zipped).version == plain_version(zipped)


def test_what_was_requested_before_there_were_glances_is_not_requested_again(
    instance: dg.DagsterInstance, storage: Storage, later: None
) -> None:
    drive = write_drive(storage.inbox / NAME, rows=4)
    write_drive(storage.inbox / OTHER, rows=4)
    assert names(tick(instance, storage, json.dumps({NAME: plain_version(drive)}))) == [OTHER]


def test_what_was_requested_is_hardly_looked_at_and_a_frame_written_anew_in_its_place_is_noticed_in_time(
    instance: dg.DagsterInstance, storage: Storage, later: None, looks: Looks
) -> None:
    days = [f"2024-05-0{day}_10-00-00" for day in range(1, 5)]
    for day in days:
        sketch(storage.inbox, day)
    shutil.make_archive(str(storage.inbox / "2024-04-01_10-00-00"), "zip", storage.inbox / days[0])
    result = tick(instance, storage)
    assert names(result) == ["2024-04-01_10-00-00", *days]
    assert looks.of_last_tick() == ["2024-04-01_10-00-00.zip", *days]  # and it never again: its time tells all
    frame = next((storage.inbox / days[1]).glob("*.jpg"))
    frame.write_bytes(frame.read_bytes() * 2)
    (storage.inbox / days[3] / "telemetry.csv").write_text("Time\n")  # seen at a glance
    expected = [([days[0], days[3]], [days[3]]), ([days[1]], [days[1]]), ([days[2]], []), ([days[0]], [])]
    for looked_at, requested in expected:
        result = tick(instance, storage, cursor_of(result))
        assert (looks.of_last_tick(), names(result)) == (looked_at, requested)
    shutil.rmtree(storage.inbox / days[3])
    memory = Memory.parse(cursor_of(tick(instance, storage, cursor_of(result))))
    assert [*memory.glances][1:] == [days[2], days[0], days[1]] and set(memory.requested) > set(days)


def test_what_is_refused_is_told_in_each_tick_and_looked_at_when_it_changed_or_its_turn_comes(
    instance: dg.DagsterInstance, storage: Storage, later: None, looks: Looks, tmp_path: Path
) -> None:
    sketch(storage.inbox, NAME)
    (storage.inbox / OTHER).mkdir()
    (storage.inbox / "week.zip").write_bytes(b"PK")
    result = tick(instance, storage)
    assert looks.of_last_tick() == [NAME, OTHER, "week.zip"]
    for turn in (NAME, OTHER, "week.zip"):
        result = tick(instance, storage, cursor_of(result))
        assert looks.of_last_tick() == [turn]
        assert f"1 not complete: {OTHER} lacks telemetry.csv and a frame (.jpg)" in reason(result)
        assert "1 refused: week.zip: " in reason(result) and "no whole zip" in reason(result)
    shutil.make_archive(str(storage.inbox / "week"), "zip", sketch(tmp_path / "week", "2024-05-03_10-00-00").parent)
    assert names(tick(instance, storage, cursor_of(result))) == ["2024-05-03_10-00-00"]


def test_what_is_not_settled_or_whose_name_is_taken_is_looked_at_in_each_tick(
    instance: dg.DagsterInstance, storage: Storage, clock: Clock, looks: Looks, tmp_path: Path
) -> None:
    sketch(storage.inbox, NAME)
    result = tick(instance, storage)
    assert "1 not settled" in reason(result)
    clock.settle()
    given = write_drive(tmp_path / "given" / OTHER, rows=3)
    ingest(storage, find_recordings(given)[0])
    sketch(storage.inbox, OTHER)
    clock.settle()
    result = tick(instance, storage, cursor_of(result))
    assert names(result) == [NAME] and looks.of_last_tick() == [NAME, NAME, OTHER]
    shutil.rmtree(given)
    result = tick(instance, storage, cursor_of(result))
    assert names(result) == [OTHER] and looks.of_last_tick() == [NAME, OTHER]


def test_a_tick_ends_in_time_and_the_next_goes_on_there(
    instance: dg.DagsterInstance, storage: Storage, later: None, looks: Looks
) -> None:
    days = [f"2024-05-0{day}_10-00-00" for day in range(1, 6)]
    for day in days:
        sketch(storage.inbox / "week" if day == days[3] else storage.inbox, day)
    for day in days[:2]:  # at the head, and never done with: the names are taken
        sketch(storage.recordings, day, rows=2)
    rules = ArrivalRules(slice_s=1.5 * looks.cost_s)
    result = tick(instance, storage, None, rules)
    assert (looks.of_last_tick(), names(result)) == (days[:2], [])
    assert f"1 left for the next tick: {days[2]} and 2 more" in reason(result)
    result = tick(instance, storage, cursor_of(result), rules)
    assert looks.of_last_tick() == names(result) == [days[2], days[4]]
    result = tick(instance, storage, cursor_of(result), rules)
    assert (looks.of_last_tick(), names(result)) == ([days[2], days[3]], [days[3]])  # one again, and the one left
    result = tick(instance, storage, cursor_of(result), rules)
    assert looks.of_last_tick() == [days[4], days[0]]
    shutil.rmtree(storage.inbox / days[1])  # where the next would begin
    result = tick(instance, storage, cursor_of(result), rules)
    assert looks.of_last_tick() == [days[2], days[0]]


def test_a_recording_of_a_zip_that_cannot_be_taken_does_not_stop_those_that_follow(
    instance: dg.DagsterInstance, storage: Storage, later: None, looks: Looks
) -> None:
    storage.inbox.mkdir(parents=True)
    with zipfile.ZipFile(storage.inbox / "week.zip", "w") as archive:
        for day, telemetry in ((NAME, ["telemetry.csv", "Telemetry.CSV"]), (OTHER, ["telemetry.csv"])):
            for file in [*telemetry, "1.jpg"]:
                archive.writestr(f"{day}/{file}", file)
    result = tick(instance, storage)
    assert names(result) == [OTHER]
    assert "1 refused: week.zip: " in reason(tick(instance, storage, cursor_of(result)))
