"""Downloads that are complete and verified or not there at all, and that resume where an earlier attempt stopped."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

from urllib3.exceptions import HTTPError

from drive_assets.resources.sharepoint.items import Item, Quarantined, SharePointError, Unavailable
from drive_assets.resources.sharepoint.quickxorhash import QuickXorHash
from drive_assets.resources.sharepoint.responses import Operation, Response
from drive_assets.resources.sharepoint.transport import Transport
from model.common.errors import DataError

CHUNK = 1 << 18
"""Bytes read at a time: enough for a fast hash, few enough to stay in the processor's cache until they are written."""
WRITE = 1 << 15
"""Bytes written at a time, about as many as curl writes. For more the system takes large pages, which the host of a
virtual machine may have to provide first: at 256 KiB, writing took three times as long."""
FLUSH = 1 << 26
"""Bytes after which the file is flushed in the background, so that the final flush is short."""


def download(
    transport: Transport,
    look_up: Callable[[], Item],
    drive_id: str,
    item: Item,
    target: Path,
    progress: Callable[[int], None],
    stop: Event,
) -> Item:
    """Download `item` to `target`; returns the item as downloaded.

    The bytes go to `<target>.partial`, which a kill or an error leaves and the next call continues. The quickXorHash
    decides whether they are right, since SharePoint may report a wrong size. Without a hash the size decides, and the
    item must not change meanwhile. If they are wrong, the item is looked up again, since it may have changed, and
    downloaded once more from the start.

    Args:
        look_up: asks Graph for the item's current state.
        progress: receives the number of bytes that are there so far.
        stop: ends the download soon, with SharePointError.

    Raises:
        Quarantined: two downloads are wrong, or the item is reported as malware. No file is left.
        SharePointError: any other failure of the service.
        DataError: the file cannot be written.
    """
    if item.is_folder:
        raise SharePointError(f"{item.name} is a folder: download the files in it.")
    partial = target.with_name(f"{target.name}.partial")
    problem, changed = "", False
    try:
        for _ in range(2):
            _refuse_malware(item)
            with _File(partial, resume=bool(item.quick_xor_hash) and not problem) as file:
                _fetch(transport, drive_id, item, file, progress, stop)
                problem, now = _problem(item, file), item
                if problem or not item.quick_xor_hash:
                    now = look_up()
                    _refuse_malware(now)
                changed = now.identity != item.identity
                if changed:
                    problem = _problem(now, file) if now.quick_xor_hash else "it changed during the download"
                if not problem:
                    file.publish(target)
                    return now
            item = now
        partial.unlink()
    except OSError as error:  # of the disk: those of the network are handled below
        raise DataError(
            f"{error.filename or partial} cannot be written: {error.strerror}. Correct that, for example free some "
            "space; the next try resumes the download."
        ) from error
    if changed:
        raise Unavailable(f"Downloading {item.name} failed: it keeps changing. Try again once it is complete.")
    raise Quarantined(
        f"{item.name} was downloaded twice and differs from what SharePoint reports: {problem}. It is not used: "
        "upload it again."
    )


def is_downloaded(item: Item, path: Path) -> bool:
    """Whether a file has an item's hash. Without a hash the answer is no."""
    if not item.quick_xor_hash or not path.is_file():
        return False
    with _File(path, resume=True) as file:
        return not _problem(item, file)


def _refuse_malware(item: Item) -> None:
    if item.malware:
        raise Quarantined(f"{item.name} is not downloaded: SharePoint reports malware in it. Check it there.")


class _File:
    """A growing file and the hash of its content."""

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.size = 0
        self.max_size = 0
        """Only what exceeds it is progress."""
        self.hash = QuickXorHash()
        self._background = ThreadPoolExecutor(1)
        self._flush: Future[None] = Future()
        self._flush.set_result(None)
        self._flushed = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "r+b" if resume and path.is_file() else "w+b", buffering=0)  # noqa: SIM115, PTH123
        while chunk := self._file.read(CHUNK):
            self._count(chunk)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *exception: object) -> None:
        self._background.shutdown()
        self._file.close()

    def append(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest[:WRITE]) :]
        self._count(chunk)
        if self.size - self._flushed >= FLUSH and self._flush.done():
            self._flush.result()  # the disk reports a failure only once
            self._flushed, self._flush = self.size, self._background.submit(os.fsync, self._file.fileno())

    def restart(self) -> None:
        """Empty the file."""
        self._file.seek(0)
        self._file.truncate()
        self.size, self._flushed, self.hash = 0, 0, QuickXorHash()

    def publish(self, target: Path) -> None:
        """Flush the file to the disk and rename it to `target`."""
        self._flush.result()
        os.fsync(self._file.fileno())
        self.path.replace(target)

    def _count(self, chunk: bytes) -> None:
        self.hash.update(chunk)
        self.size += len(chunk)
        self.max_size = max(self.max_size, self.size)


def _problem(item: Item, file: _File) -> str:
    if item.quick_xor_hash:
        found = file.hash.base64()
        return "" if found == item.quick_xor_hash else f"its quickXorHash is {found} instead of {item.quick_xor_hash}"
    return "" if file.size == item.size else f"it has {file.size:,} bytes instead of {item.size:,}"


def _fetch(
    transport: Transport, drive_id: str, item: Item, file: _File, progress: Callable[[int], None], stop: Event
) -> None:
    """Append to `file` until its content ends. The caller verifies it."""
    operation = Operation(f"Downloading {item.name}")

    def attempt() -> None:
        if file.size and file.size == item.size:
            return
        address = transport.download_address(drive_id, item.id, operation)
        with transport.content(address, f"{file.size}-" if file.size else "", operation) as response:
            if _continues(response, file, operation):
                _copy(response, file, item, progress, stop, operation)

    transport.retry(attempt)


def _continues(response: Response, file: _File, operation: Operation) -> bool:
    """Whether the response has bytes to append; empties `file` if they are not the ones that follow its content."""
    start, total = response.content_range()
    if response.status == 416 and total == file.size:
        return False
    if start != file.size:
        file.restart()
        if response.status != 200:
            raise Unavailable(f"{operation.name} failed: SharePoint sent another range than requested.")
    return True


def _copy(
    response: Response, file: _File, item: Item, progress: Callable[[int], None], stop: Event, operation: Operation
) -> None:
    before, reason = file.max_size, "the response ended early"
    try:
        while chunk := response.body.read(CHUNK, decode_content=False):
            file.append(chunk)
            progress(file.size)
            if stop.is_set():
                raise SharePointError(f"{operation.name} was stopped. The next call resumes it.")
    except HTTPError as error:
        reason = type(error).__name__
    else:
        if file.size >= item.size or not _problem(item, file):
            return
    failure = Unavailable(f"{operation.name} failed: the connection was cut repeatedly ({reason}).")
    failure.progressed = file.max_size > before
    raise failure
