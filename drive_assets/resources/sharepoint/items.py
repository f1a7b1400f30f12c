"""Files and folders as Graph returns them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    modified: str
    """The server's time of the last change; empty if not reported."""
    malware: bool = False

    @property
    def is_zip(self) -> bool:
        return not self.is_folder and self.name.lower().endswith(".zip")

    @property
    def identity(self) -> str:
        """Changes with the content: hash and size, else the eTag, else time and size. The cTag is often missing."""
        if self.quick_xor_hash:
            return f"{self.quick_xor_hash}:{self.size}"
        if self.etag:
            return self.etag
        return f"{self.modified}:{self.size}"

    @property
    def version(self) -> str:
        """Changes with the name or the content of a file."""
        return f"{self.name}:{self.identity}"


def parse_item(raw: Mapping[str, Any]) -> Item:
    """An item from Graph's JSON. Facets may be missing; of a deleted item, all but `id`."""
    hashes = (raw.get("file") or {}).get("hashes") or {}
    return Item(
        id=raw["id"],
        name=raw.get("name") or "",
        parent_id=(raw.get("parentReference") or {}).get("id"),
        size=int(raw.get("size") or 0),
        is_folder="folder" in raw or "root" in raw,
        deleted="deleted" in raw,
        quick_xor_hash=hashes.get("quickXorHash") or None,
        etag=raw.get("eTag") or None,
        modified=raw.get("lastModifiedDateTime") or "",
        malware="malware" in raw,
    )
