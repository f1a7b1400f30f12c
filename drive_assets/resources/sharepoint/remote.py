"""A file of the library opened for reading and seeking without a download: a zip's directory is at its end."""

import io
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from drive_assets.resources.sharepoint.items import Item, SharePointError, Unavailable
from drive_assets.resources.sharepoint.responses import Operation, Response
from drive_assets.resources.sharepoint.transport import DownloadAddress, Transport

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20
"""Bytes requested at a time."""
CACHED_BLOCKS = 4


class RemoteFile(io.RawIOBase):
    """Reads blocks by Range. Not thread-safe. Reading raises SharePointError. No hash verifies what is read.

    The size comes with the file's end, which is read first: the size that SharePoint lists is sometimes wrong.
    """

    def __init__(self, transport: Transport, drive_id: str, item: Item) -> None:
        super().__init__()
        self._transport = transport
        self._drive_id = drive_id
        self._item = item
        self._operation = Operation(f"Reading {item.name}")
        self._position = 0
        self._block = lru_cache(CACHED_BLOCKS)(self._fetch)
        self._address: DownloadAddress | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + (self._end[0] if whence == io.SEEK_END else self._position if whence == io.SEEK_CUR else 0)
        if position < 0:
            raise ValueError(f"{self._item.name} has no position {position}.")
        self._position = position
        return position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        size, end = self._end
        first = size - len(end)
        if self._position < first:
            first = self._position // BLOCK * BLOCK
            found_size, content = self._block(first)
            if found_size != size:
                raise SharePointError(f"{self._operation.name} failed: it changed meanwhile. Look it up again.")
        else:
            content = end
        piece = content[self._position - first :][: len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    @cached_property
    def _end(self) -> tuple[int, bytes]:
        return self._fetch(-BLOCK)

    def _fetch(self, first: int) -> tuple[int, bytes]:
        """The file's size, and a block from `first`; if that is negative, counted from the end."""
        ranged = f"{first}-{first + BLOCK - 1}" if first >= 0 else str(first)

        def attempt() -> tuple[int, bytes]:
            self._address = self._address or self._transport.download_address(
                self._drive_id, self._item.id, self._operation
            )
            address, self._address = self._address, None  # after a failure, a new one is requested
            with self._transport.content(address, ranged, self._operation) as response:
                result = self._read(response, first)
            self._address = address
            return result

        return self._transport.retry(attempt)

    def _read(self, response: Response, first: int) -> tuple[int, bytes]:
        start, size = response.content_range()
        wanted = first if first >= 0 else max(0, size + first)
        expected = max(0, min(BLOCK, size - wanted))
        content, reason = b"", "the response ended early"
        if response.status == 416:
            return size, content
        if response.status == 206 and start != wanted:
            raise Unavailable(f"{self._operation.name} failed: SharePoint sent another range than requested.")
        try:
            while start < wanted:  # the range was ignored
                start += len(response.body.read(min(wanted - start, BLOCK), decode_content=False)) or wanted
            content = response.body.read(expected, decode_content=False)
        except HTTPError as error:
            reason = type(error).__name__
        if len(content) < expected:
            raise Unavailable(f"{self._operation.name} failed: the connection was cut ({reason}).")
        return size, content
