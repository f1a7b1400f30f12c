"""The client of Microsoft Graph that the sensor, the `recording` asset and the command line use."""

import base64
import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Lock
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from urllib3.exceptions import HTTPError

from drive_assets.resources.sharepoint.download import download, is_downloaded
from drive_assets.resources.sharepoint.errors import Operation, SharePointError, Unavailable
from drive_assets.resources.sharepoint.items import Item, parse_item
from drive_assets.resources.sharepoint.transport import Transport, quote_id, quote_path
from model.common.downloads import content_range
from model.common.files import fsync


class GraphClient(Transport):
    """Reads a SharePoint library. Thread-safe; all workers share one pause. Makes no network call on construction.

    Every method raises SharePointError, or one of its kinds (see `errors`), or PassingError when it fails.
    """

    def sign_in(self) -> None:
        """Acquire a token; other calls do so by themselves."""
        self.retry(self.tokens.token)

    def site_id(self, url: str) -> str:
        """The id (host,guid,guid) of a site by its address."""
        parts = urlsplit(url)
        path = quote_path(unquote(parts.path))
        operation = Operation(
            f"Finding the site {url}", if_missing="Set SHAREPOINT_SITE as the browser shows it, up to /sites/NAME."
        )
        return self.get_json(f"/sites/{parts.hostname}{f':/{path}' if path else ''}", operation)["id"]

    def drives(self, site_id: str) -> dict[str, str]:
        """Id of each document library of a site, by name."""
        operation = Operation("Listing the site's document libraries")
        return {raw["name"]: raw["id"] for raw in self._pages(f"/sites/{quote_id(site_id)}/drives", operation)}

    def item_by_path(self, drive_id: str, path: str) -> Item:
        """An item by its path in the drive; "" is the root."""
        segments = quote_path(path)
        operation = Operation(
            f"Finding {path!r} in the library", if_missing="Check SHAREPOINT_FOLDER and SHAREPOINT_LIBRARY."
        )
        address = f"/drives/{quote_id(drive_id)}/root{f':/{segments}' if segments else ''}"
        return parse_item(self.get_json(address, operation))

    def shared_item(self, link: str) -> tuple[str, Item]:
        """Drive id and item of a sharing link. An app without a user cannot open anonymous links."""
        encoded = "u!" + base64.urlsafe_b64encode(link.encode("utf-8")).decode("ascii").rstrip("=")
        operation = Operation(
            "Opening the shared link",
            if_denied="An app cannot open anonymous links: share with the app's site, or set SHAREPOINT_SITE instead.",
            if_missing="Create a new link, or set SHAREPOINT_SITE.",
        )
        raw = self.get_json(f"/shares/{encoded}/driveItem", operation)
        return raw["parentReference"]["driveId"], parse_item(raw)

    def children(self, drive_id: str, item_id: str) -> Iterator[Item]:
        """The items in a folder."""
        address = f"/drives/{quote_id(drive_id)}/items/{quote_id(item_id)}/children?$top=1000"
        return (parse_item(raw) for raw in self._pages(address, Operation(f"Listing folder {item_id}")))

    def changes(self, drive_id: str, link: str | None = None) -> tuple[list[Item], str, bool]:
        """A page of the list of changes, which begins empty where `link` is None.

        Returns:
            Its items, the link to what follows, and whether that is only what changes from now on.

        Raises:
            ResyncRequired: the link is too old.
        """
        operation = Operation("Listing the library's changes")
        page = self.get_json(link or f"/drives/{quote_id(drive_id)}/root/delta?token=latest", operation)
        next_link, delta_link = page.get("@odata.nextLink"), page.get("@odata.deltaLink")
        if bool(next_link) == bool(delta_link):
            raise Unavailable(f"{operation.name} failed: expected a next or a delta link in the page. Try later.")
        return [parse_item(raw) for raw in page.get("value", [])], str(next_link or delta_link), bool(delta_link)

    def download(
        self, drive_id: str, item: Item, target: Path, progress: Callable[[int], None] = lambda size: None
    ) -> Item:
        """`download_all` for one file, given as (item, target)."""
        return self.download_all(drive_id, [(item, target)], 1, progress)[0]

    def download_all(
        self,
        drive_id: str,
        items: Sequence[tuple[Item, Path]],
        workers: int,
        progress: Callable[[int], None] = lambda size: None,
    ) -> list[Item]:
        """Download files in parallel, each verified and complete or not at all; resumes from `<target>.partial`.

        A file that is there already, with the right hash, is not requested again.

        Args:
            progress: receives the bytes of all files that are there so far; the workers call it, one at a time.

        Returns:
            The items as downloaded, in the order passed: not equal to those passed if they changed meanwhile.

        Raises:
            SharePointError: the first file that failed; the others are stopped and can be resumed.
            Quarantined: two downloads of a file are wrong, or it is reported as malware.
        """
        lock, stop, total = Lock(), Event(), 0

        def fetch(item: Item, target: Path) -> Item:
            reported = 0

            def report(size: int) -> None:
                nonlocal reported, total
                with lock:
                    total, reported = total + size - reported, size
                    progress(total)
                if stop.is_set():
                    raise SharePointError(f"Downloading {item.name} was stopped. The next call resumes it.")

            if not is_downloaded(item, target):
                item = download(self, drive_id, item, target, report)
            report(target.stat().st_size)
            return item

        with ThreadPoolExecutor(workers, thread_name_prefix="sharepoint") as pool:
            futures = [pool.submit(fetch, item, target) for item, target in items]
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

    def open_end(self, drive_id: str, item: Item, length: int) -> IO[bytes]:
        """A temporary file with the last `length` bytes of a file at their place, and zeros before them.

        That is enough to read the directory of a zip. The size is the server's: the one that SharePoint lists is
        sometimes wrong. No hash verifies what is read.
        """
        operation = Operation(f"Reading {item.name}")

        def attempt() -> IO[bytes]:
            content = b""
            with self.content(drive_id, item.id, f"-{length}", operation) as response:
                start, size = (0, 0) if response.status_code == 416 else content_range(response)
                if start != max(0, size - length):
                    raise Unavailable(f"{operation.name} failed: SharePoint sent another range than requested.")
                with contextlib.suppress(HTTPError):  # its text may hold the address
                    content = response.raw.read(size - start, decode_content=False)
            if len(content) < size - start:
                raise Unavailable(f"{operation.name} failed: the connection was cut.")
            file = TemporaryFile()  # noqa: SIM115 (the caller closes it)
            file.truncate(size)
            file.seek(start)
            file.write(content)
            file.seek(0)
            return file

        return self.retry(attempt)

    def _pages(self, address: str, operation: Operation) -> Iterator[dict[str, Any]]:
        seen = set[str]()
        while address:
            if address in seen:
                raise SharePointError(f"{operation.name} failed: a next link repeats. Try again later.")
            seen.add(address)
            page = self.get_json(address, operation)
            yield from page.get("value", [])
            address = page.get("@odata.nextLink") or ""
