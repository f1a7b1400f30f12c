"""`drive-assets sharepoint check`: tests the access to SharePoint step by step and reports what is missing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.files import printable
from drive_assets.recordings.sharepoint.library import choose_library, read_settings, require_folder
from drive_assets.resources.sharepoint.items import Item
from model.common.errors import DataError
from model.common.progress import Tell

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

STEPS = ("settings", "sign-in", "site", "library", "folder", "list", "changes", "download")
MAX_DEPTH = 3
"""Levels of folders that are searched for a file to try."""
PATIENCE_S = 60.0


def check_access(log: Tell) -> bool:
    """Try all that the sensor and the `recording` asset need, in their order; returns whether all works."""
    left = list(STEPS)
    try:
        for result in _results(log):
            log(printable(f"ok    {left.pop(0):<9} {result}"))
    except DataError as error:
        log(printable(f"FAIL  {left.pop(0):<9} {error}"))
        if left:
            log(f"      Not reached: {', '.join(left)}.")
        return False
    log("All works. Run Dagster with the same variables: its sensor sharepoint_sensor does the rest.")
    return True


def _results(log: Tell) -> Iterator[str]:
    """The result of each of the STEPS. Raises DataError in the first that fails."""
    settings = read_settings()
    yield f"tenant {settings.tenant_id}, app {settings.client_id}, sign-in by {settings.auth}"

    from drive_assets.resources.sharepoint.client import GraphClient  # imports msal

    client = GraphClient(settings, patience_s=PATIENCE_S, on_device_code=log)
    client.sign_in()
    yield "a token was issued"
    if settings.shared_link:
        yield from ("of the shared link", "of the shared link")
        drive_id, folder = client.shared_item(settings.shared_link)
        require_folder(folder)
        yield f"{folder.name}, by the shared link"
    else:
        site = client.site_id(settings.site)
        yield settings.site
        drives = client.drives(site)
        drive_id = choose_library(drives, settings).id
        names = ", ".join(drive.name for drive in drives)
        yield f"{choose_library(drives, settings).name}, of {names}"
        folder = client.item_by_path(drive_id, settings.folder)
        require_folder(folder)
        yield settings.folder or "the whole library"
    items = list(client.children(drive_id, folder.id))
    named = sum(item.is_folder and is_recording_name(item.name) for item in items)
    zips = sum(item.name.lower().endswith(".zip") for item in items)
    yield f"{len(items)} items: {named} folders named as recordings, {zips} zips"
    page = client.delta_page(drive_id)
    yield f"the first page has {len(page.items)} items{', more follow' if page.next_link else ''}"
    file = _any_file(client, drive_id, items, MAX_DEPTH)
    if file is not None:
        with client.open(drive_id, file) as stream:
            stream.read(1)
    yield f"the first byte of {file.name}" if file else "not tried: there is no file yet"


def _any_file(client: "GraphClient", drive_id: str, items: list[Item], depth: int) -> Item | None:
    """A file that is not empty, in this folder or in the folders of it."""
    for item in sorted(items, key=lambda item: item.is_folder):
        if item.size and not item.is_folder:
            return item
        if item.size and depth:
            found = _any_file(client, drive_id, list(client.children(drive_id, item.id)), depth - 1)
            if found is not None:
                return found
    return None
