"""A real Dagster daemon materialises what is uploaded to the library."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets_tests.demo_sharepoint import daemon, wait_for
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.recordings.conftest import drive, write_zip

FOLDER, ZIP = "2024-05-01_10-00-00", "2024-05-02_10-00-00"


@pytest.mark.timeout(900)
def test_an_upload_is_materialised_even_if_its_run_is_killed(
    data_root: Path, tmp_path: Path, server: GraphServer, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_SETTLING_S", "1")
    monkeypatch.setenv("DRIVE_ASSETS_SENSOR_INTERVAL_S", "2")
    storage, texts, log = Storage.from_environment(), list[str](), tmp_path / "daemon.log"
    folder, zipped = drive(tmp_path / "given", FOLDER, rows=5), drive(tmp_path / "given", ZIP, rows=12)
    with open_instance() as instance, daemon(log):
        folder.rename(library / FOLDER)
        assert wait_for(instance, {FOLDER}, texts.append), log.read_text()
        assert len(list(storage.recording(FOLDER).glob("*.jpg"))) == 5

        server.fail(
            Fault("stall", match="/download/", at=3_000_000, seconds=60, after=1)
        )  # the first reads the directory
        write_zip(library / f"{ZIP}.zip", [zipped])
        os.kill(downloading(storage), signal.SIGKILL)
        assert not storage.recording(ZIP).exists()
        sent = len(server.requests)
        assert wait_for(instance, {ZIP}, texts.append), log.read_text()
    ranges = [request.headers.get("Range", "") for request in server.requests[sent:] if "/download/" in request.path]
    assert len(ranges) == 1 and ranges[0].startswith("bytes=") and ranges[0] != "bytes=0-"
    assert all((storage.recording(ZIP) / path.name).read_bytes() == path.read_bytes() for path in zipped.iterdir())
    assert any("not settled" in line for line in texts)
    text = log.read_text()
    assert server.client_secret not in text and "tempauth" not in text


def downloading(storage: Storage) -> int:
    """The process that writes a download, once it wrote some bytes."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        partials = {str(path) for path in (storage.cache / "downloads").rglob("*.partial") if path.stat().st_size}
        for process in psutil.process_iter(["open_files"]) if partials else ():
            if any(file.path in partials for file in process.info["open_files"] or ()):
                return process.pid
        time.sleep(0.1)
    raise AssertionError("no download started")
