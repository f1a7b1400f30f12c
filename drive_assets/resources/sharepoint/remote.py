"""A file of the library to read and seek in without downloading it: the directory of a zip is at its end."""

import io
import re
from collections import OrderedDict
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from drive_assets.resources.sharepoint.answers import Advice, Answer, DownloadAddress, Trouble
from drive_assets.resources.sharepoint.items import Item, SharePointError
from drive_assets.resources.sharepoint.transport import Transport

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20
"""Bytes asked for at a time."""
KEPT = 4
"""Blocks kept in memory."""


class RemoteFile(io.RawIOBase):
    """Reads blocks by Range. Not thread-safe. Reading raises SharePointError; what is read is not checked by a hash."""

    def __init__(self, transport: Transport, drive_id: str, item: Item) -> None:
        super().__init__()
        self._transport = transport
        self._drive_id = drive_id
        self._item = item
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._address: DownloadAddress | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._item.size}[whence]
        if start + offset < 0:
            raise ValueError(f"{self._item.name} has no position {start + offset}.")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        if self._position >= self._item.size or not view:
            return 0
        number, start = divmod(self._position, BLOCK)
        piece = self._block(number)[start : start + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * BLOCK
            self._blocks[number] = self._fetch(start, min(start + BLOCK, self._item.size))
            if len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, start: int, end: int) -> bytes:
        advice = Advice(f"Reading {self._item.name}")

        def attempt() -> bytes:
            self._address = self._address or self._transport.download_address(self._drive_id, self._item.id, advice)
            address, self._address = self._address, None  # after a failure a new one is asked for
            with self._transport.content(address, start, end, advice) as answer:
                skipped = start if answer.status == 200 else 0  # the range was ignored
                self._check(answer, start, advice)
                try:
                    while skipped:
                        skipped -= len(answer.body.read(min(skipped, BLOCK), decode_content=False)) or skipped
                    content = answer.body.read(end - start, decode_content=False)
                except (HTTPError, OSError) as error:
                    content, reason = b"", type(error).__name__
                else:
                    reason = "the answer ended early"
            if len(content) < end - start:
                raise Trouble(SharePointError(f"{advice.what} failed: the connection was cut ({reason})."))
            self._address = address
            return content

        return self._transport.retry(attempt)

    def _check(self, answer: Answer, start: int, advice: Advice) -> None:
        size = self._item.size
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.header("Content-Range").strip())
        if answer.status == 200:
            changed = answer.header("Content-Length") not in ("", str(size))
        else:
            changed = answer.status == 416 or told is None or told[2] not in ("*", str(size))
        if changed:
            raise SharePointError(f"{advice.what} failed: it changed since it was listed. Look it up again.")
        if told is not None and told[1] != str(start):
            raise Trouble(SharePointError(f"{advice.what} failed: another range came than was asked for."))
