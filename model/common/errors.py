"""The one exception for input that a user can put right, and which errors are of memory."""

MEMORY_ERRORS = (
    "out of memory",
    "can't allocate",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error",
    "unable to find an engine",
)
"""What torch says where memory is short; the libraries of a full GPU have words of their own."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether less at a time might do."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in MEMORY_ERRORS)


class DataError(ValueError):
    """Input is wrong. The message names the file, the row or key, what was expected and what to do."""


class PassingError(DataError):
    """What failed may succeed at the next try, with nothing put right by anyone."""
