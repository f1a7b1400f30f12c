"""The SharePoint library that recordings arrive in: how it is reached, and where in it they lie."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from drive_assets.resources.sharepoint.items import Drive, Item, Quarantined, SharePointError, Throttled
from drive_assets.resources.sharepoint.settings import SharePointSettings
from model.common.config import fingerprint
from model.common.errors import DataError

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

SET_UP = (
    "Set the SHAREPOINT_... variables where Dagster runs (docs/sharepoint.md), then `drive-assets sharepoint check`."
)


@dataclass(frozen=True)
class Place:
    """The folder of a library that recordings are looked for in."""

    drive: str
    folder: str
    label: str
    """For people: the library's name and the folder's."""


def connect(patience_s: float | None = None) -> "GraphClient":
    """The client that the environment describes; one for all calls in this process, so that its token lives on.

    Args:
        patience_s: the longest that a call may wait for a service that asks for a pause; by default the client's own.

    Raises:
        DataError: SharePoint is not set up, or wrongly.
    """
    settings = SharePointSettings.from_environment()
    if settings is None:
        raise DataError(f"SharePoint is not set up: SHAREPOINT_TENANT_ID is not set. {SET_UP}")
    return _client(settings, patience_s)


@cache
def _client(settings: SharePointSettings, patience_s: float | None) -> "GraphClient":
    from drive_assets.resources.sharepoint.client import GraphClient

    return GraphClient(settings) if patience_s is None else GraphClient(settings, patience_s=patience_s)


def settings_key(settings: SharePointSettings) -> str:
    """Identifies what is looked at: what is known of another library or folder is of no use."""
    return fingerprint(settings.graph, settings.site, settings.library, settings.folder, settings.shared_link)


def choose_library(drives: list[Drive], settings: SharePointSettings) -> Drive:
    """The library that SHAREPOINT_LIBRARY names, else the site's first.

    Raises:
        DataError: there is none, or none of that name.
    """
    named = [drive for drive in drives if drive.name.casefold() == settings.library.casefold()]
    if not drives or (settings.library and not named):
        names = ", ".join(drive.name for drive in drives) or "none"
        raise DataError(f"{settings.site} has no library {settings.library!r}: its libraries are {names}.")
    return named[0] if settings.library else drives[0]


def find_place(client: "GraphClient", settings: SharePointSettings) -> Place:
    """Ask the service where the configured folder is.

    Raises:
        DataError: it is not there, cannot be reached, or is not configured.
    """
    if settings.shared_link:
        drive_id, item = client.shared_item(settings.shared_link)
        label = item.name
    elif settings.site:
        drive = choose_library(client.drives(client.site_id(settings.site)), settings)
        drive_id, item = drive.id, client.item_by_path(drive.id, settings.folder)
        label = "/".join(part for part in (drive.name, settings.folder.strip("/")) if part)
    else:
        raise DataError(f"Neither SHAREPOINT_SITE nor SHAREPOINT_SHARED_LINK is set. {SET_UP}")
    if not item.is_folder:
        raise DataError(f"{label} in SharePoint is a file: expected a folder that recordings arrive in.")
    return Place(drive_id, item.id, label)


def version_of(item: Item) -> str:
    """What identifies a file in its folder: other name or other content, other version."""
    return f"{item.name}:{item.identity}"


def is_passing(error: DataError) -> bool:
    """Whether the same request may succeed later, with nothing put right by anyone."""
    if not isinstance(error, SharePointError) or isinstance(error, Quarantined):
        return False
    if isinstance(error, Throttled):
        return True
    return type(error) is SharePointError and (error.status is None or error.status == 429 or error.status >= 500)
