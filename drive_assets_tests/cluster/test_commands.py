"""Slurm's commands on a login node, played by a script in the place of ssh."""

from pathlib import Path

import pytest

from drive_assets.resources.cluster.commands import SlurmCommands, State
from model.common.errors import DataError


def login_node(folder: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> SlurmCommands:
    """A login node that answers every command with `output`."""
    ssh = folder / "ssh"
    ssh.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return SlurmCommands("login")


def test_a_greeting_around_the_answer_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = login_node(tmp_path, "Welcome! 3 users\n4711;main\nQuota: 80 %", monkeypatch)
    assert commands.submit([], "", []) == "4711"
    commands = login_node(
        tmp_path, "Welcome | to the | cluster\n4711_2|RUNNING|None|ours-x\n4712|RUNNING|None|other", monkeypatch
    )
    assert commands.states("ours-") == {"4711_2": State("running", "RUNNING")}
    commands = login_node(tmp_path, "Welcome!\n4711_0\n4711_1", monkeypatch)
    assert commands.ids("ours-x") == {0: "4711_0", 1: "4711_1"}


def test_a_job_that_missed_its_deadline_is_not_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = login_node(tmp_path, "JobState=DEADLINE BatchHost=n1", monkeypatch)
    expected = State("ended", "could not start before its deadline.", retryable=False)
    assert commands.explain("7", State("ended", "DEADLINE"), tmp_path) == expected


def test_an_answer_without_a_job_id_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="sbatch printed no job id: expected a line with a number, got 'Welcome!"):
        login_node(tmp_path, "Welcome!", monkeypatch).submit([], "", [])
