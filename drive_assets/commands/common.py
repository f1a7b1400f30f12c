"""What several commands need."""

import sys

from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import remove_abandoned
from model.common.progress import wrapped


def tell(text: str, wrap: bool = True) -> None:
    """Print text at once, on a terminal with long lines wrapped between words.

    An output that cannot be written, for example on a full disk, is a DataError.
    """
    try:
        print(wrapped(text, sys.stdout) if wrap else text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(f"The standard output cannot be written: {error.strerror}.") from error


def writable_storage() -> Storage:
    """The data root, checked that it can be written, without temporary files of killed processes."""
    storage = Storage.from_environment()
    storage.check_writable()
    remove_abandoned(storage.root)
    return storage
