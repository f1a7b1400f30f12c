"""Processes that end with the one that started them, and not before."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when process `parent`, which started it, ends, however that ends.

    Linux only; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("The process that started this one has ended already.")


@contextmanager
def leaving_ctrl_c_to_this_one() -> Iterator[None]:
    """Processes that are started in this block never hear of Ctrl-C, which a terminal sends to all of a command.

    They would print a traceback each; this process ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is started inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
