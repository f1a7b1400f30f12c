"""What Graph tells: items, drives, pages of a delta round, and errors that a user can act on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from model.common.errors import DataError


class SharePointError(DataError):
    """A request failed for good. The message says what, the HTTP status, Graph's code and what to do."""

    def __init__(self, message: str, status: int | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class AccessError(SharePointError):
    """The credentials are refused, or do not reach that far (401 after one renewal, 403)."""


class NotFound(SharePointError):
    """The site, drive or item is not there (any more)."""


class ResyncRequired(SharePointError):
    """A delta link is too old (410): start the round over at `location` if there, else without a link."""

    def __init__(self, message: str, location: str | None, status: int | None = None, code: str = "") -> None:
        super().__init__(message, status, code)
        self.location = location


class Quarantined(SharePointError):
    """The content is not what the library says, twice in a row, or is reported as malware. It must not be used."""


class Throttled(SharePointError):
    """The service asks for a longer pause than the client may wait; `wait_s` is what remains of it, in seconds."""

    def __init__(self, message: str, wait_s: float, status: int | None = None, code: str = "") -> None:
        super().__init__(message, status, code)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Item:
    """A file or folder of a drive."""

    id: str
    name: str
    """Empty if a deletion is reported without it."""
    parent_id: str | None
    size: int
    """Bytes; of a folder, of all in it."""
    is_folder: bool
    deleted: bool
    quick_xor_hash: str | None
    """Base64 of 20 bytes. Folders have none, and files sometimes lack it."""
    etag: str | None
    modified: datetime | None
    """The server's time of the last change, in UTC."""
    malware: bool = False

    @property
    def identity(self) -> str:
        """Changes with the content: hash and size, else the eTag, else time and size. The cTag is often missing."""
        if self.quick_xor_hash:
            return f"{self.quick_xor_hash}:{self.size}"
        if self.etag:
            return self.etag
        return f"{self.modified.isoformat() if self.modified else 'unknown'}:{self.size}"


@dataclass(frozen=True, slots=True)
class Drive:
    """A document library."""

    id: str
    name: str
    web_url: str


@dataclass(frozen=True, slots=True)
class DeltaPage:
    """One page of a delta round: exactly one of the links is there, and only `delta_link` ends the round."""

    items: list[Item]
    next_link: str | None
    delta_link: str | None


def parse_item(raw: Mapping[str, Any]) -> Item:
    """An item from Graph's JSON. Facets may be missing, and so may all but `id` if it is deleted."""
    hashes = (raw.get("file") or {}).get("hashes") or {}
    modified = raw.get("lastModifiedDateTime")
    return Item(
        id=raw["id"],
        name=raw.get("name") or "",
        parent_id=(raw.get("parentReference") or {}).get("id"),
        size=int(raw.get("size") or 0),
        is_folder="folder" in raw or "root" in raw,
        deleted="deleted" in raw,
        quick_xor_hash=hashes.get("quickXorHash") or None,
        etag=raw.get("eTag") or None,
        modified=_utc(modified) if modified else None,
        malware="malware" in raw,
    )


def parse_drive(raw: Mapping[str, Any]) -> Drive:
    """A drive from Graph's JSON."""
    return Drive(id=raw["id"], name=raw.get("name") or "", web_url=raw.get("webUrl") or "")


def _utc(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
