"""Free disk space, and the progress of a transfer."""

import shutil
import time
from pathlib import Path

from model.common.errors import DataError
from model.common.progress import Log

SPARE_BYTES = 200 * 1024 * 1024
PROGRESS_S = 5.0


class Progress:
    """Logs the progress of a transfer, in a line every few seconds."""

    def __init__(self, label: str, log: Log) -> None:
        self.label, self.log = label, log
        self._started = self._logged = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """`done` of the total bytes are there."""
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        if now - self._logged < PROGRESS_S:
            return
        self._logged = now
        speed = (done - self._first) / (now - self._started)
        left = f", {(total - done) / speed:.0f} s left" if speed > 0 else ""
        share = done / max(total, 1)
        self.log(f"{self.label}: {share:.0%} of {total / 1e6:,.1f} MB, {speed / 1e6:.1f} MB/s{left}")


def check_space(folder: Path, needed: int, name: str) -> None:
    """Raises DataError if less than `needed` bytes, and some to spare, are free on the disk of an existing folder."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise DataError(
            f"{name} needs {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free at {folder}: free some, or choose "
            "another data root with DRIVE_ASSETS_DATA."
        )
