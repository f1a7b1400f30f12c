"""`drive-assets sharepoint check` names the step that fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from drive_assets.recordings.sharepoint.check_access import STEPS, check_access
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.recordings.conftest import drive

DAY = "2024-05-01_10-00-00"


def failed(lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines if line.startswith("FAIL")]


def test_all_steps_pass(server: GraphServer, library: Path) -> None:
    drive(library, DAY)
    command = [sys.executable, "-m", "drive_assets.cli", "sharepoint", "check"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert failed(ended.stdout.splitlines()) == [] and len(ended.stdout.splitlines()) == len(STEPS) + 1
    assert "1 folders named as recordings" in ended.stdout and "the last byte of" in ended.stdout
    assert server.client_secret not in ended.stdout + ended.stderr


def test_an_empty_folder_is_no_failure(server: GraphServer) -> None:
    lines: list[str] = []
    assert check_access(lines.append)
    assert any("there is no file yet" in line for line in lines)


@pytest.mark.parametrize(
    ("variable", "value", "step"),
    [
        ("SHAREPOINT_TENANT_ID", "", "settings"),
        ("SHAREPOINT_SITE", "", "settings"),
        ("SHAREPOINT_CLIENT_SECRET", "wrong", "sign-in"),
        ("SHAREPOINT_SITE", "https://contoso.sharepoint.com/sites/none", "site"),
        ("SHAREPOINT_LIBRARY", "None", "library"),
        ("SHAREPOINT_FOLDER", "Drivers", "folder"),
    ],
)
def test_a_wrong_setting_fails_in_its_step(
    server: GraphServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, step: str
) -> None:
    monkeypatch.setenv(variable, value)
    lines: list[str] = []
    assert not check_access(lines.append)
    assert failed(lines) == [step]
    assert [line.split()[1] for line in lines if line.startswith("ok")] == list(STEPS[: STEPS.index(step)])
    assert f"Not reached: {', '.join(STEPS[STEPS.index(step) + 1 :])}." in lines[-1]


@pytest.mark.parametrize(("match", "step"), [("/sites/", "site"), ("/content", "download")])
def test_what_the_app_was_not_granted_fails_in_its_step(
    server: GraphServer, library: Path, match: str, step: str
) -> None:
    drive(library, DAY)
    server.fail(Fault("denied", count=None, match=match))
    lines: list[str] = []
    assert not check_access(lines.append)
    assert failed(lines) == [step]
    assert "403" in "".join(lines)
