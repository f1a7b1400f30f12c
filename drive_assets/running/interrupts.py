"""What SIGINT and SIGTERM do to a run that this process executes."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTIONS = (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)
"""What is raised where a run is terminated."""


@contextmanager
def fail_when_terminated() -> Iterator[None]:
    """A termination in the block fails the step for good. Dagster would retry it as the asset's policy says."""
    try:
        yield
    except INTERRUPTIONS as error:
        raise dg.Failure("The run was terminated. Run it again: it resumes there.", allow_retries=False) from error


@contextmanager
def raise_missed_interrupts() -> Iterator[None]:
    """Raises KeyboardInterrupt at its end if SIGINT or SIGTERM arrived between two steps, where Dagster drops them."""
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread only
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
        with contextlib.suppress(BlockingIOError):
            if set(INTERRUPTS) & set(os.read(reader, 4096)):
                raise KeyboardInterrupt
    finally:
        signal.set_wakeup_fd(previous)
        os.close(reader)
        os.close(writer)
