"""What Graph returns: items, drives, pages of a delta round, and errors that a user can act on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from model.common.errors import DataError, PassingError
from model.common.printable import printable


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

    paused = False
    """The service named a pause, which all workers observe."""
    progressed = False
    """Some data arrived before the failure, so that the count of failures restarts."""


class Throttled(Unavailable):
    """The service asks for a longer pause than the client may wait."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file or folder of a drive."""

    id: str
    name: str
    """Empty if a deletion is reported without it."""
    parent_id: str | None
    size: int
    """Bytes; of a folder, of all its content."""
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

    @property
    def version(self) -> str:
        """Changes with the name or the content of a file."""
        return f"{self.name}:{self.identity}"


@dataclass(frozen=True, slots=True)
class Drive:
    """A document library."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class DeltaPage:
    """One page of a delta round: it has exactly one of the two links, and only `delta_link` ends the round."""

    items: list[Item]
    next_link: str | None
    delta_link: str | None


def parse_item(raw: Mapping[str, Any]) -> Item:
    """An item from Graph's JSON. Facets may be missing; of a deleted item, all but `id`."""
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


def _utc(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
