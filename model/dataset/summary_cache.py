"""A cache of recordings' summaries: reading a recording takes a tenth of a second, its files' times much less."""

import hashlib
import json
import os
import time
from pathlib import Path

from pydantic import TypeAdapter

from model.common.code import code_version
from model.common.config import fingerprint
from model.common.files import write_text
from model.dataset.summaries import Summary, summarise
from model.dataset.windows import WindowConfig
from model.recording.folder import Recording

SETTLED_S = 2.0
"""A file that changed this shortly before it was read may change again without its times showing it."""
_MODULES = ("model.dataset.summaries", "model.dataset.windows", "model.recording")
"""Code that decides on a summary."""
_ENTRIES = TypeAdapter(dict[str, tuple[str, Summary]])


class SummaryCache:
    """Summaries by recording's name in a file, each with the stamp of the files that it was read from."""

    def __init__(self, path: Path | None, window: WindowConfig) -> None:
        self.path, self.window = path, window
        self.identity = fingerprint(code_version(*_MODULES), window.model_dump())
        self.stored = self._read()
        self.used: dict[str, tuple[str, Summary]] = {}

    def _read(self) -> dict[str, tuple[str, Summary]]:
        """The content of the file; empty if it was written by other code, for other windows, or is damaged."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8")) if self.path else {}
            return _ENTRIES.validate_python(content["recordings"]) if content["identity"] == self.identity else {}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def summary(self, own: Recording) -> Summary:
        """The stored summary, or a new one where a file changed."""
        stamp, changed = stamp_of(own)
        known, summary = self.stored.get(own.name, ("", None))
        if summary is None or known != stamp:
            try:
                summary = summarise(own, self.window)
            except Exception as error:  # the other recordings are used nevertheless; the next time may succeed
                return Summary(f"unexpected {type(error).__name__}: {error}")
        if changed < time.time() - SETTLED_S:
            self.used[own.name] = (stamp, summary)
        return summary

    def save(self) -> None:
        if self.path is not None and self.used != self.stored:
            content = {"identity": self.identity, "recordings": _ENTRIES.dump_python(self.used, mode="json")}
            write_text(self.path, json.dumps(content, allow_nan=False))


def stamp_of(own: Recording) -> tuple[str, float]:
    """Identity of the files of a recording by their sizes and times, and the last change, seconds since 1970.

    The last change is infinite where a file cannot be looked at.
    """
    try:
        with os.scandir(own.folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return "", float("inf")
    known = sorted((name, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for name, each in stats)
    last = max((each.st_ctime for _, each in stats), default=float("inf"))
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16], last


def last_change(own: Recording) -> float:
    """Seconds since 1970 of the last change of a recording; infinite if it is gone.

    A frame that was rewritten in place is not noticed: looking at thousands takes too long.
    """
    paths = (own.folder, own.telemetry_path, own.reading_path, own.labels_path, own.label_config_path, own.roi_path,
             own.annotations_path, own.details_path)  # fmt: skip
    return max((path.stat().st_ctime for path in paths if path.exists()), default=float("inf"))
