"""HTTP requests to Graph, with a token, and to the login and download addresses, which must not receive one."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter

from drive_assets.resources.sharepoint.auth import MsalTokens
from drive_assets.resources.sharepoint.errors import (
    TRANSIENT,
    Operation,
    SharePointError,
    Unavailable,
    connection_error,
    error_of,
)
from drive_assets.resources.sharepoint.items import Item, parse_item
from drive_assets.resources.sharepoint.settings import CLOUDS, MAX_WORKERS, TIMEOUT_S, SharePointSettings
from model.common.downloads import Retries
from model.common.errors import DataError

EXPIRED = (401, 403, 404, 410)
"""Of a download address: the next try asks for a new one."""


class Transport:
    """Sends requests, and raises SharePointError, free of secrets, for those that fail. Thread-safe."""

    def __init__(
        self,
        settings: SharePointSettings,
        retries: Retries | None = None,
        on_device_code: Callable[[str], None] | None = None,
    ) -> None:
        """For one tenant.

        Args:
            retries: how long a call waits for the service; by default half an hour.
            on_device_code: receives the text that explains to a user how to sign in; None refuses sign-ins by a user.
        """
        self.settings, self.retry = settings, retries or Retries("SharePoint")
        self.requests_sent = 0
        """Requests to Graph, without those to the login."""
        self.tokens = MsalTokens(settings, self.send, self.retry.clock, on_device_code)
        self._origins = {_origin(settings.graph), _origin(CLOUDS[settings.cloud][0])}
        self._session = _Session()
        self._session.max_redirects = 3
        self._session.mount("https://", HTTPAdapter(pool_maxsize=MAX_WORKERS))
        agent = f"NONISV|{settings.company}|drive-assets/{metadata.version('drive-assets')}"
        self._session.headers["User-Agent"] = agent
        for name in ("connectionpool", "connection", "poolmanager", "response", "util.retry"):
            logging.getLogger(f"urllib3.{name}").setLevel(logging.ERROR)  # its records hold whole addresses

    def get_json(self, address: str, operation: Operation) -> dict[str, Any]:
        """GET from Graph. `address` begins with / (below the version) or is a link that Graph returned."""

        def attempt() -> dict[str, Any]:
            response = self._graph(address, operation, allow_redirects=False)
            if response.status_code != 200:
                raise error_of(response, operation)
            with contextlib.suppress(ValueError, TypeError):
                return dict(response.json())
            raise Unavailable(f"{operation.name} failed: the response is no JSON object.", response.status_code)

        return self.retry(attempt)

    def item(self, drive_id: str, item_id: str) -> Item:
        """An item by its id."""
        address = f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}"
        return parse_item(self.get_json(address, Operation(f"Looking up item {item_id}")))

    @contextlib.contextmanager
    def content(self, drive_id: str, item_id: str, ranged: str, operation: Operation) -> Iterator[requests.Response]:
        """One attempt, inside `retry`: the bytes of a range such as "5-", or all if it is empty.

        Graph redirects to a short-lived address. Whoever has that can read the file, so that it is never stored or
        shown.

        Yields:
            A response of status 200 (the whole file, even if a range was requested), 206 or 416; its body is unread.
        """
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={ranged}"} if ranged else {})
        address = f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}/content"
        with self._graph(address, operation, headers, stream=True) as response:
            status = response.status_code
            # The body of an error must never become content.
            if status != 200 and not (ranged and status in (206, 416)):
                if not response.history:
                    raise error_of(response, operation)
                kind = Unavailable if status in EXPIRED else SharePointError
                raise kind(f"{operation.name} failed: HTTP {status} of the download address.", status)
            yield response

    def send(
        self, operation: Operation, method: str, url: str, quotes_body: bool = False, **options: Any
    ) -> requests.Response:
        """Send a request; all calls observe the pause or slow-down that the response asks for.

        Args:
            quotes_body: whether errors may quote the code and message in the body.

        Raises:
            Unavailable: a retry may succeed.
            SharePointError: there is no connection, or the response reports malware.
        """
        response: requests.Response | None = None
        # With `auth`, requests uses no password from ~/.netrc; with `verify`, no REQUESTS_CA_BUNDLE.
        options = {
            "auth": lambda request: request,
            "verify": str(self.settings.ca_bundle or "") or True,
            "timeout": TIMEOUT_S,
            **options,
        }
        try:
            response = self._session.request(method, url, **options)
        except OSError as error:  # those of requests are among them
            failure = connection_error(error, url, operation)
        if response is None:  # raised out here: a chained exception would hold the whole address
            raise failure
        for each in (*response.history, response):
            with contextlib.suppress(KeyError, ValueError):
                remaining, reset = (float(each.headers[f"RateLimit-{name}"]) for name in ("Remaining", "Reset"))
                self.retry.pause(reset / max(remaining, 1))  # spreads the remaining requests over the time until then
        if response.status_code in TRANSIENT:
            with response:
                raise error_of(response, operation, quotes_body and not response.history)
        return response

    def _graph(
        self, address: str, operation: Operation, headers: dict[str, str] | None = None, **options: Any
    ) -> requests.Response:
        url = f"{self.settings.graph}/v1.0{address}" if address.startswith("/") else address
        if _origin(url) not in self._origins:  # the token must not be sent there
            raise SharePointError(
                f"{operation.name} failed: the link leads to another host than Graph's. Reset the sensor's cursor."
            )
        for _ in range(2):
            token = self.tokens.token()
            self.requests_sent += 1
            sent = {"Authorization": f"Bearer {token}", **(headers or {"Accept": "application/json"})}
            response = self.send(operation, "GET", url, True, headers=sent, **options)
            if response.status_code != 401 or response.history:
                break
            self.tokens.renew(token)
        return response


class _Session(requests.Session):
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """No address that a request is redirected to receives the token, and all begin with https."""
        if _origin(prepared_request.url or "")[0] != "https":
            raise SharePointError(
                f"{urlsplit(response.url).hostname} redirects to an address without https, where the content could be "
                "altered: check the proxy, or try again later."
            )
        prepared_request.headers.pop("Authorization", None)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def quote_id(name: str) -> str:
    """An id as a segment of a path: drives begin with b!, whose ! stays."""
    return quote(name, safe="!,")


def quote_path(path: str) -> str:
    """A path whose segments may hold any character, # and % included."""
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") for segment in segments):
        raise DataError(f"The path {path!r} has a segment . or .. : give it from the top of the library.")
    return "/".join(quote(segment, safe="") for segment in segments)
