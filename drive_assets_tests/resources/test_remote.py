"""The end of a file of the library, read without a download: enough for the directory of a zip."""

import zipfile
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.resources.conftest import BIG


def test_the_directory_of_a_zip_costs_two_requests(
    client: GraphClient, server: GraphServer, library: Path, drive_id: str
) -> None:
    with zipfile.ZipFile(library / "many.zip", "w") as archive:
        for number in range(300):
            archive.writestr(f"2026-03-01_10-00-00/{number}.jpg", BIG[number * 9000 :][:9000])
    item = client.item_by_path(drive_id, "many.zip")
    sent = len(server.requests)
    with client.open_end(drive_id, item, 100_000) as file, zipfile.ZipFile(file) as archive:
        assert len(archive.namelist()) == 300
    assert len(server.requests) == sent + 2
    assert "Authorization" not in server.requests[-1].headers


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", at=100),
        Fault("ignore_range"),
        Fault("wrong_range"),
        Fault("wrong_size", match="big.zip", factor=0.5),
        Fault("expired_url", status=404),
        Fault("truncate", at=100),
        Fault("throttle", match="/download/"),
    ],
    ids=lambda fault: fault.kind,
)
def test_faults_of_the_service_are_hidden(
    client: GraphClient, server: GraphServer, drive_id: str, fault: Fault
) -> None:
    server.fail(fault)
    for length in (5, len(BIG) + 5):
        with client.open_end(drive_id, client.item_by_path(drive_id, "big.zip"), length) as file:
            assert file.read() == BIG[-length:].rjust(len(BIG), b"\0")


def test_an_empty_file_has_an_empty_end(client: GraphClient, library: Path, drive_id: str) -> None:
    (library / "big.zip").write_bytes(b"")
    with client.open_end(drive_id, client.item_by_path(drive_id, "big.zip"), 5) as file:
        assert file.read() == b""
