"""`drive-assets sharepoint check`: what of the access to SharePoint works, step by step, and what is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.sharepoint.library import SET_UP, choose_library
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.sharepoint.settings import SharePointSettings
from model.common.errors import DataError
from model.common.progress import Tell

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

STEPS = ("settings", "sign-in", "site", "library", "folder", "list", "changes", "download")
DEEP = 3
"""Levels of folders in which a file to try is looked for."""
PATIENCE_S = 60.0


class _StepError(Exception):
    """A step failed, which was told."""


class _Steps:
    """Tells each step once: as good, with what it found, or as failed, with what was not reached."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._left = list(STEPS)

    def good(self, name: str, text: str) -> None:
        self._left.remove(name)
        self._tell(f"ok    {name:<9} {text}")

    @contextmanager
    def trying(self, name: str, client: "GraphClient | None" = None) -> Iterator[None]:
        """The step of this name; the first that has the service signs in on the way."""
        failure = None
        try:
            yield
        except DataError as error:
            failure = error
        if client is not None and "sign-in" in self._left:
            if client.requests_made:
                self.good("sign-in", "a token was given")
            else:
                name = "sign-in"
        if failure is not None:
            self._left.remove(name)
            self._tell(f"FAIL  {name:<9} {failure}")
            if self._left:
                self._tell(f"      Not reached: {', '.join(self._left)}.")
            raise _StepError from failure


def check_access(tell: Tell) -> bool:
    """Try all that the sensor and the `recording` asset need, in their order; tell each; whether all works."""
    try:
        _check(_Steps(tell), tell)
    except _StepError:
        return False
    tell("All works. Dagster must run with the same variables: the sensor sharepoint_sensor does the rest.")
    return True


def _check(steps: _Steps, tell: Tell) -> None:
    with steps.trying("settings"):
        settings = SharePointSettings.from_environment()
        if settings is None:
            raise DataError(f"SHAREPOINT_TENANT_ID is not set. {SET_UP}")
        if not settings.site and not settings.shared_link:
            raise DataError(f"Neither SHAREPOINT_SITE nor SHAREPOINT_SHARED_LINK is set. {SET_UP}")
    assert settings is not None
    steps.good("settings", f"tenant {settings.tenant_id}, app {settings.client_id}, sign-in by {settings.auth}")

    from drive_assets.resources.sharepoint.client import GraphClient  # brings msal along

    client = GraphClient(settings, patience_s=PATIENCE_S, on_device_code=tell)
    drive_id, folder = _find_folder(client, settings, steps)
    with steps.trying("list"):
        items = list(client.children(drive_id, folder.id))
    named = sum(item.is_folder and is_recording_name(item.name) for item in items)
    zips = sum(item.name.lower().endswith(".zip") for item in items)
    steps.good("list", f"{len(items)} items: {named} folders named as recordings, {zips} zips")
    with steps.trying("changes"):
        page = client.delta_page(drive_id)
    steps.good("changes", f"the first page has {len(page.items)} items{', more follow' if page.next_link else ''}")
    with steps.trying("download"):
        file = _a_file(client, drive_id, items, DEEP)
        if file is not None:
            with client.open(drive_id, file) as stream:
                stream.read(1)
    steps.good("download", f"the first byte of {file.name}" if file else "not tried: no file lies there yet")


def _find_folder(client: "GraphClient", settings: SharePointSettings, steps: _Steps) -> tuple[str, Item]:
    if settings.shared_link:
        with steps.trying("folder", client):
            drive_id, item = client.shared_item(settings.shared_link)
            _require_folder(item)
        for name in ("site", "library"):
            steps.good(name, "of the shared link")
        steps.good("folder", f"{item.name}, by the shared link")
        return drive_id, item
    with steps.trying("site", client):
        site = client.site_id(settings.site)
    steps.good("site", settings.site)
    with steps.trying("library"):
        drives = client.drives(site)
        drive = choose_library(drives, settings)
    steps.good("library", f"{drive.name}, of {', '.join(drive.name for drive in drives)}")
    with steps.trying("folder"):
        item = client.item_by_path(drive.id, settings.folder)
        _require_folder(item)
    steps.good("folder", settings.folder or "the whole library")
    return drive.id, item


def _require_folder(item: Item) -> None:
    if not item.is_folder:
        raise DataError(f"{item.name} is a file: expected a folder that recordings arrive in.")


def _a_file(client: "GraphClient", drive_id: str, items: list[Item], deep: int) -> Item | None:
    """Some file that is not empty, here or in the first folders."""
    for item in items:
        if not item.is_folder and item.size:
            return item
    for item in items:
        if item.is_folder and item.size and deep:
            found = _a_file(client, drive_id, list(client.children(drive_id, item.id)), deep - 1)
            if found is not None:
                return found
    return None
