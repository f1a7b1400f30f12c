"""Processes that end with the one that started them."""

import ctypes
import os
import signal
import sys


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
