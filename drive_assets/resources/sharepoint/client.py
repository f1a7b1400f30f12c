"""The client of Microsoft Graph that the sensor, the `recording` asset and the command line use."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event, Lock
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from drive_assets.resources.sharepoint.answers import Advice, quote_id, quote_path
from drive_assets.resources.sharepoint.auth import MsalTokens
from drive_assets.resources.sharepoint.download import download, is_there
from drive_assets.resources.sharepoint.items import (
    DeltaPage,
    Drive,
    Item,
    SharePointError,
    parse_drive,
    parse_item,
)
from drive_assets.resources.sharepoint.pace import REAL_CLOCK, Clock, Pace
from drive_assets.resources.sharepoint.remote import BLOCK, RemoteFile
from drive_assets.resources.sharepoint.settings import SharePointSettings
from drive_assets.resources.sharepoint.transport import Transport
from model.common.files import fsync


class GraphClient:
    """Reads a SharePoint library. Thread-safe; all its workers share one pause. Makes no network call until asked.

    Every method raises SharePointError (or one of its kinds, see `items`) when it fails for good.
    """

    def __init__(
        self,
        settings: SharePointSettings,
        clock: Clock = REAL_CLOCK,
        patience_s: float = 1800.0,
        on_device_code: Callable[[str], None] | None = None,
    ) -> None:
        """A client of one tenant.

        Args:
            patience_s: the longest that one call waits for the service before it raises Throttled; a sensor, whose tick
                is short, gives less.
            on_device_code: is told what the user must do to sign in; None refuses a sign-in that needs a user.
        """
        self._pace = Pace(clock)
        tokens = MsalTokens(settings, self._pace, on_device_code)
        self._transport = Transport(settings, tokens, self._pace, patience_s)

    @property
    def requests_made(self) -> int:
        """HTTP requests to Graph so far: without those to the login and to download addresses."""
        return self._transport.requests_made

    def site_id(self, url: str) -> str:
        """The id (host,guid,guid) of a site by its address."""
        parts = urlsplit(url)
        path = quote_path(unquote(parts.path))
        address = f"/sites/{parts.hostname}:/{path}" if path else f"/sites/{parts.hostname}"
        missing = "Give SHAREPOINT_SITE as the browser shows it, up to /sites/NAME."
        return self._transport.get_json(address, Advice(f"Finding the site {url}", missing=missing))["id"]

    def drives(self, site_id: str) -> list[Drive]:
        """The document libraries of a site."""
        address = f"/sites/{quote_id(site_id)}/drives"
        return [parse_drive(raw) for raw in self._pages(address, Advice("Listing the site's document libraries"))]

    def item_by_path(self, drive_id: str, path: str) -> Item:
        """An item by its path in the drive; "" is the root."""
        where = quote_path(path)
        address = f"/drives/{quote_id(drive_id)}/root{f':/{where}' if where else ''}"
        missing = "Check SHAREPOINT_FOLDER and SHAREPOINT_LIBRARY."
        advice = Advice(f"Finding {path!r} in the library", missing=missing)
        return parse_item(self._transport.get_json(address, advice))

    def item(self, drive_id: str, item_id: str) -> Item:
        """An item by its id."""
        address = f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}"
        return parse_item(self._transport.get_json(address, Advice(f"Looking up item {item_id}")))

    def shared_item(self, link: str) -> tuple[str, Item]:
        """Drive id and item of a sharing link. An app of its own cannot open links for anyone."""
        encoded = "u!" + base64.urlsafe_b64encode(link.encode("utf-8")).decode("ascii").rstrip("=")
        denied = "An app cannot open links for anyone: share with the app's site, or set SHAREPOINT_SITE instead."
        advice = Advice("Opening the shared link", denied=denied, missing="Make a new link, or set SHAREPOINT_SITE.")
        raw = self._transport.get_json(f"/shares/{encoded}/driveItem", advice, private=True)
        return raw["parentReference"]["driveId"], parse_item(raw)

    def children(self, drive_id: str, item_id: str) -> Iterator[Item]:
        """What lies in a folder."""
        address = f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}/children?$top=1000"
        return (parse_item(raw) for raw in self._pages(address, Advice(f"Listing folder {item_id}")))

    def delta_page(self, drive_id: str, link: str | None = None) -> DeltaPage:
        """One page of changes: of a new round from the start, or what a next or delta link leads to.

        Raises:
            ResyncRequired: the link is too old.
        """
        advice = Advice("Asking what changed in the library")
        page = self._transport.get_json(link or f"/drives/{quote_id(drive_id)}/root/delta", advice)
        next_link, delta_link = page.get("@odata.nextLink"), page.get("@odata.deltaLink")
        if bool(next_link) == bool(delta_link):
            raise SharePointError(f"{advice.what} failed: the page has not one of a next and a delta link. Try later.")
        if next_link and next_link == link:
            raise _endless(advice.what)
        return DeltaPage([parse_item(raw) for raw in page.get("value", [])], next_link, delta_link)

    def download(
        self, drive_id: str, item: Item, target: Path, progress: Callable[[int], None] = lambda done: None
    ) -> Item:
        """Download a file to `target`, checked and whole or not at all; go on from `<target>.partial` if it is there.

        Args:
            progress: gets the bytes that are there so far.

        Returns:
            The item as downloaded: another than the given one if it changed meanwhile.

        Raises:
            Quarantined: size or hash were wrong twice, or the item is reported as malware.
        """
        return self._download(drive_id, item, target, progress, Event(), settle=True)

    def download_all(
        self,
        drive_id: str,
        items: Sequence[tuple[Item, Path]],
        workers: int,
        progress: Callable[[int, int], None] = lambda files, size: None,
    ) -> list[Item]:
        """Download many files at a time. Files that are there already, with the right hash, are not asked for again.

        Args:
            progress: gets the number of files and of bytes that are there so far; the workers call it, one at a time.

        Returns:
            The items as downloaded, in the order given.

        Raises:
            SharePointError: of the first file that failed; the others are stopped, and what is there is kept.
        """
        lock, stop = Lock(), Event()
        files_done = bytes_done = 0

        def one(item: Item, target: Path) -> Item:
            so_far = 0

            def tell(size: int, files: int = 0) -> None:
                nonlocal so_far, files_done, bytes_done
                with lock:
                    files_done, bytes_done, so_far = files_done + files, bytes_done + size - so_far, size
                    progress(files_done, bytes_done)

            if not is_there(item, target):
                item = self._download(drive_id, item, target, tell, stop, settle=False)
            tell(item.size, files=1)
            return item

        with ThreadPoolExecutor(workers, thread_name_prefix="sharepoint") as pool:
            futures = [pool.submit(one, item, target) for item, target in items]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for folder in {target.parent for _, target in items}:
            fsync(folder)
        return [future.result() for future in futures]

    def open(self, drive_id: str, item: Item) -> BinaryIO:
        """A file to read and seek in without downloading it: for the directory of a zip."""
        return io.BufferedReader(RemoteFile(self._transport, drive_id, item), BLOCK)

    def _download(
        self, drive_id: str, item: Item, target: Path, progress: Callable[[int], None], stop: Event, settle: bool
    ) -> Item:
        made = download(self._transport, lambda: self.item(drive_id, item.id), drive_id, item, target, progress, stop)
        if settle:
            fsync(target.parent)
        return made

    def _pages(self, address: str, advice: Advice) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        while True:
            page = self._transport.get_json(address, advice)
            yield from page.get("value", [])
            if not page.get("@odata.nextLink"):
                return
            address = _unseen(page["@odata.nextLink"], seen, advice.what)


def _unseen(link: str, seen: set[str], what: str) -> str:
    if link in seen:
        raise _endless(what)
    seen.add(link)
    return link


def _endless(what: str) -> SharePointError:
    return SharePointError(f"{what} failed: a next link came twice, so that it would never end. Try again later.")
