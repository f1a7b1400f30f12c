"""What the service answers, in this client's words: content, errors with what to do, and failures that may pass."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

import requests

from drive_assets.resources.sharepoint.items import AccessError, NotFound, Quarantined, ResyncRequired, SharePointError
from model.common.errors import DataError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

PASSING = (500, 502, 504, 509)
"""Errors of the service that pass by themselves, like 429 and 503, which say when."""
REDIRECTS = (301, 302, 303, 307, 308)
EXPIRED = (401, 403, 404, 410)
"""A download address that is no longer good: a new one is asked for."""
TOLD_CHARACTERS = 300


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
