"""The SharePoint sensor on the local Graph server: what it requests, when, and what it reports."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from drive_assets.recordings.arrivals import ArrivalRules
from drive_assets.recordings.ingest import ingest
from drive_assets.recordings.sharepoint.definitions import sharepoint_reconciliation
from drive_assets.recordings.sharepoint.sensor import sharepoint_sensor
from drive_assets.recordings.sources import lookup
from drive_assets.resources.sharepoint.errors import SharePointError
from drive_assets.resources.storage import Storage
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.graph_server.app import Call
from drive_assets_tests.graph_server.drive import Entry
from drive_assets_tests.recordings.conftest import Clock, Sensor, drive, find_recordings, sketch, write_zip
from model.common.errors import DataError

DAYS = [f"2024-05-{day:02}_10-00-00" for day in range(1, 29)]


def graph_requests(server: GraphServer) -> int:
    return sum(request.path.startswith("/v1.0/") for request in server.requests)


def test_without_settings_it_skips_with_instructions(
    instance: dg.DagsterInstance, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHAREPOINT_TENANT_ID", raising=False)
    sensor = Sensor(sharepoint_sensor, instance, storage, Clock())
    assert sensor.tick() == []
    assert "docs/sharepoint.md" in sensor.text and "drive-assets sharepoint check" in sensor.text


def test_a_recording_is_requested_once_nothing_in_it_has_changed_for_the_settling_time(
    sensor: Sensor, library: Path, server: GraphServer
) -> None:
    sketch(library, DAYS[0])
    assert sensor.tick() == []
    assert f"1 not settled: {DAYS[0]} changed 0 s ago (settling time 10 min)" in sensor.text
    sensor.clock.ahead += 590
    (library / DAYS[0] / "late.jpg").write_bytes(b"x")
    assert sensor.tick() == []
    sensor.clock.ahead += 590
    assert sensor.tick() == []
    sensor.clock.ahead += 11
    assert sensor.tick() == [DAYS[0]]
    sensor.clock.settle()
    before = graph_requests(server)
    assert sensor.tick() == []
    assert "Nothing new in Documents/Drives" in sensor.text
    assert graph_requests(server) == before + 1


def test_a_changed_recording_is_requested_again_even_if_its_first_content_returns(
    sensor: Sensor, library: Path
) -> None:
    folder = sketch(library, DAYS[0])
    first = (folder / "telemetry.csv").read_bytes()
    keys = []
    for content in (first, first + b"\n", first):
        (folder / "telemetry.csv").write_bytes(content)
        assert sensor.request_all() == [DAYS[0]]
        keys += sensor.keys
    assert len(set(keys)) == 3


def test_incomplete_and_wrongly_named_recordings_are_reported(sensor: Sensor, library: Path) -> None:
    sketch(library, DAYS[2]).rename(library / "my drive")
    folder = sketch(library, DAYS[0])
    (folder / "telemetry.csv").rename(library.parent / "telemetry.csv")
    (library / DAYS[1]).mkdir()
    assert sensor.request_all() == []
    assert f"{DAYS[0]} lacks telemetry.csv;" in sensor.text
    assert "1 not named YYYY-MM-DD_HH-MM-SS: my drive" in sensor.text
    shutil.move(library.parent / "telemetry.csv", folder / "telemetry.csv")
    assert sensor.request_all() == [DAYS[0]]


def test_a_folder_that_moves_in_is_requested_and_one_that_moves_out_is_reported(sensor: Sensor, library: Path) -> None:
    sketch(library.parent / "Office" / "May", DAYS[0])
    sketch(library / "2024" / "May", DAYS[1])
    assert sensor.request_all() == DAYS[1:2]
    (library.parent / "Office" / "May").rename(library / "May")
    assert sensor.request_all() == [DAYS[0]]
    (library / "May").rename(library.parent / "Office" / "May")
    assert sensor.tick() == []
    assert f"1 deleted or moved away in SharePoint and kept here: {DAYS[0]}" in sensor.text


def test_a_recording_that_moves_within_the_folder_stays_the_same(
    sensor: Sensor, library: Path, server: GraphServer
) -> None:
    sketch(library / "new", *DAYS[:2])
    assert sensor.request_all() == DAYS[:2]
    (library / "done").mkdir()
    (library / "new" / DAYS[0]).rename(library / "done" / DAYS[0])
    server.fail(Fault("out_of_order"))
    assert sensor.request_all() == []
    (library / "new").rename(library / "later")
    assert sensor.request_all() == []
    assert "Nothing new" in sensor.text


def test_a_renamed_recording_is_another_one(sensor: Sensor, library: Path) -> None:
    folder = sketch(library, DAYS[0])
    assert sensor.request_all() == [DAYS[0]]
    folder.rename(library / DAYS[1])
    assert sensor.request_all() == [DAYS[1]]


def test_a_file_that_moves_from_one_recording_to_another_changes_that_one(sensor: Sensor, library: Path) -> None:
    sketch(library, *DAYS[:2])
    assert sensor.request_all() == DAYS[:2]
    frame = next((library / DAYS[0]).glob("*.jpg"))
    frame.rename(library / DAYS[1] / frame.name)
    assert sensor.request_all() == DAYS[1:2]


def test_a_deletion_is_reported_and_not_repeated_here(sensor: Sensor, library: Path, server: GraphServer) -> None:
    for day in DAYS[:2]:
        drive(library, day)
    assert sensor.request_all() == DAYS[:2]
    for day in DAYS[:2]:
        sensor.ingest(day)
    server.fail(Fault("nameless", count=None))
    shutil.rmtree(library / DAYS[0])
    next((library / DAYS[1]).glob("*.jpg")).unlink()
    assert sensor.tick() == []
    assert f"1 deleted or moved away in SharePoint and kept here: {DAYS[0]}" in sensor.text
    sensor.clock.settle()
    assert sensor.tick() == []
    assert f"1 deleted in part in SharePoint and kept here: {DAYS[1]}" in sensor.text
    assert sensor.storage.recording(DAYS[0]).is_dir()


def test_a_deleted_recording_that_is_uploaded_again_with_other_content_is_a_new_version(
    sensor: Sensor, library: Path
) -> None:
    drive(library, DAYS[0])
    assert sensor.request_all() == [DAYS[0]]
    sensor.ingest(DAYS[0])
    shutil.rmtree(library / DAYS[0])
    sensor.tick()
    drive(library, DAYS[0], rows=5)
    assert sensor.request_all() == [DAYS[0]]
    assert sensor.ingest(DAYS[0]).change == "superseded"


def test_zips_of_one_and_of_several_recordings(sensor: Sensor, library: Path, tmp_path: Path) -> None:
    given = [sketch(tmp_path / "given", day) for day in DAYS[:4]]
    write_zip(library / f"{DAYS[0]}.zip", given[:1], inside="")
    write_zip(library / "week.zip", given[1:], inside="export/{name}/")
    with zipfile.ZipFile(library / "slides.zip", "w") as other:
        other.writestr("slides.txt", "x")
    assert sensor.request_all() == DAYS[:4]
    assert lookup(sensor.storage, DAYS[2]).member == f"export/{DAYS[2]}"
    assert sensor.tick() == []


def test_a_zip_whose_hash_only_its_listing_lacks_is_requested_once(
    sensor: Sensor, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: GraphServer
) -> None:
    show = server.graph._show

    def show_without_hash(call: Call, entry: Entry, **options: bool) -> dict[str, Any]:
        item = show(call, entry, **options)
        if call.path.endswith("/children"):
            item.get("file", {}).pop("hashes", None)
        return item

    monkeypatch.setattr(server.graph, "_show", show_without_hash)
    write_zip(library / f"{DAYS[0]}.zip", [sketch(tmp_path / "given", DAYS[0])], inside="")
    assert sensor.request_all() == DAYS[:1]
    (library / "new").mkdir()  # the folder is listed again
    assert sensor.request_all() == []


def test_hostile_and_broken_zips_are_refused_by_name_and_read_once(
    sensor: Sensor, library: Path, server: GraphServer
) -> None:
    with zipfile.ZipFile(library / f"{DAYS[0]}.zip", "w") as archive:
        archive.writestr("telemetry.csv", "x")
        archive.writestr("../evil.jpg", "x")
    (library / f"{DAYS[1]}.zip").write_bytes(b"PK\x03\x04 and no more")
    assert sensor.request_all() == []
    assert "entry '../evil.jpg' leads out of the archive" in sensor.text
    assert f"{DAYS[1]}.zip is no complete zip" in sensor.text
    before = graph_requests(server)
    assert sensor.tick() == []
    assert (sensor.text.count("evil"), graph_requests(server)) == (1, before + 1)


def test_two_items_with_one_name(sensor: Sensor, library: Path, tmp_path: Path) -> None:
    sketch(library, DAYS[0])
    write_zip(library / f"{DAYS[0]}.zip", [sketch(tmp_path / "given", DAYS[0], rows=5)])
    assert sensor.request_all() == [DAYS[0]]
    first = sensor.keys
    assert sensor.tick() == []
    assert "1 not taken, since the name is in use" in sensor.text and f"{DAYS[0]}.zip" in sensor.text
    sensor.clock.settle()  # it is examined again
    assert sensor.tick() == []
    assert "1 not taken, since the name is in use" in sensor.text
    shutil.rmtree(library / DAYS[0])
    assert sensor.tick() == []
    assert sensor.tick() == [DAYS[0]]  # the name is free
    assert sensor.keys != first


def test_a_recording_from_elsewhere_with_other_content_is_not_replaced(
    sensor: Sensor, library: Path, tmp_path: Path
) -> None:
    other = drive(tmp_path / "other", DAYS[0], rows=5)
    ingest(sensor.storage, find_recordings(other)[0])
    drive(library, DAYS[0])
    assert sensor.request_all() == []
    assert f"{DAYS[0]} exists already from {other} with other content than" in sensor.text
    assert sensor.tick() == [] and "exists already" in sensor.text


def test_a_tick_requests_a_limited_number_and_the_next_continues(sensor: Sensor, library: Path) -> None:
    sketch(library, *DAYS[:5], rows=1)
    sensor.rules = ArrivalRules(most_a_tick=2)
    assert sensor.request_all() == DAYS[:2]
    assert sensor.tick() == DAYS[2:4]
    assert sensor.tick() == DAYS[4:5]


def test_a_list_of_changes_too_long_for_one_tick_continues_in_the_next_and_requests_nothing_before_its_end(
    sensor: Sensor, library: Path
) -> None:
    sensor.tick()
    sketch(library, *DAYS[:9], rows=4)
    sensor.rules = ArrivalRules(slice_s=0.0, settling_s=0.0)
    for page in (1, 2):
        assert sensor.tick() == []
        assert "1 pages read, the next tick continues" in sensor.text, page
    sensor.rules = ArrivalRules(settling_s=0.0)
    assert sensor.tick() == DAYS[:9]


@pytest.mark.parametrize(
    "fault", [Fault("denied", match="token=", after=1), Fault("throttle", after=1, retry_after=300)]
)
def test_after_an_error_the_next_tick_continues_the_list_of_changes(
    sensor: Sensor, library: Path, server: GraphServer, fault: Fault
) -> None:
    sensor.tick()
    sketch(library, *DAYS[:9], rows=4)
    kept = sensor.cursor
    server.fail(fault)
    assert sensor.tick() == []
    assert "list of changes not read to its end" in sensor.text and "The next tick continues" in sensor.text
    assert sensor.cursor != kept


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("denied", match="delta"), "HTTP 403"),
        (Fault("denied", status=404, count=2, match="delta"), "HTTP 404"),
        (Fault("repeated_next"), "list of changes repeats"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_errors_of_the_service_keep_the_cursor_and_lose_no_recording(
    sensor: Sensor, library: Path, server: GraphServer, fault: Fault, error: str
) -> None:
    sensor.tick()
    sketch(library, *DAYS[:9], rows=4)
    kept = sensor.cursor
    server.fail(fault)
    with pytest.raises(DataError, match=error):
        sensor.tick()
    assert sensor.cursor == kept
    assert sensor.request_all() == DAYS[:9]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("gone", code="resyncChangesApplyDifferences"),
        Fault("gone", code="syncStateNotFound", location=False),
        Fault("denied", status=400, match="token="),
        Fault("denied", status=404, match="token="),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status or fault.code}",
)
def test_an_outdated_link_restarts_the_list_and_nothing_is_requested_twice(
    sensor: Sensor, library: Path, server: GraphServer, fault: Fault
) -> None:
    sketch(library, *DAYS[:2])
    assert sensor.request_all() == DAYS[:2]
    shutil.rmtree(library / DAYS[0])
    sketch(library, DAYS[2])
    server.fail(fault)
    assert sensor.tick() == []
    assert "1 restart(s) of the list of changes" in sensor.text
    assert f"deleted or moved away in SharePoint and kept here: {DAYS[0]}" in sensor.text
    sensor.clock.settle()
    assert sensor.tick() == DAYS[2:3]
    assert "restart" not in sensor.text


@pytest.mark.parametrize("kind", ["empty_page", "repeat_items", "out_of_order", "missing_hash", "missing_ctag"])
def test_oddities_of_graph_in_a_round_change_nothing(
    sensor: Sensor, library: Path, server: GraphServer, kind: str
) -> None:
    sketch(library / "deep" / "er", *DAYS[:6], rows=4)
    server.fail(Fault(kind, count=None if kind.startswith("missing") else 3))
    assert sensor.request_all() == DAYS[:6]
    assert sensor.tick() == []


def test_a_lost_tick_is_repeated_with_the_same_keys(sensor: Sensor, library: Path) -> None:
    folder = sketch(library, DAYS[0])
    sensor.tick()
    sensor.clock.settle()
    assert sensor.tick(is_lost=True) == [DAYS[0]]
    keys = sensor.keys
    assert sensor.request_all() == [DAYS[0]]
    assert sensor.keys == keys
    (folder / "late.jpg").write_bytes(b"x")
    assert sensor.tick(is_lost=True) == []
    assert sensor.request_all() == [DAYS[0]]


def test_a_lost_state_and_a_reset_cursor_repeat_the_requests_with_the_same_keys(sensor: Sensor, library: Path) -> None:
    sketch(library, DAYS[0])
    assert sensor.request_all() == [DAYS[0]]
    keys = sensor.keys
    shutil.rmtree(sensor.storage.root / "sharepoint")
    assert sensor.request_all() == [DAYS[0]]
    assert sensor.keys == keys  # for which Dagster starts no second run
    sensor.cursor = None
    assert sensor.request_all() == [DAYS[0]]
    assert sensor.keys == keys


def test_the_reconciliation_finds_what_the_list_of_changes_missed(
    sensor: Sensor, library: Path, server: GraphServer, instance: dg.DagsterInstance
) -> None:
    sketch(library, *DAYS[:2])
    assert sensor.request_all() == DAYS[:2]
    server.fail(Fault("missing_tombstone", count=None))
    shutil.rmtree(library / DAYS[0])
    assert sensor.tick() == []
    assert "deleted" not in sensor.text
    assert sharepoint_reconciliation.execute_in_process(
        instance=instance, resources={"storage": sensor.storage}
    ).success
    assert sensor.tick() == []
    assert f"deleted or moved away in SharePoint and kept here: {DAYS[0]}" in sensor.text
    assert sensor.tick() == []
    assert "deleted" not in sensor.text


def test_a_name_with_a_line_break_is_printed_on_one_line(sensor: Sensor, library: Path, server: GraphServer) -> None:
    (library / "week\nERROR all drives lost.zip").write_bytes(b"PK")
    server.fail(Fault("denied", count=None, match="/content"))
    assert sensor.request_all() == []
    assert "1 not read: week\\nERROR all drives lost.zip" in sensor.text and "\n" not in sensor.text


def test_malware_is_refused(sensor: Sensor, library: Path, server: GraphServer) -> None:
    sketch(library, DAYS[0])
    server.fail(Fault("malware", match="telemetry.csv"))
    assert sensor.request_all() == []
    assert f"1 refused: {DAYS[0]}: SharePoint reports malware in it" in sensor.text
    (library / DAYS[0] / "telemetry.csv").touch()  # listed again, without malware
    assert sensor.request_all() == [DAYS[0]]


def test_a_pause_longer_than_a_tick_skips_the_tick(sensor: Sensor, library: Path, server: GraphServer) -> None:
    sketch(library, DAYS[0])
    sensor.tick()
    cursor = sensor.cursor
    server.fail(Fault("throttle", retry_after=300))
    assert sensor.tick() == []
    assert "asks for a pause of" in sensor.text and "The next tick continues" in sensor.text
    assert sensor.cursor == cursor


def test_a_renamed_configured_folder_is_followed_and_a_deleted_one_is_an_error(sensor: Sensor, library: Path) -> None:
    sketch(library, DAYS[0])
    assert sensor.request_all() == DAYS[:1]
    library.rename(library.parent / "Rides")
    sketch(library.parent / "Rides", DAYS[1])
    assert sensor.request_all() == DAYS[1:2]
    shutil.rmtree(library.parent / "Rides")
    assert sensor.tick() == []
    assert "1 watched folder not found" in sensor.text
    with pytest.raises(SharePointError, match="SHAREPOINT_FOLDER"):
        sensor.tick()


def test_another_configured_folder_is_listed_from_the_start(
    sensor: Sensor, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sketch(library, DAYS[0])
    sketch(library.parent / "Office", DAYS[1])
    assert sensor.request_all() == DAYS[:1]
    monkeypatch.setenv("SHAREPOINT_FOLDER", "Office")
    assert sensor.request_all() == DAYS[1:2]


def test_a_damaged_state_is_an_error_that_names_it(sensor: Sensor, library: Path) -> None:
    sensor.tick()
    (state,) = (sensor.storage.root / "sharepoint").glob("*.json")
    state.write_text("{}")
    with pytest.raises(DataError, match=rf"{state} is damaged: remove it"):
        sensor.tick()
