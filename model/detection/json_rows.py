"""JSON files larger than the memory: the members of one top-level array or object, one at a time.

Not ijson: it is as fast (yajl in C), but refuses NaN, Infinity and whole numbers beyond 64 bits, all of which Python's
json writes. One such number in a box would then cost the whole file instead of one frame.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.common.errors import DataError

CHUNK = 4 * 1024 * 1024
LARGEST_MEMBER = 64 * 1024 * 1024
"""Characters that one member may take; a file that is not closed properly is not read to its end in search of it."""
_GAP = re.compile(r"[\s,]*")
_COLON = re.compile(r"\s*:\s*")
_decode = json.JSONDecoder().raw_decode


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that is one array of objects.

    Raises:
        DataError: the file is missing, ends early, or is no such JSON; names it and the row.
    """
    for number, row in enumerate(_members(path, "[", "]"), 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected an object, found {str(row)[:50]!r}. Get the file again.")
        yield row


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Keys and values of a file that is one object.

    Raises:
        DataError: the file is missing, ends early, or is no such JSON; names it and the place.
    """
    return _members(path, "{", "}")


def _members(path: Path, opening: str, closing: str) -> Iterator[Any]:
    count = 0
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(CHUNK)
            at = len(text) - len(text.lstrip())
            if text[at : at + 1] != opening:
                raise DataError(f"{path}: expected JSON that begins with {opening}; get the file again.")
            at += 1
            while True:
                try:
                    at = _end(_GAP.match(text, at))
                    if text[at] == closing:
                        return
                    member, end = _decode(text, at) if opening == "[" else _pair(text, at)
                except (ValueError, IndexError):  # a member that goes on in the next chunk, or that is broken
                    more = stream.read(CHUNK)
                    if not more or len(text) - at > LARGEST_MEMBER:
                        raise
                    text, at = text[at:] + more, 0
                    continue
                count, at = count + 1, end
                yield member
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): expected a JSON file.") from error
    except DataError:
        raise
    except (ValueError, IndexError, RecursionError) as error:
        raise DataError(
            f"{path} is no whole JSON: it breaks after {count:,} entries ({error}). Get the file again."
        ) from error


def _pair(text: str, at: int) -> tuple[tuple[str, Any], int]:
    key, end = _decode(text, at)
    value, end = _decode(text, _end(_COLON.match(text, end)))
    if not isinstance(key, str):
        raise ValueError(f"key {key!r} is no text")
    return (key, value), end


def _end(match: re.Match[str] | None) -> int:
    if match is None:
        raise ValueError("a colon is missing")
    return match.end()
