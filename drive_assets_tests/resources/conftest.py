"""A library on the local Graph server, and a client whose clock needs no waiting."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.settings import SharePointSettings
from drive_assets_tests.graph_server import GraphServer
from drive_assets_tests.resources.clock import TestClock
from model.common.downloads import Retries

DRIVE = "2026-03-01_10-00-00"
BIG = random.Random(1).randbytes(3_000_007)
"""Several chunks of a download and blocks of a remote file. Its size is odd, since quickXorHash does not detect that a
multiple of 320 bytes is inverted."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A recording of three files, a large file, and names that must be encoded."""
    root = tmp_path / "library"
    (root / "Drives" / DRIVE).mkdir(parents=True)
    for name in ("telemetry.csv", "1.jpg", "2.jpg"):
        (root / "Drives" / DRIVE / name).write_bytes(name.encode() * 100)
    (root / "big.zip").write_bytes(BIG)
    (root / "100% #1 ä+b").mkdir()
    (root / "100% #1 ä+b" / "%41&c.txt").write_bytes(b"odd")
    return root


@pytest.fixture
def server(library: Path) -> Iterator[GraphServer]:
    with GraphServer(library, page_size=2) as server:
        yield server


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def make_client(server: GraphServer, clock: TestClock) -> Callable[..., GraphClient]:
    """Creates a client of the server; keywords are SHAREPOINT_* variables in lower case."""

    def make(
        patience_s: float = 1800.0, on_device_code: Callable[[str], None] | None = None, **variables: str
    ) -> GraphClient:
        environment = server.environment() | {f"SHAREPOINT_{name.upper()}": text for name, text in variables.items()}
        settings = SharePointSettings.from_environment(environment)
        assert settings is not None
        return GraphClient(settings, Retries("SharePoint", clock, patience_s), on_device_code)

    return make


@pytest.fixture
def client(make_client: Callable[..., GraphClient]) -> GraphClient:
    return make_client()


@pytest.fixture
def drive_id(client: GraphClient, server: GraphServer) -> str:
    """Id of the library; the client is signed in."""
    return client.drives(client.site_id(server.site_url))["Documents"]
