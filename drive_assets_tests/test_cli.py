"""The command line as a whole; what its commands do is tested with what they call."""

import signal
from collections.abc import Iterator

import pytest

from drive_assets import cli


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

    monkeypatch.setattr(cli, "_status", imports_when_interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["status"])
    assert (ended.value.code, capsys.readouterr().err) == (130, "")
