"""Frames annotated so far: in memory, and in a file beside the output that outlives a killed run."""

import json
import os
from collections.abc import Iterable, Mapping

import numpy as np

from model.annotation.frames import Detections
from model.common.errors import DataError
from model.common.files import explained_write_errors
from model.recording.content import FRAME_HASHES
from model.recording.folder import Recording


class PartialAnnotations:
    """What is done of a recording's frames. As a context manager it writes what is unwritten, whatever happens."""

    def __init__(self, recording: Recording, identity: str, hashes: Mapping[str, str]) -> None:
        """Recover what a killed run, or an earlier run with this `identity` (weights and options), has done.

        Args:
            hashes: of the frames' contents by file name; a frame that has another one now is annotated anew.
        """
        output = recording.annotations_path
        self._stem = f".{output.stem}."
        self.path = output.with_name(f"{self._stem}{identity}.partial")
        self._unwritten: list[str] = []
        self._hashes = hashes
        self.frames = _earlier(recording, identity, hashes)
        if self.path.is_file():
            self._recover()

    def __enter__(self) -> "PartialAnnotations":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, frames: Iterable[tuple[str, Detections]], every: int) -> None:
        """Take in (file name, detections); write once `every` frames are unwritten."""
        for name, found in frames:
            self.frames[name] = found
            self._unwritten.append(json.dumps([name, self._hashes[name], found.tolist()]) + "\n")
        if len(self._unwritten) >= every:
            self._write()

    def finished(self) -> None:
        """Drop the file: the output is written."""
        self._unwritten = []
        for left in self.path.parent.glob(f"{self._stem}*.partial"):
            left.unlink()

    def _write(self) -> None:
        if self._unwritten:
            with explained_write_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
                stream.writelines(self._unwritten)
                stream.flush()
                os.fsync(stream.fileno())
            self._unwritten = []

    def _recover(self) -> None:
        """Read what a killed run left; its last line may be cut."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        for line in whole:
            try:
                name, digest, found = json.loads(line)
                if self._hashes.get(name) == digest:
                    self.frames[name] = np.array(found, np.float32).reshape(-1, 6)
            except (ValueError, TypeError):  # junk: that frame is annotated anew
                continue
        if len(whole) < len(lines):
            self.path.write_text("".join(whole), encoding="utf-8")


def _earlier(recording: Recording, identity: str, hashes: Mapping[str, str]) -> dict[str, Detections]:
    """What an earlier run with this identity found in frames that are as they were; nothing if it cannot be read."""
    try:
        if recording.details.get("fingerprint") == identity and recording.annotations_path.is_file():
            found = recording.annotations()
            before = recording.details.get(FRAME_HASHES, {})
            return {
                name: found.frame(index)
                for index, name in enumerate(found.filename)
                if name in hashes and before.get(name) == hashes[name]
            }
    except DataError:  # what cannot be read is made anew
        pass
    return {}
