"""Space on the disk, locks, and how far a transfer is."""

import shutil
import time
from pathlib import Path

from model.common.errors import DataError
from model.common.progress import Tell

SPARE_BYTES = 200 * 1024 * 1024
PROGRESS_S = 5.0


class Progress:
    """Tells how far a transfer is, in a line every few seconds."""

    def __init__(self, label: str, tell: Tell) -> None:
        self.label, self.tell = label, tell
        self._started = self._told = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """`done` of the total bytes are there."""
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        speed = (done - self._first) / (now - self._started)
        share = done / max(total, 1)
        left = f", {(total - done) / speed:.0f} s left" if speed > 0 else ""
        self.tell(f"{self.label}: {share:.0%} of {total / 1e6:,.1f} MB, {speed / 1e6:.1f} MB/s{left}")


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that `folder` lies on, or will lie on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(folder: Path, wanted: int, name: str) -> None:
    """Raises DataError if less than `wanted` bytes, and some to spare, are free for `folder`."""
    free = free_bytes(folder)
    if free < wanted + SPARE_BYTES:
        raise DataError(
            f"{name} needs {wanted / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free at {folder}: free some, or choose "
            "another data root with DRIVE_ASSETS_DATA."
        )
