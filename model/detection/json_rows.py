"""JSON files larger than the memory: the members of one top-level array or object, one at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ijson

from model.common.errors import DataError


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that is one array of objects.

    Raises:
        DataError: the file is missing, ends early, or is other JSON; names it and the row.
    """
    for number, row in enumerate(_members(path, b"[", ijson.items, "item"), 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected an object, not {str(row)[:50]!r}. Download it again.")
        yield row


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Keys and values of a file that is one object.

    Raises:
        DataError: the file is missing, ends early, or is other JSON; names it and the number of intact entries.
    """
    return _members(path, b"{", ijson.kvitems, "")


def _members(path: Path, opening: bytes, parse: Callable[..., Iterator[Any]], prefix: str) -> Iterator[Any]:
    count = 0
    try:
        with path.open("rb") as stream:
            if stream.read(4096).lstrip()[:1] != opening:
                raise DataError(f"{path}: expected JSON that begins with {opening.decode()}. Download the file again.")
            stream.seek(0)
            for count, member in enumerate(parse(stream, prefix, use_float=True), 1):  # noqa: B007
                yield member
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): expected a JSON file.") from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not valid JSON after {count:,} entries ({str(error).splitlines()[0]}). Download the file again."
        ) from error
