"""`drive-assets sharepoint check`: tests the access to SharePoint step by step and reports what is missing."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.sharepoint.library import find_place, read_settings
from drive_assets.resources.sharepoint.items import Item
from model.common.downloads import Retries
from model.common.errors import DataError
from model.common.printable import printable
from model.common.progress import Log

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

STEPS = ("settings", "sign-in", "site", "library", "folder", "list", "changes", "download")
MAX_DEPTH = 3
"""Levels of folders that are searched for a file to try."""
PATIENCE_S = 60.0


def check_access(log: Log) -> bool:
    """Try all that the sensor and the `recording` asset need, in their order; returns whether all works."""
    left = list(STEPS)

    def passed(step: str, result: str) -> None:
        left.remove(step)
        log(printable(f"ok    {step:<9} {result}"))

    try:
        _check(log, passed)
    except DataError as error:
        log(printable(f"FAIL  {left.pop(0):<9} {error}"))
        if left:
            log(f"      Not reached: {', '.join(left)}.")
        return False
    log("All works. Run Dagster with the same variables: its sensor sharepoint_sensor does the rest.")
    return True


def _check(log: Log, passed: Callable[[str, str], None]) -> None:
    settings = read_settings()
    passed("settings", f"tenant {settings.tenant_id}, app {settings.client_id}, sign-in by {settings.auth}")

    from drive_assets.resources.sharepoint.client import GraphClient  # imports msal

    client = GraphClient(settings, Retries("SharePoint", patience_s=PATIENCE_S), log)
    client.sign_in()
    passed("sign-in", "a token was issued")
    place = find_place(client, settings, passed)
    items = list(client.children(place.drive, place.folder))
    named = sum(item.is_folder and is_recording_name(item.name) for item in items)
    zips = sum(item.name.lower().endswith(".zip") for item in items)
    passed("list", f"{len(items)} items: {named} folders named as recordings, {zips} zips")
    client.changes(place.drive)
    passed("changes", "the list of changes can be read")
    file = _any_file(client, place.drive, items)
    if file is not None:
        client.open_end(place.drive, file, 1).close()
    passed("download", f"the last byte of {file.name}" if file else "not tried: there is no file yet")


def _any_file(client: "GraphClient", drive_id: str, items: list[Item], depth: int = MAX_DEPTH) -> Item | None:
    """A file that is not empty, in this folder or in the folders of it."""
    for item in sorted(items, key=lambda item: item.is_folder):
        if item.size and item.is_folder and depth:
            item = _any_file(client, drive_id, list(client.children(drive_id, item.id)), depth - 1) or item
        if item.size and not item.is_folder:
            return item
    return None
