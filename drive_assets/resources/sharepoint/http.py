"""Errors of requests that tell the user what to do, and the quoting of addresses."""

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import requests

from drive_assets.resources.sharepoint.items import (
    AccessError,
    NotFound,
    Quarantined,
    ResyncRequired,
    SharePointError,
    Unavailable,
)
from model.common.downloads import requested_pause
from model.common.errors import DataError

TRANSIENT = (429, 500, 502, 503, 504, 509)
MAX_MESSAGE = 300
"""Characters of the service's message that an error quotes."""


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


def quote_id(name: str) -> str:
    """An id as a segment of a path: drives begin with b!, whose ! stays."""
    return quote(name, safe="!,")


def quote_path(path: str) -> str:
    """A path whose segments may hold any character, # and % included."""
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") for segment in segments):
        raise DataError(f"The path {path!r} has a segment . or .. : give it from the top of the library.")
    return "/".join(quote(segment, safe="") for segment in segments)
