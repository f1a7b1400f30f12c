"""The SharePoint sensor on the local Graph server: what is requested, when, and what is said."""

import json
import shutil
import zipfile
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.recordings.arrivals import ArrivalRules
from drive_assets.recordings.ingest import ingest
from drive_assets.recordings.sharepoint.drive_map import DriveMap, open_map
from drive_assets.recordings.sharepoint.reconciliation import sharepoint_reconciliation
from drive_assets.recordings.sharepoint.sensor import MOST_REFUSALS, sharepoint_sensor
from drive_assets.recordings.sources import lookup
from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.items import DeltaPage, SharePointError
from drive_assets.resources.storage import Storage
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.recordings.conftest import Clock, Sensor, drive, find_recordings, sketch, write_zip

DAYS = [f"2024-05-{day:02}_10-00-00" for day in range(1, 29)]


def graph_requests(server: GraphServer) -> int:
    return sum(request.path.startswith("/v1.0/") for request in server.requests)


def test_without_settings_it_says_how_to_set_it_up(
    instance: dg.DagsterInstance, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHAREPOINT_TENANT_ID", raising=False)
    resources = {"storage": storage, "arrival_rules": ArrivalRules()}
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        result = sharepoint_sensor(context)
    assert isinstance(result, dg.SkipReason)
    assert "docs/sharepoint.md" in str(result.skip_message) and "drive-assets sharepoint check" in str(
        result.skip_message
    )


def test_a_recording_is_requested_once_it_is_settled_and_only_once(sensor: Sensor, library: Path) -> None:
    sketch(library, DAYS[0])
    assert sensor.tick() == []
    assert f"1 not settled: {DAYS[0]} changed 0 s ago, 10 min are waited for" in sensor.said
    sensor.clock.ahead += 590
    assert sensor.tick() == []
    sensor.clock.ahead += 11
    assert sensor.tick() == [DAYS[0]]
    sensor.clock.settle()
    assert sensor.tick() == []
    assert "Nothing new in Documents/Drives" in sensor.said


def test_a_file_that_comes_late_is_waited_for_again(sensor: Sensor, library: Path) -> None:
    folder = sketch(library, DAYS[0])
    sensor.tick()
    sensor.clock.ahead += 590
    (folder / "late.jpg").write_bytes(b"x")
    assert sensor.tick() == []
    sensor.clock.ahead += 20
    assert sensor.tick() == []
    sensor.clock.settle()
    assert sensor.tick() == [DAYS[0]]


def test_a_tick_without_a_change_makes_one_request(sensor: Sensor, library: Path, server: GraphServer) -> None:
    sketch(library, DAYS[0])
    sensor.take_all()
    before = graph_requests(server)
    assert sensor.tick() == []
    assert graph_requests(server) == before + 1


def test_a_changed_recording_is_requested_anew_and_so_is_its_first_content_again(sensor: Sensor, library: Path) -> None:
    folder = sketch(library, DAYS[0])
    first = (folder / "telemetry.csv").read_bytes()
    keys = []
    for content in (first, first + b"\n", first):
        (folder / "telemetry.csv").write_bytes(content)
        assert sensor.take_all() == [DAYS[0]]
        keys += sensor.keys
    assert len(set(keys)) == 3


def test_what_is_incomplete_is_named_with_what_it_lacks(sensor: Sensor, library: Path) -> None:
    folder = sketch(library, DAYS[0])
    (folder / "telemetry.csv").rename(library.parent / "telemetry.csv")
    (library / DAYS[1]).mkdir()
    assert sensor.take_all() == []
    assert f"{DAYS[0]} lacks telemetry.csv;" in sensor.said
    shutil.move(library.parent / "telemetry.csv", folder / "telemetry.csv")
    assert sensor.take_all() == [DAYS[0]]


def test_a_folder_with_telemetry_and_a_wrong_name_is_named(sensor: Sensor, library: Path) -> None:
    sketch(library, DAYS[0]).rename(library / "my drive")
    assert sensor.take_all() == []
    assert "1 not named YYYY-MM-DD_HH-MM-SS: my drive" in sensor.said


def test_only_what_lies_in_the_configured_folder_counts_at_any_depth(sensor: Sensor, library: Path) -> None:
    sketch(library / "2024" / "May", DAYS[0])
    sketch(library.parent / "Office", DAYS[1])
    assert sensor.take_all() == [DAYS[0]]


def test_a_folder_that_is_moved_in_brings_its_recordings_and_one_that_is_moved_out_is_reported(
    sensor: Sensor, library: Path
) -> None:
    sketch(library.parent / "Office" / "May", DAYS[0])
    assert sensor.take_all() == []
    (library.parent / "Office" / "May").rename(library / "May")
    assert sensor.tick() == [DAYS[0]]  # which settled where it was before
    (library / "May").rename(library.parent / "Office" / "May")
    assert sensor.tick() == []
    assert f"1 moved out of the folder and kept here: {DAYS[0]}" in sensor.said


def test_a_renamed_recording_is_another_one(sensor: Sensor, library: Path) -> None:
    folder = sketch(library, DAYS[0])
    assert sensor.take_all() == [DAYS[0]]
    folder.rename(library / DAYS[1])
    assert sensor.take_all() == [DAYS[1]]


def test_a_file_that_moves_from_one_recording_to_another_changes_that_one(sensor: Sensor, library: Path) -> None:
    for day in DAYS[:2]:
        sketch(library, day)
    assert sensor.take_all() == DAYS[:2]
    frame = next((library / DAYS[0]).glob("*.jpg"))
    frame.rename(library / DAYS[1] / frame.name)
    assert sensor.take_all() == DAYS[1:2]


def test_a_deletion_is_reported_and_not_followed(sensor: Sensor, library: Path, storage: Storage) -> None:
    for day in DAYS[:2]:
        drive(library, day)
    assert sensor.take_all() == DAYS[:2]
    ingest(storage, lookup(storage, DAYS[0]))
    shutil.rmtree(library / DAYS[0])
    next((library / DAYS[1]).glob("*.jpg")).unlink()
    assert sensor.tick() == []
    assert f"2 deleted in SharePoint and kept here, wholly or in part: {DAYS[0]}; {DAYS[1]}" in sensor.said
    sensor.clock.settle()
    assert sensor.tick() == []  # a recording that lost a frame there keeps it here
    assert storage.recording(DAYS[0]).is_dir()


def test_what_was_deleted_and_uploaded_again_with_other_content_is_a_new_version(
    sensor: Sensor, library: Path, storage: Storage
) -> None:
    drive(library, DAYS[0])
    assert sensor.take_all() == [DAYS[0]]
    ingest(storage, lookup(storage, DAYS[0]))
    shutil.rmtree(library / DAYS[0])
    sensor.tick()
    drive(library, DAYS[0], rows=5)
    assert sensor.take_all() == [DAYS[0]]
    assert ingest(storage, lookup(storage, DAYS[0])).change == "superseded"


def test_zips_of_one_and_of_several_recordings(sensor: Sensor, library: Path, tmp_path: Path, storage: Storage) -> None:
    given = [sketch(tmp_path / "given", day) for day in DAYS[:4]]
    write_zip(library / f"{DAYS[0]}.zip", given[:1], inside="")
    write_zip(library / "week.zip", given[1:], inside="export/{name}/")
    with zipfile.ZipFile(library / "slides.zip", "w") as other:
        other.writestr("slides.txt", "x")
    assert sensor.take_all() == DAYS[:4]
    assert lookup(storage, DAYS[2]).member == f"export/{DAYS[2]}"
    assert sensor.tick() == []


def test_hostile_and_broken_zips_are_refused_by_name_and_not_read_twice(
    sensor: Sensor, library: Path, server: GraphServer
) -> None:
    with zipfile.ZipFile(library / f"{DAYS[0]}.zip", "w") as archive:
        archive.writestr("telemetry.csv", "x")
        archive.writestr("../evil.jpg", "x")
    (library / f"{DAYS[1]}.zip").write_bytes(b"PK\x03\x04 and no more")
    assert sensor.take_all() == []
    assert "entry '../evil.jpg' leads out of the archive" in sensor.said
    assert f"{DAYS[1]}.zip is no whole zip" in sensor.said
    before = graph_requests(server)
    assert sensor.tick() == []
    assert (sensor.said.count("evil"), graph_requests(server)) == (1, before + 1)


def test_two_items_that_claim_one_name(sensor: Sensor, library: Path, tmp_path: Path) -> None:
    sketch(library, DAYS[0])
    write_zip(library / f"{DAYS[0]}.zip", [sketch(tmp_path / "given", DAYS[0], rows=5)])
    assert sensor.take_all() == [DAYS[0]]
    first = sensor.keys
    assert sensor.tick() == []
    assert "1 not taken, since the name is taken" in sensor.said and f"{DAYS[0]}.zip" in sensor.said
    shutil.rmtree(library / DAYS[0])
    assert sensor.tick() == [DAYS[0]]  # the first is gone, the name is free
    assert sensor.keys != first


def test_a_recording_that_is_there_from_elsewhere_with_other_content_is_not_replaced(
    sensor: Sensor, library: Path, storage: Storage, tmp_path: Path
) -> None:
    given = drive(tmp_path / "given", DAYS[0], rows=5)
    ingest(storage, find_recordings(given)[0])
    drive(library, DAYS[0])
    assert sensor.take_all() == []
    assert f"{DAYS[0]} is there already from {given} with other content than" in sensor.said
    assert sensor.tick() == [] and "is there already" in sensor.said


def test_a_tick_requests_a_bounded_number_and_the_next_goes_on(sensor: Sensor, library: Path) -> None:
    for day in DAYS[:5]:
        sketch(library, day, rows=1)
    sensor.rules = ArrivalRules(most_a_tick=2)
    assert sensor.take_all() == DAYS[:2]
    assert sensor.tick() == DAYS[2:4]
    assert sensor.tick() == DAYS[4:5]


def test_a_round_too_long_for_a_tick_goes_on_in_the_next_and_nothing_is_requested_before_its_end(
    sensor: Sensor, library: Path
) -> None:
    for day in DAYS[:9]:
        sketch(library, day, rows=4)
    sensor.rules = ArrivalRules(slice_s=0.0, settling_s=0.0)
    for page in (1, 2):
        assert sensor.tick() == []
        assert f"{page} pages read so far, the next tick goes on" in sensor.said
    sensor.rules = ArrivalRules(settling_s=0.0)
    assert sensor.tick() == DAYS[:9]


def test_errors_of_the_service_lose_neither_cursor_nor_recordings(
    sensor: Sensor, library: Path, server: GraphServer
) -> None:
    for day in DAYS[:9]:
        sketch(library, day, rows=4)
    server.fail(Fault("denied", count=1, match="delta", after=2))
    sensor.tick()
    assert "1 page not read, the next tick goes on" in sensor.said
    kept = sensor.cursor
    server.fail(Fault("denied", count=1, match="delta"))
    with pytest.raises(SharePointError):
        sensor.tick()
    assert sensor.cursor == kept
    assert sensor.take_all() == DAYS[:9]


@pytest.mark.parametrize(
    "code",
    ["resyncChangesApplyDifferences", "resyncChangesUploadDifferences", "resyncRequired", "syncStateNotFound"],
)
@pytest.mark.parametrize("location", [True, False])
def test_a_link_that_is_gone_starts_over_and_nothing_is_requested_twice(
    sensor: Sensor, library: Path, server: GraphServer, code: str, location: bool
) -> None:
    sketch(library, DAYS[0])
    sketch(library, DAYS[1])
    assert sensor.take_all() == DAYS[:2]
    shutil.rmtree(library / DAYS[0])
    sketch(library, DAYS[2])
    server.fail(Fault("gone", code=code, location=location))
    assert sensor.take_all() == DAYS[2:3]
    assert sensor.cursor is not None and json.loads(sensor.cursor)["generation"] == 2


def test_a_link_that_is_gone_reports_what_is_deleted(sensor: Sensor, library: Path, server: GraphServer) -> None:
    sketch(library, DAYS[0])
    assert sensor.take_all() == DAYS[:1]
    shutil.rmtree(library / DAYS[0])
    server.fail(Fault("gone"))
    assert sensor.tick() == []
    assert f"deleted in SharePoint and kept here, wholly or in part: {DAYS[0]}" in sensor.said


@pytest.mark.parametrize("kind", ["empty_page", "repeat_items", "out_of_order", "missing_hash", "missing_ctag"])
def test_what_graph_may_do_in_a_round_changes_nothing(
    sensor: Sensor, library: Path, server: GraphServer, kind: str
) -> None:
    for day in DAYS[:6]:
        sketch(library / "deep" / "er", day, rows=4)
    server.fail(Fault(kind, count=None if kind.startswith("missing") else 3))
    assert sensor.take_all() == DAYS[:6]
    assert sensor.tick() == []


def test_a_next_link_that_leads_to_itself_is_an_error_and_the_cursor_stays(
    sensor: Sensor, library: Path, server: GraphServer
) -> None:
    for day in DAYS[:9]:
        sketch(library, day, rows=4)
    server.fail(Fault("repeated_next", count=2, after=1))
    assert sensor.tick() == []
    assert "a next link came twice" in sensor.said and "the next tick goes on" in sensor.said
    kept = sensor.cursor
    with pytest.raises(SharePointError, match="a next link came twice"):
        sensor.tick()
    assert sensor.cursor == kept
    assert sensor.take_all() == DAYS[:9]


def test_next_links_that_lead_in_a_circle_are_noticed_and_a_repeated_tick_is_not_taken_for_one(tmp_path: Path) -> None:
    with DriveMap(tmp_path / "map.sqlite") as known:
        known.begin_round(None)
        assert not known.is_repeated("second", 1)
        assert not known.is_repeated("third", 2)
        assert not known.is_repeated("second", 1)  # the tick was lost, and its pages are read again
        assert not known.is_repeated("third", 2)
        assert known.is_repeated("second", 3)


def test_a_tick_that_is_lost_is_repeated_with_the_same_keys(sensor: Sensor, library: Path) -> None:
    folder = sketch(library, DAYS[0])
    sensor.tick()
    sensor.clock.settle()
    assert sensor.tick(is_lost=True) == [DAYS[0]]
    keys = sensor.keys
    assert sensor.tick() == [DAYS[0]]
    assert sensor.keys == keys
    (folder / "late.jpg").write_bytes(b"x")
    assert sensor.tick(is_lost=True) == []  # its page is applied and the cursor is not kept
    sensor.clock.settle()
    assert sensor.tick() == [DAYS[0]]


def test_a_lost_map_and_a_reset_cursor_make_a_whole_round_with_the_same_keys(
    sensor: Sensor, library: Path, storage: Storage
) -> None:
    sketch(library, DAYS[0])
    assert sensor.take_all() == [DAYS[0]]
    keys = sensor.keys
    shutil.rmtree(storage.root / "sharepoint")
    assert sensor.take_all() == [DAYS[0]]
    assert sensor.keys == keys  # which Dagster starts no second run for
    sensor.cursor = None
    assert sensor.tick() == [DAYS[0]]
    assert sensor.keys == keys


def test_the_reconciliation_finds_what_the_list_of_changes_lost(
    sensor: Sensor, library: Path, server: GraphServer, storage: Storage, instance: dg.DagsterInstance
) -> None:
    sketch(library, DAYS[0])
    sketch(library, DAYS[1])
    assert sensor.take_all() == DAYS[:2]
    server.fail(Fault("missing_tombstone", count=None))
    shutil.rmtree(library / DAYS[0])
    assert sensor.tick() == []
    assert "deleted" not in sensor.said
    assert sharepoint_reconciliation.execute_in_process(instance=instance, resources={"storage": storage}).success
    assert sensor.tick() == []
    assert f"deleted in SharePoint and kept here, wholly or in part: {DAYS[0]}" in sensor.said
    assert sensor.tick() == []
    assert "deleted" not in sensor.said


def test_malware_is_not_taken(sensor: Sensor, library: Path, server: GraphServer) -> None:
    sketch(library, DAYS[0])
    server.fail(Fault("malware", match="telemetry.csv"))
    assert sensor.take_all() == []
    assert f"1 refused: {DAYS[0]} is reported to hold malware" in sensor.said
    (library / DAYS[0] / "telemetry.csv").touch()  # shown again, and it was a false alarm
    assert sensor.take_all() == [DAYS[0]]


def test_a_service_that_asks_for_a_pause_longer_than_a_tick_is_left_alone(
    sensor: Sensor, library: Path, server: GraphServer
) -> None:
    sketch(library, DAYS[0])
    sensor.tick()
    cursor = sensor.cursor
    server.fail(Fault("throttle", retry_after=300))
    assert sensor.tick() == []
    assert "left alone for" in sensor.said and "The next tick goes on" in sensor.said
    assert sensor.cursor == cursor


def test_a_renamed_configured_folder_is_followed_and_a_deleted_one_is_an_error_that_says_so(
    sensor: Sensor, library: Path, clock: Clock
) -> None:
    sketch(library, DAYS[0])
    assert sensor.take_all() == DAYS[:1]
    library.rename(library.parent / "Rides")
    sketch(library.parent / "Rides", DAYS[1])
    assert sensor.take_all() == DAYS[1:2]
    shutil.rmtree(library.parent / "Rides")
    assert sensor.tick() == []
    assert "1 folder to look at is gone" in sensor.said
    with pytest.raises(SharePointError, match="SHAREPOINT_FOLDER"):
        sensor.tick()


def test_another_library_or_folder_is_begun_anew(
    sensor: Sensor, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sketch(library, DAYS[0])
    sketch(library.parent / "Office", DAYS[1])
    assert sensor.take_all() == DAYS[:1]
    monkeypatch.setenv("SHAREPOINT_FOLDER", "Office")
    assert sensor.take_all() == DAYS[1:2]


def test_the_cursor_holds_links_and_numbers_only(sensor: Sensor, library: Path, storage: Storage) -> None:
    for day in DAYS[:9]:
        sketch(library, day, rows=4)
    sensor.take_all()
    assert sensor.cursor is not None and len(sensor.cursor) < 1000
    assert set(json.loads(sensor.cursor)) == {"link", "page", "is_whole", "is_full", "generation", "tick"}
    with open_map(storage) as known:
        assert known.size() > 45


@pytest.mark.parametrize("status", [400, 404])
def test_a_link_that_is_refused_for_good_is_given_up_after_some_ticks_and_all_is_listed_anew(
    sensor: Sensor, library: Path, server: GraphServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    sketch(library, DAYS[0])
    assert sensor.take_all() == DAYS[:1]
    sketch(library, DAYS[1])
    assert sensor.cursor is not None
    kept = json.loads(sensor.cursor)["link"]
    ask = GraphClient.delta_page

    def refuse(client: GraphClient, drive: str, link: str | None = None) -> DeltaPage:
        if link == kept:
            raise SharePointError(f"HTTP {status}", status)
        return ask(client, drive, link)

    monkeypatch.setattr(GraphClient, "delta_page", refuse)
    for _ in range(MOST_REFUSALS - 1):
        with pytest.raises(SharePointError):
            sensor.tick()
    assert sensor.tick() == []
    assert "1 the service refuses the link to what changed, so that all is listed anew" in sensor.said
    sensor.clock.settle()
    assert sensor.tick() == DAYS[1:2]
    assert "refuses" not in sensor.said
