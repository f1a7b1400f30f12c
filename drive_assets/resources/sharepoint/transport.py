"""HTTP to Graph, to the login and to download addresses: one retry loop, one pause shared by all workers."""

import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import requests

from drive_assets.resources.sharepoint.items import (
    AccessError,
    NotFound,
    Quarantined,
    ResyncRequired,
    SharePointError,
    Throttled,
)
from drive_assets.resources.sharepoint.settings import CLOUDS, SharePointSettings
from model.common.errors import DataError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

T = TypeVar("T")

TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two pieces of an answer."""
MOST_FAILURES = 6
"""Failures in a row after which a call gives up: about half a minute."""
MOST_THROTTLES = 30
LONGEST_BACKOFF_S = 60.0
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 3
PASSING = (500, 502, 504, 509)
"""Errors of the service that pass by themselves, like 429 and 503, which say when."""
DEFAULT_PAUSE_S = 10.0
"""After a 429 that does not say for how long."""
EXPIRED = (401, 403, 404, 410)
"""A download address that is no longer good: a new one is asked for."""
TOLD_CHARACTERS = 300


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def now(self) -> float:
        """Seconds of a clock that never goes back."""

    def sleep(self, seconds: float) -> None: ...


class _RealClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


REAL_CLOCK: Clock = _RealClock()


class Tokens(Protocol):
    """Where access tokens come from."""

    def token(self) -> str:
        """One that is good for some minutes. Raises Trouble where asking again can help."""

    def renew(self, refused: str) -> None:
        """Forget a token that the service refused."""


class Trouble(Exception):
    """A failure that may pass by itself; the retry loop raises `error` when it gives up."""

    def __init__(self, error: SharePointError, paused: bool = False, progressed: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.paused = paused
        """The service said how long to wait: the shared pause sees to it."""
        self.progressed = progressed
        """Something was gained before the failure: it counts as the first in a row again."""


class Unauthorized(Trouble):
    """The token was refused and is renewed; once a call, this alone may put it right."""


@dataclass(frozen=True)
class Advice:
    """Words of an error for the user."""

    what: str
    """What was tried: "Listing folder x"."""
    denied: str = "Grant the app the role read on the site (docs/sharepoint.md)."
    missing: str = "Check whether it was renamed, moved or deleted."


class Pace:
    """When the next request may start. A pause or a slow-down that one worker is told of holds for all."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._slow_until = 0.0
        self._interval = 0.0
        self._next_start = 0.0

    def pause(self, seconds: float) -> None:
        """Let nobody start within `seconds`."""
        with self._lock:
            self._paused_until = max(self._paused_until, self.clock.now() + seconds)

    def spread(self, remaining: int, reset_s: float) -> None:
        """Spread the `remaining` requests over the `reset_s` seconds until the service counts anew."""
        if remaining <= 0:
            self.pause(reset_s)
            return
        with self._lock:
            now = self.clock.now()
            self._slow_until, self._interval = now + reset_s, reset_s / remaining
            self._next_start = max(self._next_start, now + self._interval)

    def delay(self) -> float:
        """Seconds until the next request may start; takes its place in the row if it is 0 or less."""
        with self._lock:
            now = self.clock.now()
            start = self._paused_until
            if now < self._slow_until:
                start = max(start, self._next_start)
            if start <= now:
                self._next_start = now + self._interval
            return start - now


class Transport:
    """Sends requests. Thread-safe: a session a thread, and a lock round what is shared."""

    def __init__(self, settings: SharePointSettings, tokens: Tokens, pace: Pace, patience_s: float) -> None:
        self.settings = settings
        self.tokens = tokens
        self.pace = pace
        self.clock = pace.clock
        self.patience_s = patience_s
        self.requests_made = 0
        self._lock = threading.Lock()
        self._threads = threading.local()
        self._origins = {_origin(settings.graph), _origin(CLOUDS[settings.cloud][0])}
        self._headers = {"User-Agent": f"NONISV|{settings.company}|drive-assets/{_version()}"}
        _keep_addresses_out_of_logs()

    def retry(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it raises no Trouble: the one place where this client waits and tries again.

        Raises:
            SharePointError: of the last Trouble, after MOST_FAILURES in a row.
            Throttled: the service wants to be left alone for longer than the client's patience.
        """
        started = self.clock.now()
        failures = throttles = 0
        renewed = False
        while True:
            while (delay := self.pace.delay()) > 0:
                if self.clock.now() + delay - started > self.patience_s:
                    raise Throttled(
                        f"SharePoint asks to be left alone for {delay:.0f} s more. Nothing is wrong: try again then.",
                        delay,
                        status=429,
                    )
                self.clock.sleep(delay)
            try:
                return attempt()
            except Trouble as caught:
                trouble = caught
            if trouble.progressed:
                failures, throttles, renewed = 0, 0, False
            if isinstance(trouble, Unauthorized) and not renewed:
                renewed = True
            elif isinstance(trouble, Unauthorized):
                raise trouble.error
            elif trouble.paused:
                throttles += 1
            else:
                failures += 1
                wait = min(LONGEST_BACKOFF_S, 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)
                if failures < MOST_FAILURES and self.clock.now() + wait - started <= self.patience_s:
                    self.clock.sleep(wait)
                else:
                    raise trouble.error
            if throttles >= MOST_THROTTLES:
                raise trouble.error

    def get_json(self, address: str, advice: Advice, private: bool = False) -> dict[str, Any]:
        """The answer to a GET of Graph. `address` begins with / (below the version) or is a link that Graph gave.

        Args:
            private: the address must stand in no log.
        """

        def attempt() -> dict[str, Any]:
            with quiet(private), self._graph(address, advice) as answer:
                answer.check(advice, (200,))
                return answer.json(advice)

        return self.retry(attempt)

    def download_address(self, drive_id: str, item_id: str, advice: Advice) -> "DownloadAddress":
        """One attempt, inside `retry`: where an item's content can be had for a short time without credentials."""
        with quiet(), self._graph(f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}/content", advice) as answer:
            answer.check(advice, REDIRECTS)
            return DownloadAddress(answer.location(advice))

    @contextmanager
    def content(self, address: "DownloadAddress", start: int, end: int | None, advice: Advice) -> Iterator["Answer"]:
        """One attempt, inside `retry`: the bytes from `start` to before `end` (None: all), without credentials.

        Yields:
            An answer of status 200 (the whole file, though a range was asked for), 206 or 416, whose body is unread.
        """
        headers = {"Accept-Encoding": "identity"}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        url = address.url
        with quiet():
            for _ in range(MOST_REDIRECTS):
                with self._send(url, headers, _no_credentials, advice, stream=True) as answer:
                    if answer.status not in REDIRECTS:
                        answer.check_content(advice, ranged="Range" in headers)
                        yield answer
                        return
                    url = answer.location(advice)
        raise SharePointError(f"{advice.what} failed: the download address leads round in circles. Try later.")

    @contextmanager
    def _graph(self, address: str, advice: Advice) -> Iterator["Answer"]:
        url = f"{self.settings.graph}/v1.0{address}" if address.startswith("/") else address
        if _origin(url) not in self._origins:  # the token must not be sent there
            raise SharePointError(
                f"{advice.what} failed: the link leads to another host than Graph's. Start a new delta round."
            )
        token = self.tokens.token()
        with self._lock:
            self.requests_made += 1
        with self._send(url, {"Accept": "application/json"}, _Bearer(token), advice) as answer:
            if answer.status == 401:
                self.tokens.renew(token)
                raise Unauthorized(answer.error(advice))
            yield answer

    @contextmanager
    def _send(
        self, url: str, headers: Mapping[str, str], auth: "Credentials", advice: Advice, stream: bool = False
    ) -> Iterator["Answer"]:
        response: requests.Response | None = None
        try:
            response = self._session.get(
                url,
                headers={**self._headers, **headers},
                auth=auth,
                verify=self.settings.verify,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                stream=stream,
            )
        except requests.RequestException as error:
            failure = connection_failure(error, url, advice)
        if response is None:  # raised out here, so that it does not carry the exception that knows the whole address
            raise failure
        with response:
            answer = Answer(response, is_graph=not stream)
            remaining, reset = answer.number("RateLimit-Remaining"), answer.number("RateLimit-Reset")
            if remaining is not None and reset is not None:
                self.pace.spread(int(remaining), reset)
            if answer.status in (429, 503):
                wait = answer.retry_after()
                if wait is None and answer.status == 429:
                    wait = DEFAULT_PAUSE_S
                if wait is not None:
                    self.pace.pause(wait)
                raise Trouble(answer.error(advice), paused=wait is not None)
            if answer.status in PASSING:
                raise Trouble(answer.error(advice))
            yield answer

    @property
    def _session(self) -> requests.Session:
        if not hasattr(self._threads, "session"):
            self._threads.session = requests.Session()
        return self._threads.session


class DownloadAddress:
    """Whoever has a pre-authenticated address can read the file: it is never stored, and shows itself to nobody."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return "<download address>"


class Answer:
    """An answer whose errors are told in this client's words."""

    def __init__(self, response: requests.Response, is_graph: bool) -> None:
        self._response = response
        self._is_graph = is_graph
        self.status = response.status_code
        self.body: BaseHTTPResponse = response.raw
        """Unread where it is content."""

    def __repr__(self) -> str:
        return f"<answer {self.status}>"

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    def number(self, name: str) -> float | None:
        """A header that is a number, if it is there and is one."""
        try:
            return max(0.0, float(self.header(name)))
        except ValueError:
            return None

    def retry_after(self) -> float | None:
        """Seconds to wait; the header holds them, or a date."""
        seconds = self.number("Retry-After")
        if seconds is not None or not self.header("Retry-After"):
            return seconds
        try:
            until = parsedate_to_datetime(self.header("Retry-After"))
            now = parsedate_to_datetime(self.header("Date"))
        except (TypeError, ValueError):
            return None
        return max(0.0, (until - now).total_seconds())

    def json(self, advice: Advice) -> dict[str, Any]:
        try:
            content = json.loads(self._response.content)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise Trouble(SharePointError(f"{advice.what} failed: the answer is no JSON object.", self.status))
        return content

    def location(self, advice: Advice) -> str:
        """The address that a redirect names, made absolute."""
        url = urljoin(self._response.url, self.header("Location"))
        if not self.header("Location") or urlsplit(url).scheme != "https":
            raise SharePointError(f"{advice.what} failed: HTTP {self.status} without an https address.", self.status)
        return url

    def check(self, advice: Advice, accepted: Collection[int]) -> None:
        """Raises the error that an answer of Graph means, unless its status is one of `accepted`."""
        if self.status not in accepted:
            raise self.error(advice)

    def check_content(self, advice: Advice, ranged: bool) -> None:
        """Raises unless this is content: the body of an error is none."""
        if self.status == 200 or (ranged and self.status in (206, 416)):
            return
        error = SharePointError(f"{advice.what} failed: HTTP {self.status} of the download address.", self.status)
        if self.status in EXPIRED:
            raise Trouble(error)
        raise error

    def error(self, advice: Advice) -> SharePointError:
        """What a refusal by Graph means: its kind, status, code, message and what to do."""
        code, message = self._told()
        text = f"{advice.what} failed: HTTP {self.status} {code}".rstrip() + (f" ({message})." if message else ".")
        if code == "malwareDetected":
            return Quarantined(f"{text} SharePoint holds the file for malware: see to it there.", self.status, code)
        if self.status in (401, 403):
            return AccessError(f"{text} {advice.denied}", self.status, code)
        if self.status == 404:
            return NotFound(f"{text} {advice.missing}", self.status, code)
        if self.status == 410:
            location = self.header("Location") or None
            return ResyncRequired(f"{text} The delta round must start over.", location, self.status, code)
        if self.status in (429, 503, *PASSING):
            return SharePointError(f"{text} It was tried repeatedly; try again later.", self.status, code)
        return SharePointError(text, self.status, code)

    def _told(self) -> tuple[str, str]:
        """Code and message of Graph's error body. What a download host says is not told: it may hold its address."""
        if not self._is_graph:
            return "", ""
        try:
            told = json.loads(self._response.content)["error"]
            code, message = str(told.get("code") or ""), str(told.get("message") or "")
            inner = told.get("innerError") or told.get("innererror") or {}
            if inner.get("code") == "malwareDetected":
                code = "malwareDetected"
        except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException):
            return "", ""
        return scrub(code), scrub(message).rstrip(".")


Credentials = Callable[[requests.PreparedRequest], requests.PreparedRequest]
"""What requests calls `auth`. Always given, since requests would else take a password for the host from ~/.netrc."""


class _Bearer:
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def connection_failure(error: Exception, url: str, advice: Advice) -> Exception:
    """What to raise for an exception of requests, whose own text and attributes hold the whole address."""
    host = urlsplit(url).hostname
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return SharePointError(
            f"{advice.what} failed: the certificate of {host} is not trusted. If a proxy of yours opens TLS, set "
            "SHAREPOINT_CA_BUNDLE to its authority's PEM file."
        )
    if isinstance(error, ValueError):
        return SharePointError(f"{advice.what} failed: the address on {host} cannot be used ({type(error).__name__}).")
    if isinstance(error, requests.Timeout):
        reason = f"{host} did not answer in time"
    elif isinstance(error, requests.exceptions.ProxyError):
        reason = f"the proxy does not lead to {host}"
    else:
        reason = f"the connection to {host} failed ({type(error).__name__})"
    return Trouble(SharePointError(f"{advice.what} failed: {reason}. Check the network; what was done is kept."))


def scrub(text: str) -> str:
    """A text of the service on one line, shortened, and without what follows the host in an address."""
    line = " ".join(text.split())
    return re.sub(r"(https?://[^\s/]+)/\S*", r"\1/...", line)[:TOLD_CHARACTERS]


def quote_id(name: str) -> str:
    """An id as a segment of a path: drives begin with b!, whose ! stays."""
    return quote(name, safe="!,")


def quote_path(path: str) -> str:
    """A path whose segments may hold any character; # and % too are names, not syntax."""
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") for segment in segments):
        raise DataError(f"The path {path!r} has a segment . or .. : give it from the top of the library.")
    return "/".join(quote(segment, safe="") for segment in segments)


_private: ContextVar[bool] = ContextVar("private", default=False)


@contextmanager
def quiet(private: bool = True) -> Iterator[None]:
    """What urllib3 logs in here, at any level, is dropped: it logs whole addresses."""
    token = _private.set(private or _private.get())
    try:
        yield
    finally:
        _private.reset(token)


def _is_public(record: logging.LogRecord) -> bool:
    return not _private.get()


def _keep_addresses_out_of_logs() -> None:
    for name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
        logging.getLogger(f"urllib3.{name}").addFilter(_is_public)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _version() -> str:
    try:
        return metadata.version("drive-assets")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
