"""The faults of the server that a test can request."""

from dataclasses import dataclass

from starlette.responses import Response

STATUS = {
    "throttle": (429, "activityLimitReached", "The app or user has been throttled."),
    "unavailable": (503, "serviceNotAvailable", "The service is not available. Try the request again after a delay."),
    "error": (500, "generalException", "General exception while processing."),
    "denied": (403, "accessDenied", "Access denied. You do not have permission to perform this action."),
}
"""Kinds that answer any request with an error: its status, code and message."""

TOKEN = {"expired_token"}
DELTA = {"gone", "repeat_items", "out_of_order", "missing_tombstone"}
LIST = {"empty_page", "repeated_next"}
ITEM = {"wrong_hash", "wrong_size", "missing_hash", "malware", "missing_ctag", "nameless"}
RANGE = {"ignore_range", "wrong_range"}
BODY = {"cut", "stall", "corrupt", "truncate", "changed_while_read"}
KINDS = {*STATUS, *TOKEN, *DELTA, *LIST, *ITEM, *RANGE, *BODY, "expired_url", "rate_limit"}


@dataclass(frozen=True)
class Fault:
    """One kind of fault, for the next `count` requests to which it applies and that match.

    Any request to Graph or a download URL (to the login only if `match` names its path):
      throttle (429), unavailable (503): with Retry-After: `retry_after` (None: without); error (500); denied
      (403). `status` and `code` override.
      rate_limit: a valid response with the headers `RateLimit-Remaining: remaining`, Reset: `retry_after`.
    Graph: expired_token (401; invalidates every token).
    Delta: gone (410, if a token was sent; `code`, `location`), and for a new round: repeat_items (each matching item is
      listed in an earlier state first), out_of_order (children before parents), missing_tombstone.
    Lists and delta: empty_page (no items, a nextLink), repeated_next (the nextLink is the requested link).
    An item in a response (`count` counts its occurrences): wrong_hash, wrong_size (times `factor`), missing_hash,
      missing_ctag, malware, nameless (a tombstone without its name).
    Download URL: expired_url (`status`: 401, 403, 404 or 410), ignore_range (200), wrong_range (206 of another range),
      cut (the connection ends after `at` bytes of the body, default half), truncate (a whole response of `at` bytes),
      stall (a pause of `seconds` after `at` bytes), corrupt (the byte `at` is wrong), changed_while_read (after `at`
      bytes, the file on disk is replaced by `content`, default its bytes rotated by one, and the response continues
      with that).
    """

    kind: str
    count: int | None = 1
    """How often; None: always."""
    match: str = ""
    """Part of the request's decoded path with query, or of the item's path in the library."""
    after: int = 0
    """Number of matching requests that succeed before the first that fails."""
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
    """The faults that are still to occur."""

    def __init__(self) -> None:
        self._waiting: list[list] = []  # [fault, to pass, left]

    def add(self, fault: Fault) -> None:
        self._waiting.append([fault, fault.after, fault.count])

    def take(self, kinds: set[str], *where: str, must_match: bool = False) -> Fault | None:
        """The first fault of these kinds for this request, counted; `where`: texts that it may match."""
        for state in self._waiting:
            fault, to_pass, left = state
            if fault.kind not in kinds or not any(fault.match in text for text in where):
                continue
            if must_match and not fault.match:
                continue
            if to_pass:
                state[1] -= 1
            elif left != 0:
                state[2] = None if left is None else left - 1
                return fault
        return None


class Refusal(Exception):
    """Raised instead of a response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response
