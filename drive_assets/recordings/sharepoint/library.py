"""The SharePoint library that recordings arrive in: how it is reached, and which folder of it the sensor watches."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from drive_assets.resources.sharepoint.settings import SharePointSettings
from model.common.config import fingerprint
from model.common.downloads import Retries
from model.common.errors import DataError

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

SET_UP = (
    "Set the SHAREPOINT_... variables where Dagster runs (docs/sharepoint.md), run `drive-assets sharepoint check`."
)


@dataclass(frozen=True)
class Place:
    """The folder of a library that the sensor watches."""

    drive: str
    folder: str
    label: str
    """For people: the library's name and the folder's."""


def read_settings() -> SharePointSettings:
    """The settings in the environment.

    Raises:
        DataError: SharePoint is not set up, or incorrectly.
    """
    settings = SharePointSettings.from_environment()
    if settings is None:
        raise DataError(f"SharePoint is not set up: SHAREPOINT_TENANT_ID is not set. {SET_UP}")
    if not settings.site and not settings.shared_link:
        raise DataError(f"Neither SHAREPOINT_SITE nor SHAREPOINT_SHARED_LINK is set. {SET_UP}")
    return settings


@cache
def connect(settings: SharePointSettings, patience_s: float = 1800.0) -> "GraphClient":
    """One client for all calls in this process, so that its token is shared.

    Args:
        patience_s: the longest that a call may wait for a service that asks for a pause.
    """
    from drive_assets.resources.sharepoint.client import GraphClient

    return GraphClient(settings, Retries("SharePoint", patience_s=patience_s))


def settings_key(settings: SharePointSettings) -> str:
    """Identifies the watched folder: what is known of another library or folder is of no use."""
    return fingerprint(settings.graph, settings.site, settings.library, settings.folder, settings.shared_link)


def find_place(
    client: "GraphClient", settings: SharePointSettings, passed: Callable[[str, str], None] = lambda step, result: None
) -> Place:
    """Ask the service for the configured folder.

    Args:
        passed: receives each of the steps site, library and folder, and its result.

    Raises:
        DataError: it does not exist or cannot be reached.
    """
    if settings.shared_link:
        drive_id, item = client.shared_item(settings.shared_link)
        label = item.name
        for step in ("site", "library"):
            passed(step, "of the shared link")
    else:
        site = client.site_id(settings.site)
        passed("site", settings.site)
        drives, wanted = client.drives(site), settings.library.casefold()
        names = ", ".join(drives) or "none"
        library = next((name for name in drives if wanted in ("", name.casefold())), None)
        if library is None:
            raise DataError(f"{settings.site} has no library {settings.library!r}: its libraries are {names}.")
        passed("library", f"{library}, of {names}")
        drive_id, item = drives[library], client.item_by_path(drives[library], settings.folder)
        label = "/".join(part for part in (library, settings.folder.strip("/")) if part)
    if not item.is_folder:
        raise DataError(f"{label} in SharePoint is a file: expected a folder that recordings arrive in.")
    passed("folder", label)
    return Place(drive_id, item.id, label)
