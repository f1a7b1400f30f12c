"""Writing files so that a reader sees the old content or the new one, never a part."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from model.common.errors import DataError
from model.common.progress import Tell

DAY_S = 24 * 3600.0
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
WRITE_ADVICE = "Choose another data root with the environment variable DRIVE_ASSETS_DATA, or change its permissions."
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-([0-9a-f]+)-([0-9a-f]+)-[0-9a-f]{6}(?:\.\w+)?")


def fsync(path: Path) -> None:
    """Flush a file's or directory's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flush the files of a flat folder and its directory: what a rename then publishes survives a power cut."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(fsync, folder.iterdir()):
            pass
    fsync(folder)


def temporary_sibling(path: Path) -> Path:
    """A hidden name beside `path`, with its suffix, that says which process it belongs to."""
    start = psutil.Process().create_time()
    owner = f"{_host()}-{os.getpid():x}-{int(start):x}-{uuid.uuid4().hex[:6]}"
    return path.with_name(f".{path.stem}.{owner}{path.suffix}")


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that goes with the block; if the process is killed, with the next start of any command."""
    folder = temporary_sibling(path)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(root: Path, levels: int = 3) -> list[Path]:
    """Remove temporary siblings whose processes are dead, down to some levels of folders; returns them.

    Those of another host, whose processes cannot be seen, go after a day.
    """
    removed: list[Path] = []
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            named = _TEMPORARY.fullmatch(entry.name)
            if named and _is_abandoned(named, entry):
                path = Path(entry.path)
                shutil.rmtree(path, ignore_errors=True) if entry.is_dir() else path.unlink(missing_ok=True)
                removed.append(path)
            elif levels and not named and entry.is_dir(follow_symlinks=False):
                removed += remove_abandoned(Path(entry.path), levels - 1)
    return removed


def _is_abandoned(named: "re.Match[str]", entry: "os.DirEntry[str]") -> bool:
    host, pid, start = named.groups()
    if host != _host():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY_S
    try:
        return int(psutil.Process(int(pid, 16)).create_time()) != int(start, 16)
    except psutil.NoSuchProcess:
        return True


def _host() -> str:
    return f"{zlib.crc32(os.uname().nodename.encode()):08x}"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write a file to; on success flush it and rename it to `path`.

    The temporary name keeps the suffix, since many writers choose the format by it. On an exception it is removed and
    `path` stays as it was. Parent folders are made.

    Raises:
        DataError: the disk is full, or may not be written.
    """
    temporary = temporary_sibling(path)
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        except BaseException:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """That the disk of `path` fills up in the block, or may not be written, becomes a DataError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in NOT_WRITABLE:
            raise DataError(f"{path} cannot be written: {error.strerror}. {WRITE_ADVICE}") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free / 1e6
        raise DataError(
            f"{path} cannot be written: the disk is full. It needs more than the {free:,.0f} MB that are free in "
            f"{path.parent}; free some and run it again."
        ) from error


@contextmanager
def locked(path: Path, wait_s: float = -1.0, in_use: str = "{holder} holds {path}") -> Iterator[None]:
    """Hold the file `path` for this process in the block. The system frees it when the process ends, however it ends.

    Args:
        wait_s: how long to wait for another process that holds it; negative: until it ends.
        in_use: what the error says then; {holder} becomes "process 12 on host".

    Raises:
        DataError: another process holds it; or the file system has no locks.
    """
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    named, lock = path.with_name(f"{path.name}.holder"), FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        holder = named.read_text() if named.is_file() else "an unknown process"
        raise DataError(in_use.format(holder=holder, path=path)) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            raise DataError(f"{path} cannot be written: {error.strerror}. {WRITE_ADVICE}") from error
        raise DataError(
            f"{path} cannot be locked ({error}): choose a data root on a file system with locks (DRIVE_ASSETS_DATA), "
            "or mount this one with them."
        ) from error
    try:
        with contextlib.suppress(OSError):  # on a full disk the holder stays unnamed
            named.write_text(f"process {os.getpid()} on {os.uname().nodename}")
        yield
    finally:
        named.unlink(missing_ok=True)
        lock.release()


@contextmanager
def locked_after(path: Path, tell: Tell, waits: str) -> Iterator[None]:
    """As `locked`, and tells what it waits for, if it must.

    Args:
        waits: {holder} becomes "process 12 on host".

    Raises:
        DataError: the file system has no locks.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path, 0.0, waits))
        except DataError as busy:
            tell(str(busy))
            held.enter_context(locked(path))
        yield


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, atomically. NaN is refused: readers of other languages reject it."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
