"""The client of Microsoft Graph that the sensor, the `recording` asset and the command line use."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from drive_assets.resources.sharepoint.items import DeltaPage, Drive, Item
from drive_assets.resources.sharepoint.settings import SharePointSettings
from drive_assets.resources.sharepoint.transport import REAL_CLOCK, Clock


class GraphClient:
    """Reads a SharePoint library. Thread-safe; all its workers share one pause. Makes no network call until asked.

    Every method raises SharePointError (or one of its kinds, see `items`) when it fails for good.
    """

    requests_made: int
    """HTTP requests to Graph so far: without those to the login and to download addresses."""

    def __init__(
        self,
        settings: SharePointSettings,
        clock: Clock = REAL_CLOCK,
        patience_s: float = 1800.0,
        on_device_code: Callable[[str], None] | None = None,
    ) -> None:
        """
        Args:
            patience_s: the longest that one call waits for the service before it raises Throttled; a sensor, whose tick
                is short, gives less.
            on_device_code: is told what the user must do to sign in; None refuses a sign-in that needs a user.
        """
        raise NotImplementedError

    def site_id(self, url: str) -> str:
        """The id (host,guid,guid) of a site by its address."""
        raise NotImplementedError

    def drives(self, site_id: str) -> list[Drive]:
        """The document libraries of a site."""
        raise NotImplementedError

    def item_by_path(self, drive_id: str, path: str) -> Item:
        """An item by its path in the drive; "" is the root."""
        raise NotImplementedError

    def item(self, drive_id: str, item_id: str) -> Item:
        """An item by its id."""
        raise NotImplementedError

    def shared_item(self, link: str) -> tuple[str, Item]:
        """Drive id and item of a sharing link. An app of its own cannot open links for anyone."""
        raise NotImplementedError

    def children(self, drive_id: str, item_id: str) -> Iterator[Item]:
        """What lies in a folder."""
        raise NotImplementedError

    def delta_page(self, drive_id: str, link: str | None = None) -> DeltaPage:
        """One page of changes: of a new round from the start, or what a next or delta link leads to.

        Raises:
            ResyncRequired: the link is too old.
        """
        raise NotImplementedError

    def delta(self, drive_id: str, link: str | None = None) -> Iterator[DeltaPage]:
        """The pages of a round, up to and with the one that has the delta link."""
        raise NotImplementedError

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
        raise NotImplementedError

    def download_all(
        self,
        drive_id: str,
        items: Sequence[tuple[Item, Path]],
        workers: int,
        progress: Callable[[int, int], None] = lambda files, size: None,
    ) -> list[Item]:
        """Download many files at a time. Files that are there already, with the right hash, are not asked for again.

        Args:
            progress: gets the number of files and of bytes that are there so far.
        """
        raise NotImplementedError

    def open(self, drive_id: str, item: Item) -> BinaryIO:
        """A file to read and seek in without downloading it: for the directory of a zip."""
        raise NotImplementedError
