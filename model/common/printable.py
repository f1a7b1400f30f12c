"""Names from outside, such as those of files, made safe to print: a line break in one must forge no line of a log."""

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line separators, and bytes of a name that are not UTF-8."""


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes escaped."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def is_printable(text: str) -> bool:
    return not _UNPRINTABLE.search(text)
