"""Downloading a file whole and checked or not at all, going on where an earlier attempt was cut."""

import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

from urllib3.exceptions import HTTPError

from drive_assets.resources.sharepoint.answers import Advice, Answer, Trouble
from drive_assets.resources.sharepoint.items import Item, Quarantined, SharePointError
from drive_assets.resources.sharepoint.quickxorhash import QuickXorHash
from drive_assets.resources.sharepoint.transport import Transport
from model.common.errors import DataError

CHUNK = 1 << 18
"""Bytes read at a time: enough for the hash to be fast, few enough to stay in the processor's cache meanwhile."""
WRITE = 1 << 15
"""Bytes written at a time, about as many as by curl: for more the system takes large pages, which a virtual machine's
host may have to give it first. At 256 KiB writing took three times as long."""
FLUSH = 1 << 26
"""Bytes after which what is there is flushed in the background, so that the end need not wait for all of it."""


def download(
    transport: Transport,
    look_up: Callable[[], Item],
    drive_id: str,
    item: Item,
    target: Path,
    progress: Callable[[int], None],
    stop: Event,
) -> Item:
    """Download `item` to `target`; what it was when it was downloaded is returned.

    The bytes go to `<target>.partial`, which is continued if it is there, and which a kill or an error leaves. Size and
    quickXorHash must be right; without a hash the size, and the item must not have changed meanwhile. If they are not,
    the item is looked up again (it may have changed) and its content downloaded once more from the start.

    Args:
        look_up: asks Graph for the item as it is now.
        progress: gets the bytes that are there so far.
        stop: ends the download soon, with SharePointError.

    Raises:
        Quarantined: two downloads were wrong, or the item is reported as malware. No file is left.
        SharePointError: what else failed for good.
        DataError: the file cannot be written.
    """
    if item.is_folder:
        raise SharePointError(f"{item.name} is a folder: list its children and download these.")
    partial = target.with_name(f"{target.name}.partial")
    wrong, changed = "", False
    try:
        for _ in range(2):
            _refuse_malware(item)
            with _File(partial, keep=bool(item.quick_xor_hash) and not wrong) as file:
                _fetch(transport, drive_id, item, file, progress, stop)
                wrong, now = _what_is_wrong(item, file), item
                if wrong or not item.quick_xor_hash:
                    now = look_up()
                    _refuse_malware(now)
                changed = now.identity != item.identity
                if changed:
                    wrong = _what_is_wrong(now, file) if now.quick_xor_hash else "it changed while it was read"
                if not wrong:
                    file.publish(target)
                    return now
            item = now
        partial.unlink()
    except OSError as error:  # those of the network were dealt with below
        raise DataError(
            f"{error.filename or partial} cannot be written: {error.strerror}. Mend that (free some space, say); the "
            "download then goes on from what is there."
        ) from error
    if changed:
        raise SharePointError(f"Downloading {item.name} failed: it keeps changing. Try again when it is settled.")
    raise Quarantined(
        f"{item.name} was downloaded twice and is not what SharePoint says: {wrong}. It is not used: upload it again."
    )


def is_there(item: Item, path: Path) -> bool:
    """Whether a file has an item's size and hash. Without a hash nothing is sure."""
    if not item.quick_xor_hash or not path.is_file() or path.stat().st_size != item.size:
        return False
    with _File(path, keep=True) as file:
        return not _what_is_wrong(item, file)


def _refuse_malware(item: Item) -> None:
    if item.malware:
        raise Quarantined(f"{item.name} is held for malware by SharePoint, and not downloaded: see to it there.")


class _File:
    """A file that grows, and the hash of what is in it."""

    def __init__(self, path: Path, keep: bool) -> None:
        self.path = path
        self.size = 0
        self.furthest = 0
        """The largest size so far: only what goes beyond it is progress."""
        self.hash = QuickXorHash()
        self._background = ThreadPoolExecutor(1)
        self._flush: Future[None] | None = None
        self._flushed = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "r+b" if keep and path.is_file() else "w+b", buffering=0)  # noqa: SIM115, PTH123
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
        if self.size - self._flushed >= FLUSH and (self._flush is None or self._flush.done()):
            self._check_flush()
            self._flushed, self._flush = self.size, self._background.submit(os.fsync, self._file.fileno())

    def restart(self) -> None:
        """Empty it."""
        self._file.seek(0)
        self._file.truncate()
        self.size, self._flushed, self.hash = 0, 0, QuickXorHash()

    def publish(self, target: Path) -> None:
        """Flush it to the disk and give it its name."""
        self._check_flush()
        os.fsync(self._file.fileno())
        self.path.replace(target)

    def _check_flush(self) -> None:
        """Raises OSError if the disk refused what was flushed last: it says so only once."""
        if self._flush is not None:
            self._flush.result()

    def _count(self, chunk: bytes) -> None:
        self.hash.update(chunk)
        self.size += len(chunk)
        self.furthest = max(self.furthest, self.size)


def _what_is_wrong(item: Item, file: _File) -> str:
    if file.size != item.size:
        return f"it has {file.size:,} bytes instead of {item.size:,}"
    if item.quick_xor_hash and file.hash.base64() != item.quick_xor_hash:
        return f"its quickXorHash is {file.hash.base64()} instead of {item.quick_xor_hash}"
    return ""


def _fetch(
    transport: Transport, drive_id: str, item: Item, file: _File, progress: Callable[[int], None], stop: Event
) -> None:
    """Append to `file` until it has the item's size, or the content ends. Whether it is right is not looked at."""
    advice = Advice(f"Downloading {item.name}")

    def attempt() -> None:
        if file.size > item.size:
            file.restart()
        before = file.size
        if before == item.size and before > 0:
            return
        address = transport.download_address(drive_id, item.id, advice)
        with transport.content(address, before, None, advice) as answer:
            if before and not _continues(answer, file, item):
                return
            _copy(answer, file, item, progress, stop, advice)

    transport.retry(attempt)


def _continues(answer: Answer, file: _File, item: Item) -> bool:
    """Make `file` fit an answer to a request for the bytes after it; whether bytes come."""
    told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.header("Content-Range").strip())
    start, total = told.groups() if told else (None, None)
    if answer.status == 416:
        if total == str(file.size):  # all is there, though the item was said to be longer: the check will tell
            return False
        file.restart()
        raise Trouble(SharePointError(f"Downloading {item.name} failed: its end is not where it was said to be."))
    if answer.status == 200:  # the range was ignored
        file.restart()
        return True
    if start != str(file.size) or total not in (str(item.size), "*"):
        file.restart()
        raise Trouble(SharePointError(f"Downloading {item.name} failed: another range came than was asked for."))
    return True


def _copy(
    answer: Answer, file: _File, item: Item, progress: Callable[[int], None], stop: Event, advice: Advice
) -> None:
    furthest = file.furthest
    failure = ""
    while file.size <= item.size:  # more than that is wrong: do not fill the disk with it
        if stop.is_set():
            raise SharePointError(f"{advice.what} was stopped. What is there is kept.")
        try:
            chunk = answer.body.read(CHUNK, decode_content=False)
        except (HTTPError, OSError) as error:
            failure = type(error).__name__
            break
        if not chunk:
            break
        file.append(chunk)
        progress(file.size)
    if failure or file.size < item.size:
        reason = failure or "the answer ended early"
        error_of_all = SharePointError(f"{advice.what} failed: the connection was cut again and again ({reason}).")
        raise Trouble(error_of_all, progressed=file.size > furthest)
