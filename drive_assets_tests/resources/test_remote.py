"""A file of the library opened without a download: the directory of a zip costs two requests."""

import io
import zipfile
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.errors import SharePointError
from drive_assets.resources.sharepoint.items import Item
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.resources.conftest import BIG


@pytest.fixture
def big(client: GraphClient, drive_id: str) -> Item:
    return client.item_by_path(drive_id, "big.zip")


def test_it_reads_and_seeks_like_a_local_file(client: GraphClient, drive_id: str, big: Item) -> None:
    local = io.BytesIO(BIG)
    with client.open(drive_id, big) as remote:
        for offset, whence, length in ((0, 0, 10), (-22, 2, 99), (1_048_570, 0, 20), (5, 1, 3), (0, 0, -1), (9, 2, 1)):
            assert remote.seek(offset, whence) == local.seek(offset, whence)
            assert remote.read(length) == local.read(length)
            assert remote.tell() == local.tell()
        assert remote.readable() and remote.seekable() and not remote.writable()


def test_the_directory_of_a_zip_costs_two_requests(
    client: GraphClient, server: GraphServer, library: Path, drive_id: str
) -> None:
    with zipfile.ZipFile(library / "many.zip", "w") as archive:
        for number in range(300):
            archive.writestr(f"2026-03-01_10-00-00/{number}.jpg", BIG[number * 9000 :][:9000])
    item = client.item_by_path(drive_id, "many.zip")
    sent = len(server.requests)
    with zipfile.ZipFile(client.open(drive_id, item)) as archive:
        assert len(archive.namelist()) == 300
    assert len(server.requests) == sent + 2
    assert "Authorization" not in server.requests[-1].headers


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", at=100),
        Fault("ignore_range"),
        Fault("wrong_range"),
        Fault("expired_url", status=404),
        Fault("truncate", at=100),
        Fault("throttle", match="/download/"),
    ],
    ids=lambda fault: fault.kind,
)
def test_faults_of_the_connection_are_hidden(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, fault: Fault
) -> None:
    server.fail(fault)
    with client.open(drive_id, big) as remote:
        remote.seek(2_000_000)
        assert remote.read(200_000) == BIG[2_000_000:2_200_000]
        remote.seek(10)
        assert remote.read(5) == BIG[10:15]


def test_a_listed_size_that_is_wrong_does_not_matter(client: GraphClient, server: GraphServer, drive_id: str) -> None:
    server.fail(Fault("wrong_size", match="big.zip", factor=0.5))
    with client.open(drive_id, client.item_by_path(drive_id, "big.zip")) as remote:
        remote.seek(-5, io.SEEK_END)
        assert remote.read() == BIG[-5:]


def test_a_file_that_changes_between_two_reads_is_an_error(
    client: GraphClient, library: Path, drive_id: str, big: Item
) -> None:
    with client.open(drive_id, big) as remote:
        remote.seek(0, io.SEEK_END)
        (library / "big.zip").write_bytes(BIG[:2_500_000])
        with pytest.raises(SharePointError, match="changed meanwhile"):
            remote.seek(0)
            remote.read(10)
