"""Frames annotated so far, in memory and in a file that outlives a killed run."""

import json
import os
from collections.abc import Iterable, Mapping

import numpy as np

from model.annotation.frames import Detections
from model.common.errors import DataError
from model.common.files import explained_errors
from model.recording.content import FRAME_HASHES
from model.recording.folder import Recording


class PartialAnnotations:
    """The annotated frames of a recording. Leaving the context writes the rest of them to the file."""

    def __init__(self, recording: Recording, identity: str, hashes: Mapping[str, str]) -> None:
        """Load the frames that a killed run, or an earlier run with this `identity` (weights and options), annotated.

        Args:
            hashes: of the frames' contents by file name; frames whose hash has changed are annotated again.
        """
        output = recording.annotations_path
        self._stem = f".{output.stem}."
        self.path = output.with_name(f"{self._stem}{identity}.partial")
        self._unwritten: list[str] = []
        self._hashes = hashes
        self.frames = _earlier(recording, identity, hashes)
        if self.path.is_file():
            self._read()

    def __enter__(self) -> "PartialAnnotations":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, frames: Iterable[tuple[str, Detections]], every: int) -> None:
        """Add (file name, detections); write once `every` frames are unwritten."""
        for name, detections in frames:
            self.frames[name] = detections
            self._unwritten.append("\n" + json.dumps([name, self._hashes[name], detections.tolist()]))
        if len(self._unwritten) >= every:
            self._write()

    def discard(self) -> None:
        """Remove the file, and those of other weights and options."""
        self._unwritten = []
        for path in self.path.parent.glob(f"{self._stem}*.partial"):
            path.unlink()

    def _write(self) -> None:
        if self._unwritten:
            with explained_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
                stream.writelines(self._unwritten)
                stream.flush()
                os.fsync(stream.fileno())
            self._unwritten = []

    def _read(self) -> None:
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            try:
                name, digest, detections = json.loads(line)
                if self._hashes.get(name) == digest:
                    self.frames[name] = np.array(detections, np.float32).reshape(-1, 6)
            except (ValueError, TypeError):  # cut by a kill: annotated again
                continue


def _earlier(recording: Recording, identity: str, hashes: Mapping[str, str]) -> dict[str, Detections]:
    """Detections of an earlier run with this identity in unchanged frames; nothing if they cannot be read."""
    try:
        if recording.details.get("fingerprint") == identity and recording.annotations_path.is_file():
            annotations = recording.annotations()
            before = recording.details.get(FRAME_HASHES, {})
            return {
                name: annotations.frame(index)
                for index, name in enumerate(annotations.filename)
                if name in hashes and before.get(name) == hashes[name]
            }
    except DataError:
        pass
    return {}
