"""Child processes that end with their parent, and not before."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent process `parent` ends, however it ends.

    Linux only; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("The parent process has ended already.")


@contextmanager
def children_ignore_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C, which a terminal sends to all processes of a command, for processes that are started in the block.

    They would print a traceback each; this process ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
