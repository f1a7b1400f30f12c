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
from model.common.progress import Log

DAY_S = 24 * 3600.0
_PERMISSIONS = "Choose another data root with the environment variable DRIVE_ASSETS_DATA, or change its permissions"
_NO_FOLDER = "A file has the name of one of its folders: move it aside"
_ADVICE = {
    errno.EROFS: _PERMISSIONS,
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.ENOLCK: "Choose a data root on a file system with locks (DRIVE_ASSETS_DATA), or mount this one with them",
    errno.EDQUOT: "Delete files of yours or ask for a larger quota, then run it again",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), then run it again",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), then run it again",
    errno.EIO: "The disk, or the storage that it is mounted from, fails: check it before you run it again",
    errno.EISDIR: "A folder has the name of this file: move it aside",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
}
"""What helps against an error of the operating system; other errors are not explained."""
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-([0-9a-f]+)-([0-9a-f]+)-[0-9a-f]{6}(?:\.\w+)?")


def fsync(path: Path) -> None:
    """Flush a file's or directory's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flush the files of a flat folder and its directory, so that a rename survives a power cut."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(fsync, folder.iterdir()):
            pass
    fsync(folder)


def temporary_sibling(path: Path) -> Path:
    """A hidden name beside `path`, with its suffix, that identifies the process that it belongs to."""
    owner = f"{_host()}-{os.getpid():x}-{_start(os.getpid()) or 0:x}-{uuid.uuid4().hex[:6]}"
    return path.with_name(f".{path.stem}.{owner}{path.suffix}")


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for the block; if the process is killed, the next start of any command removes it."""
    folder = temporary_sibling(path)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(root: Path, levels: int = 3) -> list[Path]:
    """Remove temporary siblings whose processes have ended, down to some levels of folders; returns them.

    Those of another host, whose processes cannot be seen, are removed after a day.
    """
    removed: list[Path] = []
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            owner = _TEMPORARY.fullmatch(entry.name)
            if owner and _is_abandoned(owner, entry):
                path = Path(entry.path)
                shutil.rmtree(path, ignore_errors=True) if entry.is_dir() else path.unlink(missing_ok=True)
                removed.append(path)
            elif levels and not owner and entry.is_dir(follow_symlinks=False):
                removed += remove_abandoned(Path(entry.path), levels - 1)
    return removed


def _is_abandoned(owner: "re.Match[str]", entry: "os.DirEntry[str]") -> bool:
    host, pid, start = owner.groups()
    if host != _host():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY_S
    return _start(int(pid, 16)) != int(start, 16)


def _start(pid: int) -> int | None:
    """Ticks from the boot to the start of a process, which no step of the clock moves; None if there is none.

    Zero where the system has no /proc.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0 if psutil.pid_exists(pid) else None


def _host() -> str:
    return f"{zlib.crc32(os.uname().nodename.encode()):08x}"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write a file to; on success flush it and rename it to `path`.

    The temporary name keeps the suffix, since many writers choose the format by it. On an exception it is removed and
    `path` stays as it was. Missing parent folders are created. DataError as `explained_errors`.
    """
    temporary = temporary_sibling(path)
    with explained_errors(path):
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
def explained_errors(path: Path, participle: str = "written") -> Iterator[None]:
    """Turn an error of the operating system while `path` is written, or read, into a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(f"{path} cannot be written: {_disk_is_full(path.parent)}, then run it again.") from error
        if error.errno not in _ADVICE:
            raise
        raise DataError(f"{path} cannot be {participle}: {error.strerror}. {_ADVICE[error.errno]}.") from error


def _disk_is_full(folder: Path) -> str:
    disk = os.statvfs(folder)
    if disk.f_files and not disk.f_favail:
        return f"the disk has no inodes left for new files. Delete files in {folder} or elsewhere on it"
    free = disk.f_bavail * disk.f_frsize / 1e6
    return f"the disk is full. It needs more than the {free:,.0f} MB that are free in {folder}; free some"


@contextmanager
def locked(
    path: Path, wait_s: float = -1.0, in_use: str = "{holder} holds {path}", log: Log | None = None
) -> Iterator[None]:
    """Hold the file `path` for this process in the block. The system frees it when the process ends, however it ends.

    Args:
        wait_s: how long to wait for another process that holds it; negative: until it ends.
        in_use: the error's text then; {holder} becomes "process 12 on host".
        log: gets that text instead, and the process waits on.

    Raises:
        DataError: another process holds it; or the file system has no locks.
    """
    holder, lock = path.with_name(f"{path.name}.holder"), FileLock(path, timeout=wait_s)
    with explained_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            text = in_use.format(holder=_named(holder), path=path)
            if log is None:
                raise DataError(text) from error
            log(text)
            lock.acquire(timeout=-1)
        except NotImplementedError as error:
            raise OSError(errno.ENOLCK, "the file system has no locks") from error
    try:
        named = temporary_sibling(holder)
        with contextlib.suppress(OSError):  # on a full disk the one before stays named
            named.write_text(f"process {os.getpid()} on {os.uname().nodename}")
            named.replace(holder)
        named.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _named(holder: Path) -> str:
    """The process in a holder's file, which the first one writes just after it has the lock."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            return holder.read_text()
        time.sleep(0.01)
    return "an unknown process"


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, atomically. NaN is refused, as JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with explained_errors(path, "read"), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
