"""The exception for input that a user can correct, and which errors are caused by too little memory."""

import difflib
from collections.abc import Iterable

MEMORY_ERRORS = (
    "out of memory",
    "can't allocate",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error",
    "unable to find an engine",
)
"""Parts of the messages of torch and of GPU libraries when memory is short."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch might work."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in MEMORY_ERRORS)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the known name that `name` resembles, to append to an error; empty if there is none."""
    near = difflib.get_close_matches(name, set(known) - {name}, 1)
    return f" Did you mean {near[0]}?" if near else ""


class DataError(ValueError):
    """Input is wrong. The message says what is wrong and where, what was expected and what to do."""


class PassingError(DataError):
    """A failure that may pass by itself: the same call may succeed later."""

    pause_s: float | None = None
    """How long the service asks to wait."""
    progressed = False
    """Whether a part succeeded before the failure, so that the count of failures restarts."""
