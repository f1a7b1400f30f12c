"""Frames annotated so far, in memory and in a file that outlives a killed run."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from model.annotation.frames import Detections
from model.common.errors import DataError
from model.common.files import explained_errors
from model.recording.content import FRAME_HASHES
from model.recording.folder import Recording

Row = tuple[str, str | None, Detections]
"""File name, hash of the content, detections."""


class PartialAnnotations:
    """The annotated frames of a recording. Leaving the context writes the rest of them to the file."""

    def __init__(self, recording: Recording, identity: str, hashes: Mapping[str, str]) -> None:
        """Load the frames that a killed run, or an earlier run with this `identity` (weights and options), annotated.

        Args:
            hashes: of the frames' contents by file name; frames whose hash has changed are annotated again.
        """
        output = recording.annotations_path
        self.path, self._pattern = output.with_name(f".{output.stem}.{identity}.partial"), f".{output.stem}.*.partial"
        self._unwritten: list[str] = []
        self._hashes = hashes
        rows = [*_earlier(recording, identity), *_partial(self.path)]
        self.frames = {name: detections for name, digest, detections in rows if hashes.get(name) == digest}

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
        for path in self.path.parent.glob(self._pattern):
            path.unlink()

    def _write(self) -> None:
        if self._unwritten:
            with explained_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
                stream.writelines(self._unwritten)
                stream.flush()
                os.fsync(stream.fileno())
            self._unwritten = []


def _earlier(recording: Recording, identity: str) -> Iterator[Row]:
    """What an earlier run with this identity annotated; nothing if it cannot be read."""
    with suppress(DataError):
        if recording.details.get("fingerprint") == identity and recording.annotations_path.is_file():
            annotations, hashes = recording.annotations(), recording.details.get(FRAME_HASHES, {})
            for index, name in enumerate(annotations.filename):
                yield name, hashes.get(name), annotations.frame(index)


def _partial(path: Path) -> Iterator[Row]:
    """The lines of a killed run; the last one may be cut."""
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
        with suppress(ValueError, TypeError):
            name, digest, detections = json.loads(line)
            yield name, digest, np.array(detections, np.float32).reshape(-1, 6)
