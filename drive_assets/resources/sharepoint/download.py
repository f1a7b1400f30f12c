"""Downloads that are complete and verified or not there at all, and that resume where an earlier attempt stopped."""

from collections.abc import Callable
from io import FileIO
from pathlib import Path

from drive_assets.resources.sharepoint.errors import Operation, Quarantined, SharePointError, Unavailable
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.sharepoint.quickxorhash import hash_file
from drive_assets.resources.sharepoint.transport import Transport
from model.common.downloads import open_partial, receive
from model.common.errors import DataError
from model.common.files import fsync
from model.common.printable import printable


def download(transport: Transport, drive_id: str, item: Item, target: Path, progress: Callable[[int], None]) -> Item:
    """Download `item` to `target`; returns the item as downloaded.

    The bytes go to `<target>.partial`, which a kill or an error leaves and the next call continues. The quickXorHash
    decides whether they are right, since SharePoint may report a wrong size. Without a hash the size decides, and the
    item must not change meanwhile. If they are wrong, the item is looked up again, since it may have changed, and
    downloaded once more from the start.

    Args:
        progress: receives the number of bytes that are there so far.

    Raises:
        Quarantined: two downloads are wrong, or the item is reported as malware. No file is left.
        SharePointError, PassingError: any other failure of the service.
        DataError: the file cannot be written.
    """
    if item.is_folder:
        raise SharePointError(f"{item.name} is a folder: download the files in it.")
    partial = target.with_name(f"{target.name}.partial")
    problem = ""
    try:
        for _ in range(2):
            _refuse_malware(item)
            with open_partial(partial, resume=bool(item.quick_xor_hash) and not problem) as file:
                _fetch(transport, drive_id, item, file, progress)
            before, problem = item, _problem(item, partial)
            if problem or not item.quick_xor_hash:
                item = transport.item(drive_id, item.id)
                _refuse_malware(item)
                if item.identity != before.identity:
                    problem = _problem(item, partial) if item.quick_xor_hash else "it changed during the download"
            if not problem:
                fsync(partial)
                partial.replace(target)
                return item
        partial.unlink()
    except OSError as error:
        raise DataError(
            f"{error.filename or partial} cannot be written: {error.strerror}. Correct that, for example free some "
            "space; the next try resumes the download."
        ) from error
    if item.identity != before.identity:
        raise Unavailable(f"Downloading {item.name} failed: it keeps changing. Try again once it is complete.")
    raise Quarantined(
        f"{item.name} was downloaded twice and differs from what SharePoint reports: {problem}. It is not used: "
        "upload it again."
    )


def is_downloaded(item: Item, path: Path) -> bool:
    """Whether a file has an item's hash. Without a hash the answer is no."""
    return bool(item.quick_xor_hash) and path.is_file() and not _problem(item, path)


def _refuse_malware(item: Item) -> None:
    if item.malware:
        raise Quarantined(f"{item.name} is not downloaded: SharePoint reports malware in it. Check it there.")


def _problem(item: Item, path: Path) -> str:
    if item.quick_xor_hash:
        found = hash_file(path)
        return "" if found == item.quick_xor_hash else f"its quickXorHash is {found} instead of {item.quick_xor_hash}"
    size = path.stat().st_size
    return "" if size == item.size else f"it has {size:,} bytes instead of {item.size:,}"


def _fetch(transport: Transport, drive_id: str, item: Item, file: FileIO, progress: Callable[[int], None]) -> None:
    """Append to `file` until its content ends. The caller verifies it."""
    operation = Operation(printable(f"Downloading {item.name}"))

    def attempt() -> None:
        size = file.tell()
        if size and size == item.size:
            return
        with transport.content(drive_id, item.id, f"{size}-" if size else "", operation) as response:
            receive(response, file, operation.name, progress)

    transport.retry(attempt)
