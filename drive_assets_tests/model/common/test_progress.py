"""Lines of progress on a terminal, and in a log."""

import os
import pty
import termios

import pytest

from model.common.progress import Progress, Terminal

EPOCH = "attention_cross_attention_transformer epoch {}/12  loss 1.06/1.07  PR-AUC .718 best  19 s left"


def test_progress_is_redrawn_in_place_and_is_a_plain_line_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    for path, log in ((os.ttyname(theirs), "begins\nends\n"), (None, None), ("/dev/pts/none", None)):
        terminal = Terminal(path)
        lines = ["begins", *(Progress(EPOCH.format(number)) for number in (11, 12)), "ends"]
        for line in lines:
            terminal(line)
        terminal.end()
        assert capsys.readouterr().out == (log or "\n".join(lines) + "\n")
    fitted = EPOCH.replace("loss 1.06/1.07  ", "")
    text = ""
    while not text.endswith("\n"):
        text += os.read(ours, 1000).decode()
    drawn = text.replace("\x1b[K", "").split("\r")
    assert drawn == ["", fitted.format(11), fitted.format(12), fitted.format(12), "\n"] and len(drawn[2]) <= 80
