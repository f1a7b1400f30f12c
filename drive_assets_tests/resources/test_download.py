"""Downloads that are whole and right, or an error: every way in which the server can spoil them (contract 13 to 16)."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint import download
from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.items import AccessError, Item, NotFound, Quarantined, SharePointError
from drive_assets.resources.sharepoint.transport import MOST_FAILURES
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.graph_server import Request as Asked
from drive_assets_tests.resources.conftest import BIG, DRIVE
from model.common.errors import DataError

Make = Callable[..., GraphClient]


@pytest.fixture
def big(client: GraphClient, drive_id: str) -> Item:
    return client.item_by_path(drive_id, "big.zip")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "here" / "big.zip"


@pytest.fixture
def partial(target: Path) -> Path:
    target.parent.mkdir()
    return target.with_name("big.zip.partial")


def downloads(server: GraphServer) -> list[Asked]:
    return [request for request in server.requests if request.path.startswith("/download/")]


def ranges(server: GraphServer) -> list[str | None]:
    return [request.headers.get("Range") for request in downloads(server)]


def whole(target: Path, content: bytes = BIG) -> bool:
    """The file is there, and nothing beside it."""
    return target.read_bytes() == content and list(target.parent.iterdir()) == [target]


def test_a_file_comes_whole_under_its_name(client: GraphClient, drive_id: str, big: Item, target: Path) -> None:
    told: list[int] = []
    assert client.download(drive_id, big, target, told.append) == big
    assert whole(target)
    assert told == sorted(told) and told[-1] == len(BIG)


def test_an_empty_file_comes_too(client: GraphClient, drive_id: str, library: Path, target: Path) -> None:
    (library / "empty.jpg").touch()
    client.download(drive_id, client.item_by_path(drive_id, "empty.jpg"), target)
    assert whole(target, b"")


def test_the_download_address_gets_no_authorization(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    client.download(drive_id, big, target)
    content = [request for request in server.requests if request.path.endswith("/content")]
    assert [request.status for request in content] == [302]
    assert "Authorization" in content[0].headers
    assert [request.status for request in downloads(server)] == [200]
    assert "Authorization" not in downloads(server)[0].headers


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_download_address_is_asked_for_anew(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, status: int
) -> None:
    server.fail(Fault("expired_url", status=status))
    client.download(drive_id, big, target)
    assert whole(target)
    assert [request.status for request in server.requests if request.path.endswith("/content")] == [302, 302]


def test_a_download_address_that_is_never_good_ends_in_an_error(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    server.fail(Fault("expired_url", count=None))
    with pytest.raises(SharePointError, match=r"Downloading big\.zip failed: HTTP 401 of the download address"):
        client.download(drive_id, big, target)
    assert len(downloads(server)) == MOST_FAILURES
    assert not target.exists()


def test_a_cut_connection_goes_on_from_where_it_was_cut(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    server.fail(Fault("cut", at=1_500_000))
    client.download(drive_id, big, target)
    assert whole(target)
    first, second = ranges(server)
    assert first is None
    assert second is not None and 1_000_000 <= int(second.removeprefix("bytes=").removesuffix("-")) <= 1_500_000


def test_many_cuts_that_each_gain_something_do_not_end_a_download(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    server.fail(Fault("cut", count=MOST_FAILURES + 3, at=200_000))
    client.download(drive_id, big, target)
    assert whole(target)


def test_cuts_that_gain_nothing_end_in_an_error_and_keep_what_is_there(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path
) -> None:
    server.fail(Fault("cut", at=1_000_000))
    server.fail(Fault("cut", count=None, at=0))
    with pytest.raises(SharePointError, match="cut again and again"):
        client.download(drive_id, big, target)
    assert not target.exists()
    assert BIG.startswith(partial.read_bytes()) and partial.stat().st_size > 0


def test_a_partial_file_of_an_earlier_process_is_continued_and_checked_as_a_whole(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path
) -> None:
    partial.write_bytes(BIG[:1_234_567])
    client.download(drive_id, big, target)
    assert whole(target)
    assert ranges(server) == ["bytes=1234567-"]
    assert downloads(server)[0].status == 206


def test_a_partial_file_that_is_whole_is_only_checked(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path
) -> None:
    partial.write_bytes(BIG)
    client.download(drive_id, big, target)
    assert whole(target)
    assert downloads(server) == []


@pytest.mark.parametrize("wrong", [b"other" * 300, BIG[:-1] + b"?", BIG + b"more"], ids=["start", "end", "longer"])
def test_a_partial_file_of_other_content_is_downloaded_anew(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path, wrong: bytes
) -> None:
    partial.write_bytes(wrong)
    client.download(drive_id, big, target)
    assert whole(target)
    assert ranges(server)[-1] is None


def test_an_ignored_range_starts_over(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path
) -> None:
    partial.write_bytes(BIG[:1_000_000])
    server.fail(Fault("ignore_range"))
    client.download(drive_id, big, target)
    assert whole(target)
    assert [(request.status, request.headers.get("Range")) for request in downloads(server)] == [
        (200, "bytes=1000000-")
    ]


def test_ignored_ranges_and_cuts_at_the_same_place_end_in_an_error(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    server.fail(Fault("cut", count=None, at=1_500_000))
    server.fail(Fault("ignore_range", count=None))
    with pytest.raises(SharePointError, match="cut again and again"):
        client.download(drive_id, big, target)


def test_another_range_than_was_asked_for_is_not_appended(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path
) -> None:
    partial.write_bytes(BIG[:1_000_000])
    server.fail(Fault("wrong_range"))
    client.download(drive_id, big, target)
    assert whole(target)


def test_416_at_full_size_means_verify_and_the_item_is_looked_up_again(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path, library: Path
) -> None:
    (library / "big.zip").write_bytes(BIG[:2_000_000])
    partial.write_bytes(BIG[:2_000_000])
    now = client.download(drive_id, big, target)
    assert whole(target, BIG[:2_000_000])
    assert [request.status for request in downloads(server)] == [416]
    assert (now.size, now.id) == (2_000_000, big.id)


def test_416_elsewhere_starts_over(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path, library: Path
) -> None:
    (library / "big.zip").write_bytes(b"short")
    partial.write_bytes(BIG[:2_000_000])
    client.download(drive_id, big, target)
    assert whole(target, b"short")


def test_a_wrong_byte_gets_one_clean_download_more(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    server.fail(Fault("corrupt", at=1_500_000))
    client.download(drive_id, big, target)
    assert whole(target)
    assert ranges(server) == [None, None]


def test_wrong_twice_is_quarantined_with_a_clear_error_and_leaves_nothing(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    server.fail(Fault("corrupt", count=None, at=7))
    with pytest.raises(Quarantined, match=r"big\.zip was downloaded twice .*quickXorHash is .* instead of .*upload"):
        client.download(drive_id, big, target)
    assert len(downloads(server)) == 2
    assert list(target.parent.iterdir()) == []


def test_a_hash_that_sharepoint_tells_wrong_is_quarantined(
    client: GraphClient, server: GraphServer, drive_id: str, target: Path
) -> None:
    server.fail(Fault("wrong_hash", count=None, match="big.zip"))
    with pytest.raises(Quarantined):
        client.download(drive_id, client.item_by_path(drive_id, "big.zip"), target)


def test_a_hash_that_was_told_wrong_once_is_looked_up_again(
    client: GraphClient, server: GraphServer, drive_id: str, target: Path
) -> None:
    server.fail(Fault("wrong_hash", match="big.zip"))
    client.download(drive_id, client.item_by_path(drive_id, "big.zip"), target)
    assert whole(target)
    assert len(downloads(server)) == 1, "the content was right"


def test_without_a_hash_the_size_is_checked_and_that_the_item_is_the_same_afterwards(
    client: GraphClient, server: GraphServer, drive_id: str, target: Path
) -> None:
    server.fail(Fault("missing_hash", count=None, match="big.zip"))
    item = client.item_by_path(drive_id, "big.zip")
    assert item.quick_xor_hash is None
    client.download(drive_id, item, target)
    assert whole(target)
    assert server.requests[-1].path.endswith(f"/items/{item.id}")


def test_without_a_hash_a_partial_file_of_an_earlier_process_is_not_trusted(
    client: GraphClient, server: GraphServer, drive_id: str, target: Path, partial: Path
) -> None:
    server.fail(Fault("missing_hash", count=None, match="big.zip"))
    partial.write_bytes(b"\0" * 1_000_000)
    client.download(drive_id, client.item_by_path(drive_id, "big.zip"), target)
    assert whole(target)


@pytest.mark.parametrize("with_hash", [True, False])
def test_a_file_changed_while_it_is_read_comes_as_it_is_now(
    client: GraphClient, server: GraphServer, drive_id: str, target: Path, with_hash: bool
) -> None:
    if not with_hash:
        server.fail(Fault("missing_hash", count=None, match="big.zip"))
    item = client.item_by_path(drive_id, "big.zip")
    new = bytes(len(BIG))
    server.fail(Fault("changed_while_read", at=1_500_000, content=new))
    now = client.download(drive_id, item, target)
    assert whole(target, new)
    assert now.identity != item.identity


def test_a_file_that_keeps_changing_is_an_error_and_no_quarantine(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    server.fail(Fault("changed_while_read", count=None, at=1_500_001))
    with pytest.raises(SharePointError, match="keeps changing") as caught:
        client.download(drive_id, big, target)
    assert not isinstance(caught.value, Quarantined)
    assert list(target.parent.iterdir()) == []


def test_malware_is_an_error_and_not_downloaded(
    client: GraphClient, server: GraphServer, drive_id: str, target: Path
) -> None:
    server.fail(Fault("malware", match="big.zip"))
    with pytest.raises(Quarantined, match=r"big\.zip is held for malware"):
        client.download(drive_id, client.item_by_path(drive_id, "big.zip"), target)
    assert downloads(server) == []


def test_malware_that_only_the_content_request_tells_of_is_an_error(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path
) -> None:
    server.fail(Fault("denied", code="malwareDetected", match="/content"))
    with pytest.raises(Quarantined, match="HTTP 403 malwareDetected"):
        client.download(drive_id, big, target)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("denied", count=None, match="/content"), AccessError),
        (Fault("denied", count=None, status=404, match="/content"), NotFound),
        (Fault("denied", count=None, status=400, match="/download/"), SharePointError),
        (Fault("denied", count=None, status=302, match="/download/"), SharePointError),
        (Fault("denied", count=None, status=204, match="/download/"), SharePointError),
        (Fault("error", count=None, match="/download/"), SharePointError),
    ],
    ids=["403", "404", "400 of the content", "302 to nowhere", "204", "500 of the content"],
)
def test_the_body_of_an_error_never_becomes_content(
    client: GraphClient,
    server: GraphServer,
    drive_id: str,
    big: Item,
    target: Path,
    fault: Fault,
    kind: type[SharePointError],
) -> None:
    server.fail(fault)
    with pytest.raises(kind, match=r"big\.zip failed: HTTP \d{3}"):
        client.download(drive_id, big, target)
    assert all(path.stat().st_size == 0 for path in target.parent.iterdir())
    assert not target.exists()


def test_a_file_deleted_meanwhile_is_not_found(
    client: GraphClient, library: Path, drive_id: str, big: Item, target: Path
) -> None:
    (library / "big.zip").unlink()
    with pytest.raises(SharePointError):
        client.download(drive_id, big, target)
    assert not target.exists()


def test_a_folder_is_refused(client: GraphClient, drive_id: str, target: Path) -> None:
    with pytest.raises(SharePointError, match="is a folder"):
        client.download(drive_id, client.item_by_path(drive_id, "Drives"), target)


def test_a_full_disk_is_an_error_that_keeps_what_is_there(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        with pytest.raises(DataError, match=r"big\.zip\.partial cannot be written: .*goes on from what is there"):
            client.download(drive_id, big, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert partial.read_bytes() == BIG[:1_500_000]
    client.download(drive_id, big, target)
    assert whole(target)
    assert ranges(server)[-1] == "bytes=1500000-"


def test_a_disk_that_fails_in_the_background_is_an_error_too(
    client: GraphClient, drive_id: str, big: Item, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells each failure once, so that a later flush would succeed."""
    failures = [OSError(errno.EIO, "Input/output error")]

    def fsync(descriptor: int) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(download, "FLUSH", 1 << 20)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError, match=r"big\.zip\.partial cannot be written: Input/output error"):
        client.download(drive_id, big, target)
    assert failures == [] and not target.exists()
    client.download(drive_id, big, target)
    assert whole(target)


def test_a_kill_in_mid_download_leaves_a_part_that_the_next_process_continues(
    client: GraphClient, server: GraphServer, drive_id: str, big: Item, target: Path, partial: Path
) -> None:
    server.fail(Fault("stall", at=2_000_000, seconds=30))
    code = (
        "import sys; from pathlib import Path\n"
        "from drive_assets.resources.sharepoint.client import GraphClient\n"
        "from drive_assets.resources.sharepoint.settings import SharePointSettings\n"
        "client = GraphClient(SharePointSettings.from_environment())\n"
        "drive = client.drives(client.site_id(client._transport.settings.site))[0].id\n"
        "client.download(drive, client.item_by_path(drive, 'big.zip'), Path(sys.argv[1]))\n"
    )
    environment = os.environ | server.environment()
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], env=environment)
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size > 0):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = partial.stat().st_size
    assert 0 < there < len(BIG) and not target.exists()
    client.download(drive_id, big, target)
    assert whole(target)
    assert ranges(server)[-1] == f"bytes={there}-"


def recording_of(client: GraphClient, drive_id: str, folder: Path) -> list[tuple[Item, Path]]:
    children = client.children(drive_id, client.item_by_path(drive_id, f"Drives/{DRIVE}").id)
    return [(child, folder / child.name) for child in children]


def test_many_files_come_at_a_time_and_those_that_are_there_are_not_asked_for(
    client: GraphClient, server: GraphServer, drive_id: str, tmp_path: Path
) -> None:
    wanted = recording_of(client, drive_id, tmp_path / "recording")
    told: list[tuple[int, int]] = []
    made = client.download_all(drive_id, wanted, workers=3, progress=lambda files, size: told.append((files, size)))
    assert made == [item for item, _ in wanted]
    assert {path.name: path.read_bytes() for path in (tmp_path / "recording").iterdir()} == {
        name: name.encode() * 100 for name in ("telemetry.csv", "1.jpg", "2.jpg")
    }
    assert told[-1] == (3, sum(item.size for item, _ in wanted))
    asked = len(server.requests)
    wanted[0][1].write_bytes(b"\0" * wanted[0][0].size)
    client.download_all(drive_id, wanted, workers=3)
    assert len(server.requests) == asked + 2, "only the file that was wrong"


def test_the_first_file_that_fails_ends_the_rest(
    client: GraphClient, server: GraphServer, drive_id: str, tmp_path: Path
) -> None:
    wanted = recording_of(client, drive_id, tmp_path / "recording")
    server.fail(Fault("denied", count=None, match="telemetry.csv"))
    with pytest.raises(AccessError, match=r"telemetry\.csv"):
        client.download_all(drive_id, wanted, workers=2)
    assert not (tmp_path / "recording" / "telemetry.csv").exists()
