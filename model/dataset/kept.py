"""Summaries of recordings, kept while their files stay as they are.

To read a recording takes a tenth of a second, to see that nothing in it changed a few microseconds a frame.
"""

import hashlib
import json
import os
import time
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter

from model.common.code import code_version
from model.common.config import fingerprint
from model.common.files import write_text
from model.dataset.summaries import Summary, summarise
from model.dataset.windows import WindowConfig
from model.recording.folder import Recording
from model.recording.frame_files import is_frame

SETTLED_S = 2.0
"""What changed so shortly before it was read may change again at what the file system takes for the same time."""
DECIDES = (
    *(f"model.dataset.{name}" for name in ("summaries", "windows")),
    *(f"model.recording.{name}" for name in ("annotations", "content", "dialect", "folder", "frame_files", "labels")),
    *(f"model.recording.{name}" for name in ("plausibility", "ranges", "schema", "telemetry", "times", "values")),
)
"""Modules that decide on a summary."""
Stats = list[os.stat_result | None]
_KEPT = TypeAdapter(dict[str, tuple[str, Summary]])


class Kept:
    """Summaries by recording's name in a file, each with what the recording was known by."""

    def __init__(self, path: Path | None, window: WindowConfig) -> None:
        self.path, self.window = path, window
        self.identity = fingerprint(code_version(*DECIDES), window.model_dump())
        self.new: dict[str, tuple[str, Summary]] = {}

    @cached_property
    def before(self) -> dict[str, tuple[str, Summary]]:
        """What the file holds; nothing if it is of other code or windows, or damaged."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8")) if self.path else {}
            return _KEPT.validate_python(content["recordings"]) if content["identity"] == self.identity else {}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def summary(self, own: Recording) -> Summary:
        """The one that is kept, or a new one where something changed."""
        found = _stats(own) + _frames(own)
        stamp, known = _stamp(found), self.before.get(own.name)
        summary = known[1] if known and known[0] == stamp else summarise(own, self.window)
        if summary.foreseen and _last_change(found) < time.time() - SETTLED_S:
            self.new[own.name] = (stamp, summary)
        return summary

    def save(self) -> None:
        if self.path is not None and self.new != self.before:
            content = {"identity": self.identity, "recordings": _KEPT.dump_python(self.new, mode="json")}
            write_text(self.path, json.dumps(content, allow_nan=False))


def stamp_of(own: Recording) -> str:
    """What the files of a recording are known by without reading them."""
    return _stamp(_stats(own) + _frames(own))


def last_change(own: Recording) -> float:
    """Seconds since 1970 of the last change; infinite if the recording is gone.

    Not that a frame was written anew in place: that costs a look at thousands.
    """
    return _last_change(_stats(own))


def _stamp(found: Stats) -> str:
    known = [(each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) if each else None for each in found]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _last_change(found: Stats) -> float:
    return max((each.st_ctime for each in found if each), default=float("inf"))


def _frames(own: Recording) -> Stats:
    """Of each frame, in order of names; empty if the folder cannot be looked through."""
    try:
        with os.scandir(own.camera_folder) as entries:
            return [entry.stat() for entry in sorted(entries, key=lambda entry: entry.name) if is_frame(entry.name)]
    except OSError:
        return []


def _stats(own: Recording) -> Stats:
    """Of the folder and each file that decides on a summary; None for one that is absent."""
    found: Stats = []
    for path in (own.folder, own.telemetry_path, own.reading_path, own.labels_path, own.label_config_path,
                 own.camera_folder, own.roi_path, own.annotations_path, own.details_path):  # fmt: skip
        try:
            found.append(path.stat())
        except OSError:
            found.append(None)
    return found
