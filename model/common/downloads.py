"""Downloads over HTTP that resume: a loop that repeats failed calls, and a file that grows until it is complete."""

import contextlib
import random
import re
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from model.common.errors import PassingError

if TYPE_CHECKING:
    import requests

T = TypeVar("T")
MAX_FAILURES = 6
"""Failures in a row after which a call gives up: about half a minute."""
MAX_BACKOFF_S = 60.0
DEFAULT_PAUSE_S = 10.0
"""After a 429 without Retry-After."""
CHUNK = 1 << 18
"""Bytes read at a time."""


class Clock(Protocol):
    """The part of the module `time` that is used; tests pass a clock that needs no waiting."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class Throttled(PassingError):
    """The service asks for a longer pause than the caller may wait."""


class Retries:
    """Repeats calls that fail for a while. Thread-safe: a pause that one call is asked for applies to all."""

    def __init__(self, service: str, clock: Clock = time, patience_s: float = 1800.0) -> None:
        """For calls of `service`, of which each waits at most `patience_s` in all."""
        self.clock = clock
        self._service = service
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._paused_until = 0.0

    def pause(self, seconds: float) -> None:
        """Start no call within `seconds`."""
        with self._lock:
            self._paused_until = max(self._paused_until, self.clock.monotonic() + seconds)

    def __call__(self, attempt: Callable[[], T], log: Callable[[str], None] = lambda line: None) -> T:
        """Call `attempt` until it raises no PassingError.

        Raises:
            PassingError: the last failure, after MAX_FAILURES in a row without progress.
            Throttled: the service asks for a longer pause than the patience.
        """
        end, failures = self.clock.monotonic() + self._patience_s, 0
        while True:
            while (delay := self._paused_until - self.clock.monotonic()) > 0:
                if self.clock.monotonic() + delay > end:
                    raise Throttled(f"{self._service} asks for a pause of {delay:.0f} s. Try again after that.")
                self.clock.sleep(delay)
            try:
                return attempt()
            except PassingError as error:
                if error.pause_s is not None:
                    log(f"{error} The next try is in {error.pause_s:.0f} s.")
                    self.pause(max(error.pause_s, 1.0))
                    continue
                failures = 1 if error.progressed else failures + 1
                wait = min(MAX_BACKOFF_S, 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)
                if failures >= MAX_FAILURES or self.clock.monotonic() + wait > end:
                    raise
                log(f"{error} The next try is in {wait:.0f} s.")
            self.clock.sleep(wait)


def open_partial(path: Path, resume: bool) -> FileIO:
    """A file that `receive` appends to. Missing parent folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileIO(path, "a" if resume else "w")


def receive(response: "requests.Response", file: FileIO, label: str, progress: Callable[[int], None]) -> None:
    """Append a response of status 200, 206 or 416 to `file`, which is emptied first if it begins elsewhere.

    Args:
        label: what is downloaded, for errors.
        progress: receives the file's size.

    Raises:
        PassingError: the connection was cut, or the range is not the requested one.
        OSError: the file cannot be written.
    """
    size = file.tell()
    start, total = content_range(response)
    if response.status_code == 416 and total == size:
        return
    if start != size:
        file.seek(0)
        file.truncate()
        if response.status_code != 200:
            raise PassingError(f"{label} failed: the server sent another range than requested.")
    reason = "the response ended early"
    try:
        while chunk := response.raw.read(CHUNK, decode_content=False):
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]
            progress(file.tell())
    except HTTPError as error:
        reason = type(error).__name__
    else:
        if file.tell() >= total:
            return
    failure = PassingError(f"{label} failed: the connection was cut repeatedly ({reason}). A new try resumes.")
    failure.progressed = start == size < file.tell()
    raise failure


def content_range(response: "requests.Response") -> tuple[int, int]:
    """First byte and total size of the file, by Content-Range or Content-Length; -1 if unknown."""
    if response.status_code == 200:
        return 0, int(response.headers.get("Content-Length", -1))
    named = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    start, total = named.groups() if named else (None, None)
    return int(start or -1), int(total) if total not in (None, "*") else -1


def requested_pause(response: "requests.Response") -> float | None:
    """Seconds that a response of status 429 or 503 asks to wait, by Retry-After, which holds seconds or a date."""
    pause = DEFAULT_PAUSE_S if response.status_code == 429 else None
    if response.status_code in (429, 503) and "Retry-After" in response.headers:
        with contextlib.suppress(InvalidHeader):
            pause = Retry().parse_retry_after(response.headers["Retry-After"])
    return pause
