"""How long-running work reports its progress: a line of text at a time, to the log, the terminal or nowhere."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from shutil import get_terminal_size
from typing import TextIO

Log = Callable[[str], None]
GAP = "  "
"""Between the parts of a line of progress."""
INDENT = " " * 6
"""Of the rest of a wrapped line."""
TERMINAL = "PROGRESS_TERMINAL"
"""Environment variable of workers: the terminal of the command that started them, such as /dev/pts/3."""


class Progress(str):
    """A line of progress. On a terminal it replaces the one before it; in a log it is a line like any other."""


class Terminal:
    """Prints lines to standard output, and lines of progress in place on the terminal at `path`, if there is one.

    A worker needs the path: its standard output is captured by Dagster, which copies it to the terminal.
    """

    def __init__(self, path: str | None) -> None:
        self.path, self.shown = path, ""

    def __call__(self, line: str) -> None:
        if not isinstance(line, Progress) or not self._draw(line):
            self.end()
            print(line, flush=True)

    def end(self) -> None:
        """Leave the line of progress as it is: what follows begins below it."""
        if self.shown:
            self._draw(self.shown, "\n")  # again: another worker may have replaced it by its own
            self.shown = ""

    def _draw(self, line: str, end: str = "") -> bool:
        """Whether the terminal is still there."""
        try:
            with Path(self.path or os.devnull).open("w") as terminal:
                self.shown = fitted(line, os.get_terminal_size(terminal.fileno()).columns or 80)
                terminal.write(f"\r\x1b[K{self.shown}{end}")
        except OSError:  # among others if it is no terminal
            return False
        return True


def terminal_of(stream: TextIO) -> str | None:
    """The path of the terminal that a stream writes to, if it does."""
    return os.ttyname(stream.fileno()) if stream.isatty() else None


def fitted(line: str, width: int) -> str:
    """A line of progress with as many of its last parts as fit beside the first."""
    first, *others = line.split(GAP)
    while others and len(GAP.join([first, *others])) > width:
        others.pop(0)
    return GAP.join([first, *others])[:width]


def wrapped(text: str, stream: TextIO) -> str:
    """Text for a stream: if it is a terminal, with long lines wrapped between words."""
    if not stream.isatty():
        return text
    width = get_terminal_size().columns
    wrap = textwrap.TextWrapper(width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(wrap.fill, text.split("\n")))
