"""A real Dagster daemon: a recording that is dropped into the library is materialised, and nobody did anything."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.demo_sharepoint import daemon, wait_for
from drive_assets.instance import open_instance
from drive_assets.resources.storage import Storage
from drive_assets_tests.graph_server import GraphServer
from drive_assets_tests.recordings.conftest import drive

THERE, DROPPED = "2024-05-01_10-00-00", "2024-05-02_10-00-00"


@pytest.mark.timeout(180)
def test_a_recording_that_is_dropped_into_the_library_is_materialised(
    data_root: Path, tmp_path: Path, server: GraphServer, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_SETTLING_S", "1")
    monkeypatch.setenv("DRIVE_ASSETS_SENSOR_INTERVAL_S", "2")
    said: list[str] = []
    drive(library, THERE)
    with open_instance() as instance, daemon(tmp_path / "daemon.log"):
        assert wait_for(instance, {THERE}, said.append), (tmp_path / "daemon.log").read_text()
        shutil.move(drive(tmp_path / "given", DROPPED, rows=5), library / DROPPED)
        assert wait_for(instance, {DROPPED}, said.append), (tmp_path / "daemon.log").read_text()
        assert len(list(Storage.from_environment().recording(DROPPED).glob("*.jpg"))) == 5
        assert instance.get_runs_count(dg.RunsFilter(tags={"dagster/sensor_name": "sharepoint_sensor"})) == 2
    assert any("not settled" in line for line in said)
    log = (tmp_path / "daemon.log").read_text()
    assert server.client_secret not in log and "tempauth" not in log
