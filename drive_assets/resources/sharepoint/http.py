"""HTTP requests of the service, and errors that tell the user what to do."""

import contextlib
import logging
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter

from drive_assets.resources.sharepoint.items import (
    AccessError,
    NotFound,
    Quarantined,
    ResyncRequired,
    SharePointError,
    Unavailable,
)
from drive_assets.resources.sharepoint.settings import MAX_WORKERS, TIMEOUT_S, SharePointSettings
from model.common.downloads import Retries, requested_pause
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


class Http:
    """Sends requests, and raises SharePointError, free of secrets, for those that fail. Thread-safe."""

    def __init__(self, settings: SharePointSettings, retries: Retries) -> None:
        self._settings, self._retries = settings, retries
        self._session = requests.Session()
        self._session.mount("https://", HTTPAdapter(pool_maxsize=MAX_WORKERS))
        self._session.headers["User-Agent"] = f"NONISV|{settings.company}|drive-assets/{_version()}"
        for name in ("connectionpool", "connection", "poolmanager", "response", "util.retry"):
            logging.getLogger(f"urllib3.{name}").setLevel(logging.ERROR)  # its records hold whole addresses

    def send(
        self, operation: Operation, method: str, url: str, quotes_body: bool = False, **options: Any
    ) -> requests.Response:
        """Send a request; all calls observe the pause or slow-down that the response asks for.

        Args:
            quotes_body: whether errors may quote Graph's code and message; other bodies may hold addresses.

        Raises:
            Unavailable: a retry may succeed.
            SharePointError: there is no connection, or the response reports malware.
        """
        response: requests.Response | None = None
        # With `auth`, requests uses no password from ~/.netrc; with `verify`, no REQUESTS_CA_BUNDLE.
        options = {"auth": lambda request: request, "verify": self._settings.verify, "timeout": TIMEOUT_S, **options}
        try:
            response = self._session.request(method, url, **options)
        except OSError as error:  # those of requests are among them
            failure = _connection_error(error, url, operation)
        if response is None:  # raised out here: a chained exception would hold the whole address
            raise failure
        with contextlib.suppress(KeyError, ValueError):
            remaining, reset = (float(response.headers[f"RateLimit-{name}"]) for name in ("Remaining", "Reset"))
            self._retries.pause(reset / max(remaining, 1))  # spreads the remaining requests over the time until then
        if response.status_code in TRANSIENT:
            with response:
                raise error_of(response, operation, quotes_body)
        return response


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


def _connection_error(error: Exception, url: str, operation: Operation) -> SharePointError:
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


def _version() -> str:
    try:
        return metadata.version("drive-assets")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "0"
