"""HTTP responses of the service: JSON, redirects, and errors that tell the user what to do."""

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from drive_assets.resources.sharepoint.items import (
    AccessError,
    NotFound,
    Quarantined,
    ResyncRequired,
    SharePointError,
    Unavailable,
)
from drive_assets.resources.sharepoint.pace import Pace
from model.common.errors import DataError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

TRANSIENT = (429, 500, 502, 503, 504, 509)
DEFAULT_PAUSE_S = 10.0
"""After a 429 without Retry-After."""
REDIRECTS = (301, 302, 303, 307, 308)
EXPIRED = (401, 403, 404, 410)
"""Of a download address: the client asks for a new one."""
MAX_MESSAGE = 300
"""Characters of the service's message that an error quotes."""


@dataclass(frozen=True)
class Operation:
    """What a request is for, as errors word it."""

    name: str
    """Such as "Listing folder x"."""
    if_denied: str = "Grant the app the role read on the site (docs/sharepoint.md)."
    if_missing: str = "Check whether it was renamed, moved or deleted."


class Response:
    """A response of Graph, or, if not `is_graph`, of the login or a download address, whose body is not quoted."""

    def __init__(self, response: requests.Response, operation: Operation, is_graph: bool) -> None:
        self._response = response
        self._operation = operation
        self._is_graph = is_graph
        self.status = response.status_code
        self.body: BaseHTTPResponse = response.raw
        """Unread where it is content."""

    def __repr__(self) -> str:
        return f"<response {self.status}>"

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    def number(self, name: str) -> float | None:
        """A header's number, or None."""
        try:
            return max(0.0, float(self.header(name)))
        except ValueError:
            return None

    def transient_error(self, pace: Pace) -> Unavailable | None:
        """The error, if it may pass by itself. All workers observe the pause or slow-down that the headers ask for."""
        remaining, reset = self.number("RateLimit-Remaining"), self.number("RateLimit-Reset")
        if remaining is not None and reset is not None:
            pace.pause(reset / max(remaining, 1))  # spreads the remaining requests over the time until the reset
        error = self.error() if self.status in TRANSIENT else None
        if not isinstance(error, Unavailable):
            return None
        wait = DEFAULT_PAUSE_S if self.status == 429 else None
        if self.status in (429, 503) and self.header("Retry-After"):
            with contextlib.suppress(InvalidHeader):
                wait = Retry().parse_retry_after(self.header("Retry-After"))  # seconds or a date
        if wait is not None:
            pace.pause(wait)
            error.paused = True
        return error

    def content_range(self) -> tuple[int, int]:
        """First byte and total size of the file, by Content-Range or Content-Length; -1 if unknown."""
        if self.status == 200:
            length = self.number("Content-Length")
            return 0, -1 if length is None else int(length)
        named = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.header("Content-Range").strip())
        start, total = named.groups() if named else (None, None)
        return int(start or -1), int(total) if total not in (None, "*") else -1

    def json(self) -> dict[str, Any]:
        try:
            content = json.loads(self._response.content)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise Unavailable(f"{self._operation.name} failed: the response is no JSON object.", self.status)
        return content

    def location(self) -> str:
        """The absolute address that a redirect names."""
        url = urljoin(self._response.url, self.header("Location"))
        if not self.header("Location") or urlsplit(url).scheme != "https":
            raise SharePointError(f"{self._operation.name} failed: HTTP {self.status} without an https address.")
        return url

    def check_content(self, ranged: bool) -> None:
        """Raise unless the body is content: the body of an error must never become a file."""
        if self.status == 200 or (ranged and self.status in (206, 416)):
            return
        kind = Unavailable if self.status in EXPIRED else SharePointError
        raise kind(f"{self._operation.name} failed: HTTP {self.status} of the download address.", self.status)

    def error(self) -> SharePointError:
        """The error that a response of Graph stands for: its kind, status, code, message and what to do."""
        code, message = self._code_and_message()
        text = f"{self._operation.name} failed: HTTP {self.status} {code}".rstrip()
        text += f" ({message})." if message else "."
        if code == "malwareDetected":
            return Quarantined(f"{text} SharePoint reports malware in the file: check it there.", self.status, code)
        if self.status in (401, 403):
            return AccessError(f"{text} {self._operation.if_denied}", self.status, code)
        if self.status == 404:
            return NotFound(f"{text} {self._operation.if_missing}", self.status, code)
        if self.status == 410:
            return ResyncRequired(f"{text} The list of changes must restart.", self.status, code)
        if self.status in TRANSIENT:
            return Unavailable(f"{text} Several retries failed; try again later.", self.status, code)
        return SharePointError(text, self.status, code)

    def _code_and_message(self) -> tuple[str, str]:
        """Of Graph's error body. A download host's body may hold its address, and is not quoted."""
        if not self._is_graph:
            return "", ""
        try:
            error = json.loads(self._response.content)["error"]
            code, message = str(error.get("code") or ""), str(error.get("message") or "")
            inner = error.get("innerError") or error.get("innererror") or {}
            if inner.get("code") == "malwareDetected":
                code = "malwareDetected"
        except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException):
            return "", ""
        return scrub(code), scrub(message).rstrip(".")


def connection_error(error: Exception, url: str, operation: Operation) -> SharePointError:
    """The error to raise for a failed connection; the text and attributes of requests' own error hold the address."""
    host = urlsplit(url).hostname
    if not isinstance(error, requests.RequestException):
        return SharePointError(f"{operation.name} failed: {error}. Check SHAREPOINT_CA_BUNDLE.")
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return SharePointError(
            f"{operation.name} failed: the certificate of {host} is not trusted. If your proxy intercepts TLS, set "
            "SHAREPOINT_CA_BUNDLE to a PEM file with its authority."
        )
    if isinstance(error, ValueError):
        return SharePointError(f"{operation.name} failed: invalid address on {host} ({type(error).__name__}).")
    if isinstance(error, requests.Timeout):
        reason = f"{host} did not answer in time"
    elif isinstance(error, requests.exceptions.ProxyError):
        reason = f"the proxy does not reach {host}"
    else:
        reason = f"the connection to {host} failed ({type(error).__name__})"
    return Unavailable(f"{operation.name} failed: {reason}. Check the network; a new try resumes.")


def scrub(text: str) -> str:
    """A text of the service on one line, shortened, and without what follows the host in an address."""
    line = " ".join(text.split())
    return re.sub(r"(https?://[^\s/]+)/\S*", r"\1/...", line)[:MAX_MESSAGE]


def quote_id(name: str) -> str:
    """An id as a segment of a path: drives begin with b!, whose ! stays."""
    return quote(name, safe="!,")


def quote_path(path: str) -> str:
    """A path whose segments may hold any character, # and % included."""
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") for segment in segments):
        raise DataError(f"The path {path!r} has a segment . or .. : give it from the top of the library.")
    return "/".join(quote(segment, safe="") for segment in segments)
