"""HTTP to Graph, to the login and to download addresses: one retry loop, one pause shared by all workers."""

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests

from drive_assets.resources.sharepoint.answers import (
    PASSING,
    REDIRECTS,
    Advice,
    Answer,
    DownloadAddress,
    Trouble,
    Unauthorized,
    connection_failure,
    quote_id,
)
from drive_assets.resources.sharepoint.items import SharePointError, Throttled
from drive_assets.resources.sharepoint.pace import Pace
from drive_assets.resources.sharepoint.settings import CLOUDS, SharePointSettings

T = TypeVar("T")

TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two pieces of an answer."""
MOST_FAILURES = 6
"""Failures in a row after which a call gives up: about half a minute."""
MOST_THROTTLES = 30
LONGEST_BACKOFF_S = 60.0
MOST_REDIRECTS = 3
DEFAULT_PAUSE_S = 10.0
"""After a 429 that does not say for how long."""


class Tokens(Protocol):
    """Where access tokens come from."""

    def token(self) -> str:
        """One that is good for some minutes. Raises Trouble where asking again can help."""

    def renew(self, refused: str) -> None:
        """Forget a token that the service refused."""


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
