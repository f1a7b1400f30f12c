"""Where telemetry and frames come from: a recording, a folder that grows, or a camera."""

import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import BundleError
from .telemetry import TELEMETRY

POLL_S, PATIENCE_S, SILENCE_S, RESTART_S = 0.02, 0.5, 5.0, 2.0
"""Between two looks at a file; for a frame that is late; until silence is reported; until a camera is started again."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
JPEG_START, JPEG_END, PNG_END = b"\xff\xd8", b"\xff\xd9", b"IEND\xae\x42\x60\x82"
LARGEST_FRAME = 20_000_000


class Picture(NamedTuple):
    content: bytes
    age_s: float | None
    """Since it was taken, or since its file was written."""


Frames = Callable[[str], Picture | None]
"""The frame of a row by its Time; None if there is none."""


def recorded_lines(path: Path) -> Iterator[str]:
    """The lines of a file that is complete."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            yield from (line.rstrip("\r\n") for line in stream)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): expected a drive with {TELEMETRY}.") from error


def growing_lines(path: Path, idle_s: float | None) -> Iterator[str]:
    """The lines of a file that another program appends to, each once it is complete. Waits for the file.

    Args:
        idle_s: end after as long without a new line; None: never.
    """
    position, rest, latest, reported = 0, b"", time.monotonic(), False
    while True:
        try:
            if path.stat().st_size < position:
                position, rest = 0, b""  # the recorder has begun a new file
            with path.open("rb") as stream:
                stream.seek(position)
                content = stream.read()
        except OSError:
            content = b""
        position += len(content)
        *lines, rest = (rest + content).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r").lstrip("\ufeff")
        if lines:
            latest, reported = time.monotonic(), False
            continue
        silent_s = time.monotonic() - latest
        if idle_s is not None and silent_s > idle_s:
            return
        if silent_s > SILENCE_S and not reported:
            print(f"{path}: no new row for {SILENCE_S:g} s. Alarms pause until rows come again.", file=sys.stderr)
            reported = True
        time.sleep(POLL_S)


def frames_of(folder: Path, patience_s: float = 0.0) -> Frames:
    """Frames of a folder. One that is not there, or not whole, is waited for as long."""

    def frame(row_time: str) -> Picture | None:
        if "/" in row_time or "\\" in row_time:
            return None
        until = time.monotonic() + patience_s
        while True:
            for path in (folder / f"{row_time}{suffix}" for suffix in SUFFIXES):
                try:
                    content, written = path.read_bytes(), path.stat().st_mtime
                except OSError:
                    continue
                if not patience_s:
                    return Picture(content, None)
                if content.rstrip(b"\0")[-4096:].rfind(JPEG_END) >= 0 or content.endswith(PNG_END):
                    return Picture(content, max(time.time() - written, 0.0))
            if time.monotonic() >= until:
                return None
            time.sleep(POLL_S)

    return frame


class Camera:
    """The latest picture of a camera, through ffmpeg. It is started again when it stops."""

    def __init__(self, arguments: str, rate_hz: float = 4.0) -> None:
        """Args:
        arguments: of ffmpeg, that name the camera, such as `-f v4l2 -i /dev/video0`.

        Raises:
            BundleError: ffmpeg is not installed.
        """
        output = ["-an", "-vf", f"fps={rate_hz}", "-c:v", "mjpeg", "-q:v", "3", "-f", "image2pipe", "-"]
        self._command = ["ffmpeg", "-loglevel", "error", "-nostdin", *shlex.split(arguments), *output]
        self.restarts = 0
        self._latest: tuple[bytes, float] | None = None
        self._closed = threading.Event()
        self._start()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        except OSError as error:
            raise BundleError(f"ffmpeg cannot be started ({error.strerror}): install it.") from error

    def _run(self) -> None:
        while not self._closed.is_set():
            self._read()
            self._process.wait()
            if self._closed.wait(RESTART_S):
                return
            self.restarts += 1
            print("The camera stopped and is started again. Alarms pause meanwhile.", file=sys.stderr)
            self._start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        buffer = b""
        while content := self._process.stdout.read1(1 << 20):  # type: ignore[attr-defined]
            buffer += content
            while (end := buffer.find(JPEG_END)) >= 0:
                begin = buffer.find(JPEG_START, 0, end)
                if begin >= 0:
                    self._latest = buffer[begin : end + 2], time.monotonic()
                buffer = buffer[end + 2 :]
            buffer = b"" if len(buffer) > LARGEST_FRAME else buffer

    def __call__(self, row_time: str) -> Picture | None:
        latest = self._latest
        if latest is None or (age := time.monotonic() - latest[1]) > PATIENCE_S:
            return None
        return Picture(latest[0], age)

    def close(self) -> None:
        self._closed.set()
        self._process.terminate()
        self._thread.join(RESTART_S + 1)
