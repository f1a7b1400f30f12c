"""Addresses of report pages, and of files on the report server."""

import os
from pathlib import Path
from urllib.parse import quote, urlsplit

import dagster as dg

from drive_assets.resources.storage import Storage
from model.common.errors import DataError

VARIABLE = "DRIVE_ASSETS_REPORTS_URL"
DEFAULT_URL = "http://127.0.0.1:3001"


def base_url() -> str:
    """`DRIVE_ASSETS_REPORTS_URL`, without a trailing slash. DataError if it is not an HTTP address."""
    url = os.environ.get(VARIABLE, "").strip().rstrip("/") or DEFAULT_URL
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise DataError(f"{VARIABLE} must be an address such as {DEFAULT_URL}, not {url!r}.")
    return url


def report_link(asset: str, partition: str | None = None, version: str | None = None) -> dg.UrlMetadataValue:
    """The page of an asset, or of one of its partitions.

    Args:
        version: the data version of the output; the page warns if the current one differs.
    """
    place = "/".join(quote(part, safe="") for part in (asset, partition) if part)
    return dg.MetadataValue.url(f"{base_url()}/{place}" + (f"?made={quote(version)}" if version else ""))


def file_link(storage: Storage, path: Path) -> str:
    """Where the report server serves a file of the data root, relative to its root."""
    return f"files/{quote(str(path.relative_to(storage.root)))}"
