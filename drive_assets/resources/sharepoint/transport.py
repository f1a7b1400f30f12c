"""HTTP to Graph, to the login and to download addresses: one retry loop, one pause shared by all workers."""

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from drive_assets.resources.sharepoint.auth import MsalTokens
from drive_assets.resources.sharepoint.items import AccessError, SharePointError, Throttled, Unavailable
from drive_assets.resources.sharepoint.pace import Pace
from drive_assets.resources.sharepoint.responses import (
    REDIRECTS,
    Operation,
    Response,
    connection_error,
    quote_id,
)
from drive_assets.resources.sharepoint.settings import CLOUDS, TIMEOUT_S, SharePointSettings

T = TypeVar("T")

MAX_FAILURES = 6
"""Failures in a row after which a call gives up: about half a minute."""
MAX_PAUSES = 30
"""Pauses in a row that the service names, after which a call gives up."""
MAX_BACKOFF_S = 60.0
MAX_REDIRECTS = 3


class Transport:
    """Sends requests. Thread-safe: one session per thread, and a lock around shared state."""

    def __init__(self, settings: SharePointSettings, tokens: MsalTokens, pace: Pace, patience_s: float) -> None:
        self.settings = settings
        self.tokens = tokens
        self.pace = pace
        self.clock = pace.clock
        self.patience_s = patience_s
        self.requests_sent = 0
        self._lock = threading.Lock()
        self._threads = threading.local()
        self._origins = {_origin(settings.graph), _origin(CLOUDS[settings.cloud][0])}
        self._headers = {"User-Agent": f"NONISV|{settings.company}|drive-assets/{_version()}"}
        _keep_addresses_out_of_logs()

    def retry(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it raises neither Unavailable nor, once, a 401: the client's only retry loop.

        Raises:
            SharePointError: the last failure, after MAX_FAILURES in a row.
            Throttled: the service asks for a longer pause than the client's patience.
        """
        started = self.clock.monotonic()
        tries: Counter[str] = Counter()
        while True:
            while (delay := self.pace.delay()) > 0:
                if self.clock.monotonic() + delay - started > self.patience_s:
                    raise Throttled(f"SharePoint asks for a pause of {delay:.0f} s. Try again after that.", 429)
                self.clock.sleep(delay)
            try:
                return attempt()
            except AccessError as error:
                if error.status != 401 or tries["401"]:
                    raise
                tries["401"] += 1
            except Unavailable as error:
                if error.progressed:
                    tries.clear()
                kind, most = ("pause", MAX_PAUSES) if error.paused else ("failure", MAX_FAILURES)
                tries[kind] += 1
                wait = 0.0 if error.paused else _backoff(tries[kind])
                if tries[kind] >= most or self.clock.monotonic() + wait - started > self.patience_s:
                    raise
                if wait:
                    self.clock.sleep(wait)

    def get_json(self, address: str, operation: Operation) -> dict[str, Any]:
        """GET from Graph. `address` begins with / (below the version) or is a link that Graph returned."""

        def attempt() -> dict[str, Any]:
            with self._graph(address, operation) as response:
                if response.status != 200:
                    raise response.error()
                return response.json()

        return self.retry(attempt)

    def download_address(self, drive_id: str, item_id: str, operation: Operation) -> "DownloadAddress":
        """One attempt, inside `retry`: a short-lived address of an item's content that needs no credentials."""
        with self._graph(f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}/content", operation) as response:
            if response.status not in REDIRECTS:
                raise response.error()
            return DownloadAddress(response.location())

    @contextmanager
    def content(self, address: "DownloadAddress", ranged: str, operation: Operation) -> Iterator[Response]:
        """One attempt, inside `retry`: the bytes of a range such as "5-", or all if it is empty, without credentials.

        Yields:
            A response of status 200 (the whole file, even if a range was requested), 206 or 416; its body is unread.
        """
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={ranged}"} if ranged else {})
        url = address.url
        for _ in range(MAX_REDIRECTS):
            with self._send(url, headers, operation, stream=True) as response:
                if response.status not in REDIRECTS:
                    response.check_content(bool(ranged))
                    yield response
                    return
                url = response.location()
        raise SharePointError(f"{operation.name} failed: the download address redirects in a circle. Try later.")

    @contextmanager
    def _graph(self, address: str, operation: Operation) -> Iterator[Response]:
        url = f"{self.settings.graph}/v1.0{address}" if address.startswith("/") else address
        if _origin(url) not in self._origins:  # the token must not be sent there
            raise SharePointError(
                f"{operation.name} failed: the link leads to another host than Graph's. Start a new delta round."
            )
        token = self.tokens.token()
        with self._lock:
            self.requests_sent += 1
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
        with self._send(url, headers, operation) as response:
            if response.status == 401:
                self.tokens.renew(token)
                raise response.error()
            yield response

    @contextmanager
    def _send(
        self, url: str, headers: Mapping[str, str], operation: Operation, stream: bool = False
    ) -> Iterator[Response]:
        response: requests.Response | None = None
        with _without_urllib3_log():
            try:
                response = self._session.get(
                    url,
                    headers={**self._headers, **headers},
                    auth=_no_netrc,
                    verify=self.settings.verify,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                    stream=stream,
                )
            except OSError as error:  # those of requests are among them
                failure = connection_error(error, url, operation)
            if response is None:  # raised out here: a chained exception would hold the whole address
                raise failure
            with response:
                wrapped = Response(response, operation, is_graph=not stream)
                if transient := wrapped.transient_error(self.pace):
                    raise transient
                yield wrapped

    @property
    def _session(self) -> requests.Session:
        if not hasattr(self._threads, "session"):
            self._threads.session = requests.Session()
        return self._threads.session


class DownloadAddress:
    """A pre-authenticated address: whoever has it can read the file, so that it is never stored or shown."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return "<download address>"


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The `auth` of requests; without one, requests would use a password for the host from ~/.netrc."""
    return request


_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def _without_urllib3_log() -> Iterator[None]:
    """Drop urllib3's log records, which hold whole addresses."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def _is_logged(record: logging.LogRecord) -> bool:
    return not _silent.get()


def _keep_addresses_out_of_logs() -> None:
    for name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
        logging.getLogger(f"urllib3.{name}").addFilter(_is_logged)


def _backoff(failures: int) -> float:
    """Seconds to wait after this many failures in a row: exponential, with jitter."""
    return min(MAX_BACKOFF_S, 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _version() -> str:
    try:
        return metadata.version("drive-assets")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "0"
