"""How the server misbehaves when it is told to."""

import threading
from dataclasses import dataclass

STATUS = {
    "throttle": (429, "activityLimitReached", "The app or user has been throttled."),
    "unavailable": (503, "serviceNotAvailable", "The service is not available. Try the request again after a delay."),
    "error": (500, "generalException", "General exception while processing."),
    "bad_gateway": (502, "UnknownError", ""),
    "coherent_view": (500, "generalException", "A coherent view of the changes could not be established."),
    "denied": (403, "accessDenied", "Access denied. You do not have permission to perform this action."),
}
"""Kinds that answer any request with an error: status, code, message."""

TOKEN = {"expired_token"}
DELTA = {"gone", "repeat_items", "out_of_order", "missing_tombstone"}
LIST = {"empty_page", "repeated_next"}
ITEM = {"wrong_hash", "wrong_size", "missing_hash", "malware", "missing_ctag", "nameless"}
RANGE = {"ignore_range", "wrong_range"}
BODY = {"cut", "stall", "corrupt", "truncate", "changed_while_read"}
KINDS = {*STATUS, *TOKEN, *DELTA, *LIST, *ITEM, *RANGE, *BODY, "expired_url", "rate_limit"}


@dataclass(frozen=True)
class Fault:
    """One kind of misbehaviour, for the next `count` requests that it can befall and that match.

    Any request of Graph or of a download URL (of the login host only where `match` names its path):
      throttle (429), unavailable (503): with Retry-After: `retry_after` (None: without); error (500); bad_gateway
      (`status`: 502, 504 or 509); coherent_view (500); denied (403). `status` and `code` override.
      rate_limit: the answer is good but its headers say `RateLimit-Remaining: remaining`, Reset: `retry_after`.
    Graph: expired_token (401; every token issued so far is void).
    Delta: gone (410, when a token was sent; `code`, `location`), and for a round that starts: repeat_items (each
      matching item comes first in a stale form), out_of_order (children before parents), missing_tombstone.
    Lists and delta: empty_page (no items, a nextLink), repeated_next (the nextLink is the link just asked for).
    An item that is shown (`count` counts the showings): wrong_hash, wrong_size (times `factor`), missing_hash,
      missing_ctag, malware, nameless (a tombstone without its name).
    Download URL: expired_url (`status`: 401, 403, 404 or 410), ignore_range (200), wrong_range (206 of another range),
      cut (the connection ends after `at` bytes of the body, default half), truncate (a whole answer, of `at` bytes),
      stall (a pause of `seconds` after `at` bytes), corrupt (the byte `at` is wrong), changed_while_read (after `at`
      bytes the file on disk gets `content`, default its bytes turned by one, and the rest of the answer is of that).
    """

    kind: str
    count: int | None = 1
    """How often; None: for good."""
    match: str = ""
    """Part of the request's decoded path with query, or of the path of the item in its library."""
    after: int = 0
    """So many matching requests pass before the first that fails."""
    status: int | None = None
    code: str | None = None
    retry_after: float | None = 1
    remaining: int = 5
    location: bool = True
    at: int | None = None
    seconds: float = 2.0
    content: bytes | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Unknown fault {self.kind!r}; known: {', '.join(sorted(KINDS))}")


class Faults:
    """The faults that wait; several threads take from it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[list] = []  # [fault, to pass, left]

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append([fault, fault.after, fault.count])

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def take(self, kinds: set[str], *where: str, must_match: bool = False) -> Fault | None:
        """The first fault of these kinds that befalls this request, used up by one; `where`: what it may match."""
        if not self._waiting:
            return None
        with self._lock:
            for state in self._waiting:
                fault, to_pass, left = state
                if fault.kind not in kinds or not any(fault.match in text for text in where):
                    continue
                if must_match and not fault.match:
                    continue
                if to_pass:
                    state[1] -= 1
                    continue
                if left is not None:
                    state[2] -= 1
                    if left == 1:
                        self._waiting.remove(state)
                return fault
        return None
