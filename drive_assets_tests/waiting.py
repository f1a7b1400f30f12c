"""Waiting for other processes in tests."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str, seconds: float = 150.0) -> None:
    """Poll until the condition holds. Raises TimeoutError, which says `what` did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)
