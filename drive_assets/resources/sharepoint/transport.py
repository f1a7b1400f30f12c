"""Requests to Graph, with a token, and to download addresses, which must not receive one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from drive_assets.resources.sharepoint.auth import MsalTokens
from drive_assets.resources.sharepoint.http import Http, Operation, error_of, quote_id
from drive_assets.resources.sharepoint.items import Item, SharePointError, Unavailable, parse_item
from drive_assets.resources.sharepoint.settings import CLOUDS, SharePointSettings
from model.common.downloads import Retries

REDIRECTS = (301, 302, 303, 307, 308)
EXPIRED = (401, 403, 404, 410)
"""Of a download address: the client asks for a new one."""
MAX_REDIRECTS = 3


class Transport:
    """Sends requests. Thread-safe."""

    def __init__(
        self, settings: SharePointSettings, retries: Retries, on_device_code: Callable[[str], None] | None
    ) -> None:
        self.settings, self.retry, self.requests_sent = settings, retries, 0
        self._http = Http(settings, retries)
        self.tokens = MsalTokens(settings, self._http, retries.clock, on_device_code)
        self._origins = {_origin(settings.graph), _origin(CLOUDS[settings.cloud][0])}

    def get_json(self, address: str, operation: Operation) -> dict[str, Any]:
        """GET from Graph. `address` begins with / (below the version) or is a link that Graph returned."""

        def attempt() -> dict[str, Any]:
            response = self._graph(address, operation)
            if response.status_code != 200:
                raise error_of(response, operation)
            try:
                return dict(response.json())
            except (ValueError, TypeError):
                pass  # raised below: the exception holds the response
            raise Unavailable(f"{operation.name} failed: the response is no JSON object.", response.status_code)

        return self.retry(attempt)

    def item(self, drive_id: str, item_id: str) -> Item:
        """An item by its id."""
        address = f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}"
        return parse_item(self.get_json(address, Operation(f"Looking up item {item_id}")))

    def download_address(self, drive_id: str, item_id: str, operation: Operation) -> str:
        """One attempt, inside `retry`: a short-lived address of an item's content.

        Whoever has it can read the file, so that it is never stored or shown.
        """
        response = self._graph(f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}/content", operation)
        if response.status_code not in REDIRECTS:
            raise error_of(response, operation)
        return _location(response, operation)

    @contextmanager
    def content(self, address: str, ranged: str, operation: Operation) -> Iterator[requests.Response]:
        """One attempt, inside `retry`: the bytes of a range such as "5-", or all if it is empty, without credentials.

        Yields:
            A response of status 200 (the whole file, even if a range was requested), 206 or 416; its body is unread.
        """
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={ranged}"} if ranged else {})
        for _ in range(MAX_REDIRECTS):
            with self._http.send(
                operation, "GET", address, headers=headers, stream=True, allow_redirects=False
            ) as response:
                status = response.status_code
                if status in REDIRECTS:
                    address = _location(response, operation)
                    continue
                # The body of an error must never become content.
                if status != 200 and not (ranged and status in (206, 416)):
                    kind = Unavailable if status in EXPIRED else SharePointError
                    raise kind(f"{operation.name} failed: HTTP {status} of the download address.", status)
                yield response
                return
        raise SharePointError(f"{operation.name} failed: the download address redirects in a circle. Try later.")

    def _graph(self, address: str, operation: Operation) -> requests.Response:
        url = f"{self.settings.graph}/v1.0{address}" if address.startswith("/") else address
        if _origin(url) not in self._origins:  # the token must not be sent there
            raise SharePointError(
                f"{operation.name} failed: the link leads to another host than Graph's. Start a new delta round."
            )
        for _ in range(2):
            token = self.tokens.token()
            self.requests_sent += 1
            headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
            response = self._http.send(operation, "GET", url, True, headers=headers, allow_redirects=False)
            if response.status_code != 401:
                break
            self.tokens.renew(token)
        return response


def _location(response: requests.Response, operation: Operation) -> str:
    """The address that a redirect names."""
    url = urljoin(response.url, response.headers.get("Location", ""))
    if "Location" not in response.headers or urlsplit(url).scheme != "https":
        raise SharePointError(f"{operation.name} failed: HTTP {response.status_code} without an https address.")
    return url


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
