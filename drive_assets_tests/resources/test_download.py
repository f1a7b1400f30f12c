"""Downloads are complete and verified, or an error, however the server misbehaves."""

import resource
import signal
from pathlib import Path

import pytest
from starlette.responses import RedirectResponse

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.errors import AccessError, NotFound, Quarantined, SharePointError
from drive_assets.resources.sharepoint.items import Item
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.graph_server import Request as SentRequest
from drive_assets_tests.resources.conftest import BIG, DRIVE
from model.common.downloads import MAX_FAILURES
from model.common.errors import DataError, PassingError


class Download:
    """The download of big.zip to a new folder."""

    def __init__(self, client: GraphClient, server: GraphServer, drive_id: str, folder: Path) -> None:
        self.client, self.server, self.drive_id = client, server, drive_id
        self.target = folder / "big.zip"
        self.partial = folder / "big.zip.partial"
        self.item = self.look_up()

    def look_up(self, path: str = "big.zip") -> Item:
        return self.client.item_by_path(self.drive_id, path)

    def run(self, item: Item | None = None) -> Item:
        return self.client.download(self.drive_id, item or self.item, self.target)

    def start_partial(self, content: bytes) -> None:
        self.target.parent.mkdir()
        self.partial.write_bytes(content)

    def is_complete(self, content: bytes = BIG) -> bool:
        """Whether the file is there, and nothing beside it."""
        return self.target.read_bytes() == content and list(self.target.parent.iterdir()) == [self.target]

    @property
    def requests(self) -> list[SentRequest]:
        return [request for request in self.server.requests if request.path.startswith("/download/")]

    @property
    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.requests]


@pytest.fixture
def big(client: GraphClient, server: GraphServer, drive_id: str, tmp_path: Path) -> Download:
    return Download(client, server, drive_id, tmp_path / "new")


def test_a_file_is_downloaded_under_its_name_with_progress(big: Download) -> None:
    reported: list[int] = []
    assert big.client.download(big.drive_id, big.item, big.target, reported.append) == big.item
    assert big.is_complete()
    assert reported == sorted(reported) and reported[-1] == len(BIG)


def test_the_download_address_receives_no_authorization(big: Download) -> None:
    big.run()
    content = [request for request in big.server.requests if request.path.endswith("/content")]
    assert [request.status for request in content] == [302]
    assert "Authorization" in content[0].headers
    assert [request.status for request in big.requests] == [200]
    assert "Authorization" not in big.requests[0].headers


def test_a_redirect_to_an_address_without_https_is_an_error(big: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    address = big.server.graph_url.replace("https", "http") + "/download/x"
    monkeypatch.setattr(big.server.graph, "_download_url", lambda call, entry: address)
    with pytest.raises(SharePointError, match="localhost redirects to an address without https"):
        big.run()


def test_redirects_that_go_on_are_an_error(big: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(big.server.graph, "_download", lambda call: RedirectResponse(f"{call.base}{call.target}", 302))
    with pytest.raises(SharePointError, match="TooManyRedirects"):
        big.run()
    assert len(big.requests) == 3 * MAX_FAILURES


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_download_address_is_renewed(big: Download, status: int) -> None:
    big.server.fail(Fault("expired_url", status=status))
    big.run()
    assert big.is_complete()
    assert [request.status for request in big.server.requests if request.path.endswith("/content")] == [302, 302]


def test_a_download_address_that_is_never_valid_is_an_error(big: Download) -> None:
    big.server.fail(Fault("expired_url", count=None))
    with pytest.raises(SharePointError, match=r"Downloading big\.zip failed: HTTP 401 of the download address"):
        big.run()
    assert len(big.requests) == MAX_FAILURES
    assert not big.target.exists()


def test_cut_connections_resume_where_they_were_cut_and_any_number_with_progress_is_no_error(big: Download) -> None:
    big.server.fail(Fault("cut", count=MAX_FAILURES + 3, at=200_000))
    big.run()
    assert big.is_complete()
    first, second, *_ = big.ranges
    assert first is None
    assert second is not None and 100_000 <= int(second.removeprefix("bytes=").removesuffix("-")) <= 200_000


def test_cuts_without_progress_are_an_error_that_keeps_the_partial_file(big: Download) -> None:
    big.server.fail(Fault("cut", at=1_000_000))
    big.server.fail(Fault("cut", count=None, at=0))
    with pytest.raises(PassingError, match="cut repeatedly"):
        big.run()
    assert not big.target.exists()
    assert BIG.startswith(big.partial.read_bytes()) and big.partial.stat().st_size > 0


@pytest.mark.parametrize("size", [1_234_567, len(BIG)])
def test_the_partial_file_of_an_earlier_process_is_continued_and_verified_as_a_whole(big: Download, size: int) -> None:
    big.start_partial(BIG[:size])
    big.run()
    assert big.is_complete()
    assert big.ranges == ([] if size == len(BIG) else [f"bytes={size}-"])


@pytest.mark.parametrize("wrong", [b"other" * 300, BIG[:-1] + b"?", BIG + b"more"], ids=["start", "end", "longer"])
def test_a_partial_file_of_other_content_is_replaced(big: Download, wrong: bytes) -> None:
    big.start_partial(wrong)
    big.run()
    assert big.is_complete()
    assert big.ranges[-1] is None


def test_an_ignored_range_restarts_the_download(big: Download) -> None:
    big.start_partial(BIG[:1_000_000])
    big.server.fail(Fault("ignore_range"))
    big.run()
    assert big.is_complete()
    assert [(request.status, request.headers.get("Range")) for request in big.requests] == [(200, "bytes=1000000-")]


def test_ignored_ranges_and_cuts_at_the_same_place_are_an_error(big: Download) -> None:
    big.server.fail(Fault("cut", count=None, at=1_500_000))
    big.server.fail(Fault("ignore_range", count=None))
    with pytest.raises(PassingError, match="cut repeatedly"):
        big.run()


def test_another_range_than_requested_is_not_appended(big: Download) -> None:
    big.start_partial(BIG[:1_000_000])
    big.server.fail(Fault("wrong_range"))
    big.run()
    assert big.is_complete()


@pytest.mark.parametrize(("size", "statuses"), [(2_000_000, [416]), (5, [416, 200]), (0, [416, 200])])
def test_416_at_full_size_verifies_and_at_another_restarts(
    big: Download, library: Path, size: int, statuses: list[int]
) -> None:
    (library / "big.zip").write_bytes(BIG[:size])
    big.start_partial(BIG[:2_000_000])
    assert big.run().size == size
    assert big.is_complete(BIG[:size])
    assert [request.status for request in big.requests] == statuses


def test_a_wrong_byte_causes_one_more_download(big: Download) -> None:
    big.server.fail(Fault("corrupt", at=1_500_000))
    big.run()
    assert big.is_complete()
    assert big.ranges == [None, None]


def test_two_wrong_downloads_are_quarantined_and_leave_nothing(big: Download) -> None:
    big.server.fail(Fault("corrupt", count=None, at=7))
    with pytest.raises(Quarantined, match=r"big\.zip was downloaded twice .*quickXorHash is .* instead of .*upload"):
        big.run()
    assert len(big.requests) == 2
    assert list(big.target.parent.iterdir()) == []


def test_a_wrong_hash_is_looked_up_again_and_quarantined_if_it_stays_wrong(big: Download) -> None:
    big.server.fail(Fault("wrong_hash", match="big.zip"))
    big.run(big.look_up())
    assert big.is_complete()
    assert len(big.requests) == 1, "the content was right"
    big.server.fail(Fault("wrong_hash", count=None, match="big.zip"))
    with pytest.raises(Quarantined):
        big.run(big.look_up())


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_wrong_size_does_not_matter_if_the_hash_is_right(big: Download, factor: float) -> None:
    big.server.fail(Fault("wrong_size", count=None, factor=factor))
    item = big.look_up()
    assert item.size == int(len(BIG) * factor)
    big.run(item)
    assert big.is_complete() and len(big.requests) == 1
    big.run(item)
    assert len(big.requests) == 1, "the file that is there has the hash"


def test_without_a_hash_the_size_is_checked_and_that_the_item_did_not_change(big: Download) -> None:
    big.server.fail(Fault("missing_hash", count=None, match="big.zip"))
    item = big.look_up()
    assert item.quick_xor_hash is None
    big.start_partial(b"\0" * 1_000_000)
    big.run(item)
    assert big.is_complete()
    assert big.server.requests[-1].path.endswith(f"/items/{item.id}")


@pytest.mark.parametrize("with_hash", [True, False])
def test_a_file_that_changes_during_the_download_is_downloaded_in_its_new_version(
    big: Download, with_hash: bool
) -> None:
    if not with_hash:
        big.server.fail(Fault("missing_hash", count=None, match="big.zip"))
    item, new = big.look_up(), bytes(len(BIG))
    big.server.fail(Fault("changed_while_read", at=1_500_000, content=new))
    now = big.run(item)
    assert big.is_complete(new)
    assert now.identity != item.identity


def test_a_file_that_keeps_changing_is_an_error_and_not_quarantined(big: Download) -> None:
    big.server.fail(Fault("changed_while_read", count=None, at=1_500_001))
    with pytest.raises(SharePointError, match="keeps changing") as caught:
        big.run()
    assert not isinstance(caught.value, Quarantined)
    assert list(big.target.parent.iterdir()) == []


def test_malware_in_the_item_or_the_answer_is_an_error(big: Download) -> None:
    big.server.fail(Fault("malware", match="big.zip"))
    with pytest.raises(Quarantined, match=r"big\.zip is not downloaded: SharePoint reports malware"):
        big.run(big.look_up())
    assert big.requests == []
    big.server.fail(Fault("denied", code="malwareDetected", match="/content"))
    with pytest.raises(Quarantined, match="HTTP 403 malwareDetected"):
        big.run()


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
def test_the_body_of_an_error_never_becomes_content(big: Download, fault: Fault, kind: type[SharePointError]) -> None:
    big.server.fail(fault)
    with pytest.raises(kind, match=r"big\.zip failed: HTTP \d{3}"):
        big.run()
    assert [path.read_bytes() for path in big.target.parent.iterdir()] == [b""]
    assert not big.target.exists()


def test_a_file_that_was_deleted_and_a_folder_are_refused(big: Download, library: Path) -> None:
    (library / "big.zip").unlink()
    with pytest.raises(SharePointError):
        big.run()
    with pytest.raises(SharePointError, match="is a folder"):
        big.run(big.look_up("Drives"))
    assert not big.target.exists()


def test_a_full_disk_is_an_error_that_keeps_the_partial_file(big: Download) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        with pytest.raises(DataError, match=r"big\.zip\.partial cannot be written: .*resumes the download"):
            big.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert big.partial.read_bytes() == BIG[:1_500_000]
    big.run()
    assert big.is_complete()
    assert big.ranges[-1] == "bytes=1500000-"


def recording(big: Download, folder: Path) -> list[tuple[Item, Path]]:
    children = big.client.children(big.drive_id, big.look_up(f"Drives/{DRIVE}").id)
    return [(child, folder / child.name) for child in children]


def test_many_files_are_downloaded_in_parallel_and_existing_ones_are_not_requested(
    big: Download, tmp_path: Path
) -> None:
    files, reported = recording(big, tmp_path / "recording"), list[int]()
    assert big.client.download_all(big.drive_id, files, 3, reported.append) == [item for item, _ in files]
    assert {path.name: path.read_bytes() for path in (tmp_path / "recording").iterdir()} == {
        name: name.encode() * 100 for name in ("telemetry.csv", "1.jpg", "2.jpg")
    }
    assert reported[-1] == sum(item.size for item, _ in files)
    sent = len(big.server.requests)
    files[0][1].write_bytes(b"\0" * files[0][0].size)
    big.client.download_all(big.drive_id, files, workers=3)
    assert len(big.server.requests) == sent + 2, "only the file that was wrong"


def test_the_first_file_that_fails_stops_the_others(big: Download, tmp_path: Path) -> None:
    files = recording(big, tmp_path / "recording")
    big.server.fail(Fault("denied", count=None, match="telemetry.csv"))
    with pytest.raises(AccessError, match=r"telemetry\.csv"):
        big.client.download_all(big.drive_id, files, workers=2)
    assert not (tmp_path / "recording" / "telemetry.csv").exists()
