"""Recordings ingested from the local Graph server: cut, killed, changed, hostile, and on a full disk."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.definitions import defs
from drive_assets.partitions import register_recordings
from drive_assets.recordings.assets import recording
from drive_assets.recordings.sharepoint import source as sharepoint_source
from drive_assets.recordings.sharepoint.library import read_settings
from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.errors import NotFound
from drive_assets.resources.storage import Storage
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.recordings.conftest import Sensor, drive, write_zip
from drive_assets_tests.resources.clock import TestClock
from model.common.downloads import MAX_FAILURES, Retries
from model.common.errors import DataError

DAYS = [f"2024-05-{day:02}_10-00-00" for day in range(1, 29)]
INGEST = (
    "import sys; from drive_assets.recordings.ingest import ingest; "
    "from drive_assets.recordings.sources import lookup; from drive_assets.resources.storage import Storage; "
    "s = Storage(data_root=sys.argv[1], inbox_root=sys.argv[1]); print(ingest(s, lookup(s, sys.argv[2])).change)"
)


def content_requests(server: GraphServer) -> list[str]:
    """The requests for download addresses."""
    return [request.path for request in server.requests if request.path.endswith("/content")]


def same_files(copy: Path, original: Path) -> bool:
    return all((copy / path.name).read_bytes() == path.read_bytes() for path in original.iterdir())


def test_a_folder(sensor: Sensor, library: Path) -> None:
    given = drive(library, DAYS[0], rows=6)
    (given / "annotations.csv").write_text("of another tool")
    sensor.request_all()
    (given / "annotations.csv").unlink()
    report = sensor.ingest(DAYS[0])
    assert (report.change, report.content.usable_frames) == ("new", 6)
    assert {"downloaded_megabytes", "download_s"} <= set(report.transfer)
    assert report.source == f"sharepoint:Documents/Drives/{DAYS[0]}"
    assert same_files(sensor.storage.recording(DAYS[0]), given)
    assert sensor.cached == []


def test_an_ingested_recording_is_not_downloaded_again(sensor: Sensor, library: Path, server: GraphServer) -> None:
    drive(library, DAYS[0])
    sensor.request_all()
    sensor.ingest(DAYS[0])
    before = len(server.requests)
    assert sensor.ingest(DAYS[0]).change == "unchanged"
    assert len(server.requests) == before
    next(sensor.storage.recording(DAYS[0]).glob("*.jpg")).unlink()  # lost here: it is downloaded again
    assert sensor.ingest(DAYS[0]).change == "superseded"


def test_a_zip(sensor: Sensor, library: Path, tmp_path: Path) -> None:
    given = drive(tmp_path / "given", DAYS[0], rows=6)
    write_zip(library / f"{DAYS[0]}.zip", [given], inside="")
    assert sensor.request_all() == [DAYS[0]]
    lines: list[str] = []
    report = sensor.ingest(DAYS[0], lines.append)
    assert {"downloaded_megabytes", "download_s", "unpack_s"} <= set(report.transfer)
    assert same_files(sensor.storage.recording(DAYS[0]), given)
    assert any("MB downloaded in" in line for line in lines)
    assert sensor.cached == []


def test_recordings_of_one_zip_share_its_download(
    sensor: Sensor, library: Path, tmp_path: Path, server: GraphServer
) -> None:
    write_zip(library / "week.zip", [drive(tmp_path / "given", day) for day in DAYS[:3]])
    assert sensor.request_all() == DAYS[:3]
    before = len(content_requests(server))
    running = [
        subprocess.Popen([sys.executable, "-c", INGEST, sensor.storage.data_root, day], stdout=subprocess.PIPE)
        for day in DAYS[:2]
    ]
    assert [process.communicate()[0].strip() for process in running] == [b"new", b"new"]
    assert len(sensor.cached) == 1
    assert sensor.ingest(DAYS[2]).change == "new"
    assert len(content_requests(server)) == before + 1
    assert (sensor.ingested, sensor.cached) == (DAYS[:3], [])


def test_a_recording_that_changed_since_its_request_is_left_to_the_sensor(sensor: Sensor, library: Path) -> None:
    given = drive(library, DAYS[0])
    sensor.request_all()
    (given / "late.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="changed since it was requested"):
        sensor.ingest(DAYS[0])
    (given / "telemetry.csv").unlink()
    with pytest.raises(DataError, match=r"now lacks telemetry\.csv"):
        sensor.ingest(DAYS[0])
    shutil.rmtree(given)
    with pytest.raises(NotFound):
        sensor.ingest(DAYS[0])
    assert sensor.ingested == []


def test_a_watched_folder_that_is_not_found_makes_no_source_gone(
    sensor: Sensor, library: Path, server: GraphServer
) -> None:
    drive(library, DAYS[0])
    sensor.request_all()
    (library / "new").mkdir()
    server.fail(Fault("denied", status=404, match="/children"))
    sensor.tick()
    assert "watched folder not found" in sensor.text
    assert sensor.ingest(DAYS[0]).change == "new"


def test_a_recording_that_moved_out_of_the_watched_folder_keeps_its_source_and_its_name(
    sensor: Sensor, library: Path
) -> None:
    given = drive(library, DAYS[0])
    sensor.request_all()
    given.rename(library.parent / "Office" / DAYS[0])
    sensor.tick()
    assert sensor.ingest(DAYS[0]).change == "new"
    drive(library, DAYS[0], rows=5)
    assert sensor.request_all() == []
    assert f"{DAYS[0]} exists already from sharepoint:" in sensor.text


def test_a_hash_that_is_sometimes_missing_is_no_change(sensor: Sensor, library: Path, server: GraphServer) -> None:
    drive(library, DAYS[0])
    server.fail(Fault("missing_hash", count=2))
    sensor.request_all()
    assert sensor.ingest(DAYS[0]).change == "new"


def ingest_and_kill(sensor: Sensor, name: str, condition: Callable[[], bool]) -> None:
    """Ingest in another process, and kill it once the condition holds."""
    deadline = time.monotonic() + 60
    with subprocess.Popen([sys.executable, "-c", INGEST, sensor.storage.data_root, name]) as process:
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert sensor.ingested == []


def test_a_killed_download_is_resumed(sensor: Sensor, library: Path, tmp_path: Path, server: GraphServer) -> None:
    given = drive(tmp_path / "given", DAYS[0], rows=12)
    zipped = write_zip(library / f"{DAYS[0]}.zip", [given])
    sensor.request_all()
    server.fail(Fault("stall", match="/download/", at=zipped.stat().st_size // 2, seconds=20))
    partials = (sensor.storage.cache / "downloads").rglob
    ingest_and_kill(sensor, DAYS[0], lambda: any(path.stat().st_size for path in partials("*.partial")))
    size = next(partials("*.partial")).stat().st_size
    sent = len(server.requests)
    assert sensor.ingest(DAYS[0]).change == "new"
    ranges = [request.headers.get("Range") for request in server.requests[sent:] if "/download/" in request.path]
    assert ranges == [f"bytes={size}-"]
    assert same_files(sensor.storage.recording(DAYS[0]), given)
    assert (sensor.ingested, sensor.cached) == ([DAYS[0]], [])


def test_downloaded_files_of_a_killed_download_are_not_requested_again(
    sensor: Sensor, library: Path, server: GraphServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = drive(library, DAYS[0], rows=12)
    sensor.request_all()
    last = sorted(path.name for path in given.iterdir())[-1]
    server.fail(Fault("stall", match=last, at=1, seconds=20, count=1))
    monkeypatch.setenv("SHAREPOINT_WORKERS", "1")
    downloads = sensor.storage.cache / "downloads"
    ingest_and_kill(sensor, DAYS[0], lambda: len(list(downloads.rglob("*.jpg"))) == 12)
    before = len(content_requests(server))
    assert sensor.ingest(DAYS[0]).change == "new"
    assert len(content_requests(server)) == before + 1
    assert same_files(sensor.storage.recording(DAYS[0]), given)


def test_a_full_disk_is_noticed_before_the_download(
    sensor: Sensor, library: Path, server: GraphServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(library, DAYS[0])
    sensor.request_all()
    usage = shutil.disk_usage(sensor.storage.root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=f"{DAYS[0]} needs .* DRIVE_ASSETS_DATA"):
        sensor.ingest(DAYS[0])
    assert (content_requests(server), sensor.ingested) == ([], [])


def test_a_zip_that_became_hostile_is_refused_and_removed(sensor: Sensor, library: Path, tmp_path: Path) -> None:
    given = drive(tmp_path / "given", DAYS[0])
    path = write_zip(library / f"{DAYS[0]}.zip", [given])
    sensor.request_all()
    content = path.read_bytes()
    path.write_bytes(content.replace(f"{DAYS[0]}/telemetry.csv".encode(), b"../../2024-05-01_10/telemetry.csv"))
    assert path.stat().st_size == len(content)
    with pytest.raises(DataError, match="leads out of the archive"):
        sensor.ingest(DAYS[0])
    assert (sensor.ingested, sensor.cached) == ([], [])


def test_an_invalid_recording_is_refused_and_its_download_removed(sensor: Sensor, library: Path) -> None:
    (drive(library, DAYS[0]) / "telemetry.csv").write_text("Time\n")
    sensor.request_all()
    with pytest.raises(DataError, match="lacks the columns"):
        sensor.ingest(DAYS[0])
    assert (sensor.ingested, sensor.cached) == ([], [])


def materialize(instance: dg.DagsterInstance, storage: Storage, name: str) -> dg.ExecuteInProcessResult:
    register_recordings(instance, [name])
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey("recording")})
    return job.execute_in_process(
        instance=instance, partition_key=name, resources={"storage": storage}, raise_on_error=False
    )


def test_only_transient_errors_are_retried(
    sensor: Sensor,
    library: Path,
    server: GraphServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drive(library, DAYS[0])
    drive(library, DAYS[1])
    sensor.request_all()
    client = GraphClient(read_settings(), Retries("SharePoint", TestClock()))
    monkeypatch.setattr(sharepoint_source, "connect", lambda settings: client)
    monkeypatch.setattr(recording.op, "_retry_policy", dg.RetryPolicy(max_retries=1))
    monkeypatch.setattr("drive_assets.running.batches.sleep", lambda seconds: None)
    server.fail(Fault("denied", match="children"))
    result = materialize(instance, sensor.storage, DAYS[0])
    assert not result.success
    assert [event.event_type_value for event in result.all_events].count("STEP_UP_FOR_RETRY") == 0
    server.fail(Fault("error", count=MAX_FAILURES, match="children"))
    result = materialize(instance, sensor.storage, DAYS[1])
    assert result.success
    assert [event.event_type_value for event in result.all_events].count("STEP_UP_FOR_RETRY") == 1


def test_no_log_output_or_file_holds_a_secret_or_download_address(
    sensor: Sensor,
    library: Path,
    server: GraphServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    home = tmp_path / "home"
    with dg.instance_for_test(temp_dir=str(home.mkdir() or home)) as instance:
        sensor.instance = instance
        drive(library, DAYS[0])
        write_zip(library / f"{DAYS[1]}.zip", [drive(tmp_path / "given", DAYS[1])])
        drive(library, DAYS[2])
        sensor.request_all()
        server.fail(Fault("cut", match="/download/", count=3))
        server.fail(Fault("expired_url", count=1))
        assert materialize(instance, sensor.storage, DAYS[0]).success
        assert materialize(instance, sensor.storage, DAYS[1]).success
        server.fail(Fault("wrong_hash", count=None))
        assert not materialize(instance, sensor.storage, DAYS[2]).success
    secrets = secrets_of(server)
    assert len(secrets) >= 5
    out = capfd.readouterr()
    shown = {"log": caplog.text, "out": out.out, "err": out.err}
    for path in [*home.rglob("*"), *sensor.storage.root.rglob("*")]:
        if path.is_file() and path.suffix != ".jpg":
            shown[str(path)] = path.read_bytes().decode("latin-1")
    assert len(shown) > 10
    for where, text in shown.items():
        for secret in secrets:
            assert secret not in text, f"{where} holds {secret[:6]}..."


def secrets_of(server: GraphServer) -> set[str]:
    """The client's secret, its tokens and the download addresses."""
    tokens = {
        request.headers["Authorization"].split()[-1]
        for request in server.requests
        if "Authorization" in request.headers
    }
    downloads = {request.path for request in server.requests if request.path.startswith("/download/")}
    assert tokens and downloads
    return {server.client_secret, "tempauth", *tokens, *downloads}


def test_an_abandoned_download_is_removed_after_a_week(sensor: Sensor, library: Path) -> None:
    left = sensor.storage.cache / "downloads" / "ABC"
    left.mkdir(parents=True)
    (left / "x.zip.partial").write_bytes(b"x")
    for path in (left / "x.zip.partial", left):
        os.utime(path, (0, 0))
    drive(library, DAYS[0])
    sensor.request_all()
    sensor.ingest(DAYS[0])
    assert not left.exists()
