"""The command line as a whole; what its commands do is tested with what they call."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drive_assets import cli
from drive_assets.commands import graph
from drive_assets.definitions import defs


@pytest.fixture
def signals_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def drive_assets(*arguments: str) -> object:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return ended.value.code


def test_help_names_every_asset_and_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert drive_assets("run", "--help") == 0
    text = capsys.readouterr().out
    names = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert names <= set(text.replace(",", " ").split())
    assert drive_assets("--version") == 0
    assert capsys.readouterr().out.startswith("drive-assets ")


def test_help_fits_a_terminal_and_a_mistyped_word_is_named_first(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["run", "--help"], ["import", "--help"], ["completion", "--help"]):
        assert drive_assets(*arguments) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    for arguments, meant in ((["rnu"], "run"), (["run", "--lakcing"], "--lacking"), (["completion", "zhs"], "zsh")):
        assert drive_assets(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("drive-assets") and f"Did you mean {meant}?" in error


def test_bash_completes_commands_assets_and_recordings(
    data_root: Path, signals_kept: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (data_root / "recordings" / "2024-05-01_10-00-00").mkdir(parents=True)
    (data_root / "recordings" / "$(touch${IFS}executed)").mkdir()
    assert drive_assets("completion") == 0
    script = capsys.readouterr().out
    for typed, completed in (("stat", "status"), ("--arch", "--architectures"), ("2024", "2024-05-01_10-00-00")):
        complete = f"COMP_WORDS=(drive-assets {typed}); COMP_CWORD=1; _drive_assets; echo ${{COMPREPLY[@]}}"
        found = subprocess.run(["bash", "-c", f"{script}\n{complete}"], capture_output=True, text=True, cwd=data_root)
        assert completed in found.stdout.split()
    assert not (data_root / "executed").exists()


def test_the_status_as_json(data_root: Path, signals_kept: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert drive_assets("status", "--json") == 0
    statuses = {status["asset"]: status for status in json.loads(capsys.readouterr().out)}
    assert len(statuses["checkpoint"]["missing"]) == 12 and statuses["recording"]["missing"] == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_command_quietly_though_python_makes_another_error_of_it(
    how: signal.Signals, signals_kept: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def __set_name__(self, owner: type, name: str) -> None:
            signal.raise_signal(how)

    def imports_when_interrupted(_: object) -> bool:
        type("Model", (), {"field": Interrupted()})  # Python 3.11 raises a RuntimeError from what `__set_name__` raises
        return True

    monkeypatch.setattr(graph, "status", imports_when_interrupted)
    assert (drive_assets("status"), capsys.readouterr().err) == (130, "")


def test_a_lack_of_memory_or_open_files_is_a_sentence(
    signals_kept: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> bool:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(graph, "status", fail)
    assert drive_assets("status") == 1
    assert "drive-assets: OSError: [Errno 24] Too many open files. Raise the limits" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "drive_assets.running.database_errors", None)
    assert drive_assets("status") == 1
    assert "drive-assets: OSError: [Errno 24] Too many open files. No module can be loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "status", "error"),
    [
        ("| head -1", 128 + signal.SIGPIPE, ""),
        ("> /dev/full", 2, "drive-assets: The standard output cannot be written: No space left on device.\n"),
    ],
)
def test_an_output_that_ends_early_or_is_full(output: str, status: int, error: str) -> None:
    code = (
        "import sys; from drive_assets import cli; from drive_assets.commands import graph, common;"
        "graph.status = lambda options: [common.tell('x' * 80) for _ in range(10000)]; cli.main(['status'])"
    )
    command = f"'{sys.executable}' -W ignore -c \"{code}\" {output}; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (status, error)
