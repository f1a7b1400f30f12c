"""Downloads from a real server on loopback that misbehaves on request."""

import io
import random
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from drive_assets_tests.resources.clock import TestClock
from model.common.downloads import CHUNK, MAX_FAILURES, Retries
from model.common.errors import DataError
from model.detection.downloads import Remote


class Server(ThreadingHTTPServer):
    """Serves `files`; `faults` are taken one a request: cut (half of the body), or a status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests: list[tuple[str, str | None]] = []
        """Path and Range of each."""
        self.ranges = True
        self.version = '"1"'

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/sets?token=SECRET"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        assert query == "token=SECRET"
        wanted = self.headers["Range"]
        self.server.requests.append((path, wanted))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        content = self.server.files.get(path.removeprefix("/sets/"))
        if fault.isdigit() or content is None:
            self.send_response(int(fault or 404))
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"bad")
            return
        start = 0
        if wanted and self.server.ranges and self.headers["If-Range"] == self.server.version:
            start = int(re.findall(r"\d+", wanted)[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", self.server.version)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def zipped(content: bytes = b"frame") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("1.png", content)
    return stream.getvalue()


def test_a_file_is_fetched_once_and_the_second_name_is_tried(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = zipped()
    remote = Remote(server.base)
    for _ in range(2):
        remote.fetch(["deep/a.zip", "a.zip"], tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == server.files["a.zip"]
    assert [path for path, _ in server.requests] == ["/sets/deep/a.zip", "/sets/a.zip"]
    assert {path.name for path in tmp_path.iterdir() if ".lock" not in path.name} == {"a.zip"}


def test_an_interrupted_transfer_resumes(server: Server, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(8 * CHUNK)
    server.files["labels.json"] = content
    server.faults = ["cut", "503", "cut"]
    clock = TestClock()
    Remote(server.base, Retries("The server", clock)).fetch(["labels.json"], tmp_path / "labels.json")
    assert (tmp_path / "labels.json").read_bytes() == content
    assert [wanted for _, wanted in server.requests] == [None, *(f"bytes={part * CHUNK}-" for part in (4, 4, 6))]
    assert 7.0 in clock.slept  # what the server asked for


@pytest.mark.parametrize("ignored", [True, False])
def test_a_resumed_file_is_never_mixed(server: Server, tmp_path: Path, ignored: bool) -> None:
    """The server ignores Range, or has another version by now."""
    server.files["a.json"] = b"A" * 4 * CHUNK
    server.faults = ["cut", *["500"] * MAX_FAILURES]
    with pytest.raises(DataError, match=r"a\.json cannot be downloaded: the server responds with status 500"):
        Remote(server.base, Retries("The server", TestClock())).fetch(["a.json"], tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()
    server.files["a.json"] = b"B" * 4 * CHUNK
    server.ranges, server.version = not ignored, '"1"' if ignored else '"2"'
    Remote(server.base).fetch(["a.json"], tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == b"B" * 4 * CHUNK


def test_a_damaged_zip_is_downloaded_again_once_then_refused(server: Server, tmp_path: Path) -> None:
    sound = zipped(b"frame" * 50)
    damaged = bytearray(sound)
    damaged[60] ^= 255
    server.files["a.zip"] = bytes(damaged)

    def repair(line: str) -> None:
        if "again" in line:
            server.files["a.zip"] = sound

    with pytest.raises(DataError, match=r"a\.zip is damaged on the server \(wrong CRC of 1\.png\): downloaded twice"):
        Remote(server.base).fetch(["a.zip"], tmp_path / "a.zip")
    assert not list(tmp_path.glob("*.zip")) and not list(tmp_path.glob(".*partial"))
    Remote(server.base).fetch(["a.zip"], tmp_path / "a.zip", repair)
    assert (tmp_path / "a.zip").read_bytes() == sound


def test_failures_end_and_reveal_no_secret(server: Server, tmp_path: Path) -> None:
    server.faults = ["403"]
    logged: list[str] = []
    remote = Remote(server.base, Retries("The server", TestClock()))
    with pytest.raises(DataError, match="status 403") as denied:
        remote.fetch(["a.zip"], tmp_path / "a.zip", logged.append)
    with pytest.raises(DataError, match="is not on the server") as absent:
        remote.fetch(["a.zip"], tmp_path / "a.zip", logged.append)
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="ConnectionError") as gone:
        remote.fetch(["a.zip"], tmp_path / "a.zip", logged.append)
    assert len(logged) == MAX_FAILURES - 1
    for error in (denied, absent, gone):
        assert "SECRET" not in str(error.getrepr(style="long", showlocals=False))
    assert "SECRET" not in "".join(logged) + repr(remote)
    with pytest.raises(DataError, match="not an http"):
        Remote("ftp://host/SECRET")
