"""The command line as a whole; what its commands do is tested with what they call."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from drive_assets import cli
from drive_assets.commands import graph


@pytest.fixture
def signals_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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

    monkeypatch.setattr(graph, "_status", imports_when_interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["status"])
    assert (ended.value.code, capsys.readouterr().err) == (130, "")


def run_with_output(output: str) -> "subprocess.CompletedProcess[str]":
    """A command that prints 10,000 lines, in a shell that sends them to `output`."""
    code = (
        "import sys; from drive_assets import cli; from drive_assets.commands import graph, common;"
        "graph._status = lambda options: [common.tell('x' * 80) for _ in range(10000)]; cli.main(['status'])"
    )
    command = f"'{sys.executable}' -W ignore -c \"{code}\" {output}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True)


def test_a_reader_that_ends_early_ends_the_command_silently() -> None:
    ended = run_with_output("| head -1")
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_an_output_that_cannot_be_written_is_one_sentence() -> None:
    ended = run_with_output("> /dev/full")
    assert ended.stderr == "drive-assets: The standard output cannot be written: No space left on device.\n"
    assert ended.returncode == 2
