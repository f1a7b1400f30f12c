"""A file of the library opened for reading and seeking without a download: a zip's directory is at its end."""

import io
from functools import cached_property
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from drive_assets.resources.sharepoint.errors import Operation, SharePointError, Unavailable
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.sharepoint.transport import Transport
from model.common.downloads import content_range

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20
"""Bytes requested at a time."""


class RemoteFile(io.RawIOBase):
    """Reads by Range. Not thread-safe. Reading raises SharePointError. No hash verifies what is read.

    The size comes with the file's end, which is read first: the size that SharePoint lists is sometimes wrong.
    """

    def __init__(self, transport: Transport, drive_id: str, item: Item) -> None:
        super().__init__()
        self._transport, self._drive_id, self._item = transport, drive_id, item
        self._operation = Operation(f"Reading {item.name}")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._end[0] if whence == io.SEEK_END else 0)[whence]
        if self._position < 0:
            raise ValueError(f"{self._item.name} has no position {self._position}.")
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        size, end = self._end
        first = size - len(end)
        if self._position >= first:
            piece = end[self._position - first :][: len(view)]
        else:
            stop = min(self._position + len(view), first)
            found_size, piece = self._transport.retry(lambda: self._fetch(self._position, stop))
            if found_size != size:
                raise SharePointError(f"{self._operation.name} failed: it changed meanwhile. Look it up again.")
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    @cached_property
    def _end(self) -> tuple[int, bytes]:
        return self._transport.retry(lambda: self._fetch(-BLOCK))

    def _fetch(self, first: int, stop: int = 0) -> tuple[int, bytes]:
        """The file's size, and its bytes from `first` to `stop`; if `first` is negative, its last ones."""
        ranged = f"{first}-{stop - 1}" if first >= 0 else str(first)
        content, reason = b"", "the response ended early"
        with self._transport.content(self._drive_id, self._item.id, ranged, self._operation) as response:
            start, size = content_range(response)
            if response.status_code == 416:
                return size, b""
            expected = first if first >= 0 else max(0, size + first)
            if start != expected:
                raise Unavailable(f"{self._operation.name} failed: SharePoint sent another range than requested.")
            length = (min(stop, size) if first >= 0 else size) - start
            try:
                content = response.raw.read(length, decode_content=False)
            except HTTPError as error:
                reason = type(error).__name__
        if len(content) < length:
            raise Unavailable(f"{self._operation.name} failed: the connection was cut ({reason}).")
        return size, content
