"""`drive-assets sharepoint check`: tests the access to SharePoint step by step and reports what is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drive_assets.partitions import is_recording_name
from drive_assets.recordings.sharepoint.library import choose_library, read_settings, require_folder
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.sharepoint.settings import SharePointSettings
from model.common.errors import DataError
from model.common.progress import Tell

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

STEPS = ("settings", "sign-in", "site", "library", "folder", "list", "changes", "download")
MAX_DEPTH = 3
"""Levels of folders that are searched for a file to try."""
PATIENCE_S = 60.0


class _StepError(Exception):
    """A step failed, which was reported."""


class _Steps:
    """Reports each step once: passed, with its result, or failed, with the steps that were not reached."""

    def __init__(self, log: Tell) -> None:
        self._log = log
        self._left = list(STEPS)

    def passed(self, name: str, text: str) -> None:
        self._left.remove(name)
        self._log(f"ok    {name:<9} {text}")

    @contextmanager
    def run(self, name: str, client: "GraphClient | None" = None) -> Iterator[None]:
        """The step of this name; the first one with the client signs in."""
        failure = None
        try:
            yield
        except DataError as error:
            failure = error
        if client is not None and "sign-in" in self._left:
            if client.requests_sent:
                self.passed("sign-in", "a token was issued")
            else:
                name = "sign-in"
        if failure is not None:
            self._left.remove(name)
            self._log(f"FAIL  {name:<9} {failure}")
            if self._left:
                self._log(f"      Not reached: {', '.join(self._left)}.")
            raise _StepError from failure


def check_access(log: Tell) -> bool:
    """Try all that the sensor and the `recording` asset need, in their order; returns whether all works."""
    try:
        _check(_Steps(log), log)
    except _StepError:
        return False
    log("All works. Run Dagster with the same variables: its sensor sharepoint_sensor does the rest.")
    return True


def _check(steps: _Steps, log: Tell) -> None:
    with steps.run("settings"):
        settings = read_settings()
    steps.passed("settings", f"tenant {settings.tenant_id}, app {settings.client_id}, sign-in by {settings.auth}")

    from drive_assets.resources.sharepoint.client import GraphClient  # imports msal

    client = GraphClient(settings, patience_s=PATIENCE_S, on_device_code=log)
    drive_id, folder = _find_folder(client, settings, steps)
    with steps.run("list"):
        items = list(client.children(drive_id, folder.id))
    named = sum(item.is_folder and is_recording_name(item.name) for item in items)
    zips = sum(item.name.lower().endswith(".zip") for item in items)
    steps.passed("list", f"{len(items)} items: {named} folders named as recordings, {zips} zips")
    with steps.run("changes"):
        page = client.delta_page(drive_id)
    steps.passed("changes", f"the first page has {len(page.items)} items{', more follow' if page.next_link else ''}")
    with steps.run("download"):
        file = _any_file(client, drive_id, items, MAX_DEPTH)
        if file is not None:
            with client.open(drive_id, file) as stream:
                stream.read(1)
    steps.passed("download", f"the first byte of {file.name}" if file else "not tried: there is no file yet")


def _find_folder(client: "GraphClient", settings: SharePointSettings, steps: _Steps) -> tuple[str, Item]:
    if settings.shared_link:
        with steps.run("folder", client):
            drive_id, item = client.shared_item(settings.shared_link)
            require_folder(item)
        for name in ("site", "library"):
            steps.passed(name, "of the shared link")
        steps.passed("folder", f"{item.name}, by the shared link")
        return drive_id, item
    with steps.run("site", client):
        site = client.site_id(settings.site)
    steps.passed("site", settings.site)
    with steps.run("library"):
        drives = client.drives(site)
        drive = choose_library(drives, settings)
    steps.passed("library", f"{drive.name}, of {', '.join(drive.name for drive in drives)}")
    with steps.run("folder"):
        item = client.item_by_path(drive.id, settings.folder)
        require_folder(item)
    steps.passed("folder", settings.folder or "the whole library")
    return drive.id, item


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
