"""How long-running work reports its progress: a line of text at a time, to the log, the terminal or nowhere."""

from collections.abc import Callable

Log = Callable[[str], None]
