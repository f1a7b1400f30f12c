"""How processes are started: who may read their files, and that they end with their parent, not before."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def hide_from_others() -> None:
    """Create files without access for other users, in this process and those that it starts.

    The group keeps the access that the umask gives it.
    """
    os.umask(os.umask(0o077) | 0o007)


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


def usable_cores() -> int:
    """Cores that this process may use; without affinities, such as on macOS, all of them."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


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
