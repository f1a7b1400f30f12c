"""What several commands need."""

import sys
import textwrap
from shutil import get_terminal_size

from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import remove_abandoned

INDENT = " " * 6
"""Of the rest of a wrapped line."""


def tell(text: str, wrap: bool = True) -> None:
    """Print text at once, on a terminal with long lines wrapped between words.

    An output that cannot be written, for example on a full disk, is a DataError.
    """
    try:
        print(_wrapped(text) if wrap and sys.stdout.isatty() else text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(f"The standard output cannot be written: {error.strerror}.") from error


def _wrapped(text: str) -> str:
    wrapper = textwrap.TextWrapper(
        get_terminal_size().columns, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrapper.fill(line) for line in text.split("\n"))


def writable_storage() -> Storage:
    """The data root, checked that it can be written, without temporary files of killed processes."""
    storage = Storage.from_environment()
    storage.check_writable()
    remove_abandoned(storage.root)
    return storage
