"""Reading in a file of the library without downloading it: a zip's directory takes two requests."""

import io
import zipfile
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.items import Item, SharePointError
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.resources.conftest import BIG


@pytest.fixture
def big(client: GraphClient, drive_id: str) -> Item:
    return client.item_by_path(drive_id, "big.zip")


def test_it_reads_and_seeks_like_a_file(client: GraphClient, drive_id: str, big: Item) -> None:
    here = io.BytesIO(BIG)
    with client.open(drive_id, big) as there:
        for offset, whence, length in [
            (0, 0, 10),
            (-22, 2, 100),
            (1_048_570, 0, 20),
            (5, 1, 3),
            (0, 0, -1),
            (9, 2, 1),
        ]:
            assert there.seek(offset, whence) == here.seek(offset, whence)
            assert there.read(length) == here.read(length)
            assert there.tell() == here.tell()
        assert there.readable() and there.seekable() and not there.writable()


def test_the_directory_of_a_zip_costs_two_requests(
    client: GraphClient, server: GraphServer, library: Path, drive_id: str
) -> None:
    with zipfile.ZipFile(library / "many.zip", "w") as archive:
        for number in range(300):
            archive.writestr(f"2026-03-01_10-00-00/{number}.jpg", BIG[number * 9000 :][:9000])
    item = client.item_by_path(drive_id, "many.zip")
    asked = len(server.requests)
    with zipfile.ZipFile(client.open(drive_id, item)) as archive:
        assert len(archive.namelist()) == 300
    assert len(server.requests) == asked + 2
    assert "Authorization" not in server.requests[-1].headers


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", at=100),
        Fault("ignore_range", count=None),
        Fault("wrong_range"),
        Fault("expired_url", status=404),
        Fault("truncate", at=100),
        Fault("throttle", match="/download/"),
    ],
    ids=lambda fault: fault.kind,
)
def test_faults_on_the_way_do_not_show(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, fault: Fault
) -> None:
    server.fail(fault)
    with client.open(drive_id, big) as there:
        there.seek(2_000_000)
        assert there.read(200_000) == BIG[2_000_000:2_200_000]
        there.seek(10)
        assert there.read(5) == BIG[10:15]


def test_a_file_that_changed_since_it_was_listed_is_an_error(
    client: GraphClient, library: Path, drive_id: str, big: Item
) -> None:
    (library / "big.zip").write_bytes(BIG[:2_500_000])
    with client.open(drive_id, big) as there, pytest.raises(SharePointError, match="changed since it was listed"):
        there.read(10)
