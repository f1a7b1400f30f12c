"""Errors that a user can act on, and the responses and failed connections that they stand for."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from model.common.downloads import requested_pause
from model.common.errors import DataError, PassingError
from model.common.printable import printable

TRANSIENT = (429, 500, 502, 503, 504, 509)
MAX_MESSAGE = 300
"""Characters of the service's message that an error quotes."""


class SharePointError(DataError):
    """A request failed. The message names the request, the HTTP status, Graph's code and what to do."""

    def __init__(self, message: str, status: int | None = None, code: str = "") -> None:
        super().__init__(printable(message))
        self.status = status
        self.code = code


class AccessError(SharePointError):
    """The service refuses the credentials (401), or they do not reach that far (403)."""


class NotFound(SharePointError):
    """The site, drive or item does not exist."""


class Quarantined(SharePointError):
    """Two downloads differ from the library's hash, or the item is reported as malware. The content is not used."""


class ResyncRequired(SharePointError):
    """A delta link is too old (410): what changed since then is unknown."""


class Unavailable(SharePointError, PassingError):
    """The service or the network failed: the same request may succeed later."""


@dataclass(frozen=True)
class Operation:
    """What a request is for, as errors word it."""

    name: str
    """Such as "Listing folder x"."""
    if_denied: str = "Grant the app the role read on the site (docs/sharepoint.md)."
    if_missing: str = "Check whether it was renamed, moved or deleted."


def error_of(response: requests.Response, operation: Operation, quotes_body: bool = True) -> SharePointError:
    """The error that a response stands for: its kind, status, code, message and what to do."""
    status, (code, message) = response.status_code, _code_and_message(response) if quotes_body else ("", "")
    text = f"{operation.name} failed: HTTP {status} {code}".rstrip() + (f" ({message})." if message else ".")
    if code == "malwareDetected":
        return Quarantined(f"{text} SharePoint reports malware in the file: check it there.", status, code)
    if status in (401, 403):
        return AccessError(f"{text} {operation.if_denied}", status, code)
    if status == 404:
        return NotFound(f"{text} {operation.if_missing}", status, code)
    if status == 410:
        return ResyncRequired(f"{text} The list of changes must restart.", status, code)
    if status not in TRANSIENT:
        return SharePointError(text, status, code)
    error = Unavailable(f"{text} Several retries failed; try again later.", status, code)
    error.pause_s = requested_pause(response)
    return error


def _code_and_message(response: requests.Response) -> tuple[str, str]:
    """Of Graph's error body."""
    try:
        error = response.json()["error"]
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
    reason = f"the connection to {host} failed ({type(error).__name__})"
    return Unavailable(f"{operation.name} failed: {reason}. Check the network; a new try resumes.")


def scrub(text: str) -> str:
    """A text of the service on one line, shortened, and without what follows the host in an address."""
    line = " ".join(text.split())
    return re.sub(r"(https?://[^\s/]+)/\S*", r"\1/...", line)[:MAX_MESSAGE]
