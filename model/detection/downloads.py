"""Fetching the files of a public data set: resumed, retried, checked, and never half there.

Not the client of SharePoint: that resumes by Graph's items and addresses that expire, checks by QuickXorHash and knows
Graph's throttling; this one knows plain HTTP and checks zips. What they share is a loop of few lines.

The base address may hold a user, a password or a token, so no address is ever told: errors name the file.
"""

import json
import random
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from model.common.errors import DataError
from model.common.files import fsync, full_disk_named, locked, write_json
from model.common.progress import Tell

RETRIES = 6
TIMEOUT_S = (15.0, 60.0)
LONGEST_WAIT_S = 60.0
PROGRESS_S = 10.0
SPARE_BYTES = 200 * 1024 * 1024
CHUNK = 1024 * 1024
EXTRACTED = ".extracted.json"


class _Again(Exception):
    """A failure that may pass; `wait` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class NotOnServer(DataError):
    """The server has no such file."""


@dataclass(frozen=True)
class Remote:
    """Files below a base address."""

    base: str
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError("The base address of the downloads is no http:// or https:// address.")

    def __repr__(self) -> str:
        return f"Remote({urlsplit(self.base).hostname})"

    def fetch(self, names: Sequence[str], target: Path, tell: Tell = lambda line: None) -> None:
        """Fetch the first of `names` that the server has, unless `target` is there.

        What a killed or cut transfer left is resumed, where the server still has the same content. A zip is
        checked by its CRCs and, when damaged, fetched once more from the start.

        Raises:
            NotOnServer: none is there.
            DataError: access is denied, the transfer fails for good, the disk is full, or the zip is
                damaged twice.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock")):
            if target.is_file():
                return
            for name in names:
                try:
                    self._fetch(name, target, tell)
                    return
                except NotOnServer:
                    continue
        raise NotOnServer(f"{names[0]} is not on the server (404): check the base address and the names of the files.")

    def _fetch(self, name: str, target: Path, tell: Tell) -> None:
        partial, about = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.about.json")
        for attempt in (1, 2):
            self._transfer(name, partial, about, tell)
            damage = _damage(partial, target.suffix)
            if not damage:
                break
            partial.unlink()
            if attempt == 2:
                raise DataError(f"{name} is damaged on the server ({damage}), twice: nothing of it was kept.")
            tell(f"{name} is damaged ({damage}): it is fetched once more.")
        fsync(partial)
        partial.replace(target)
        about.unlink(missing_ok=True)
        fsync(target.parent)

    def _transfer(self, name: str, partial: Path, about: Path, tell: Tell) -> None:
        failures = 0
        while True:
            before = _size(partial)
            try:
                self._request(name, partial, about, tell)
                return
            except _Again as failure:
                reason, wait = str(failure), failure.wait
            except requests.RequestException as error:  # its text holds the address
                reason, wait = type(error).__name__, 0.0
            except OSError as error:
                raise DataError(f"{name} cannot be written to {partial.parent}: {error.strerror}.") from None
            failures = 1 if _size(partial) > before else failures + 1  # a transfer that moves on is not given up
            if failures > RETRIES:
                raise DataError(f"{name} could not be fetched after {RETRIES} retries ({reason}): try again later.")
            pause = min(max(wait, 2.0 ** (failures - 1) * random.uniform(0.5, 1.0)), LONGEST_WAIT_S)
            tell(f"{name}: {reason}; the next try is in {pause:.0f} s")
            self.sleep(pause)

    def _request(self, name: str, partial: Path, about: Path, tell: Tell) -> None:
        start, known = _size(partial), _read(about)
        headers = {"Accept-Encoding": "identity"}
        if start and known:
            headers |= {"Range": f"bytes={start}-", "If-Range": known["validator"]}
        with requests.get(self._url(name), headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            status = response.status_code
            if status == 404:
                raise NotOnServer(name)
            if status == 416:
                partial.unlink(missing_ok=True)
                raise _Again("the server has less than was fetched before")
            if status in (408, 429) or status >= 500:
                wait = response.headers.get("Retry-After", "")
                raise _Again(f"the server answers {status}", float(wait) if wait.isdigit() else 0.0)
            if status not in (200, 206):
                raise DataError(
                    f"{name} cannot be fetched: the server answers {status}. Check address and credentials."
                )
            goes_on = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if status == 206 and not goes_on:
                partial.unlink(missing_ok=True)
                raise _Again("the server sent another range than asked for")
            start = start if goes_on else 0
            length = int(response.headers.get("Content-Length", 0))
            total = start + length if length else 0
            _check_space(partial.parent, length, name)
            validator = response.headers.get("ETag", "")
            if not validator or validator.startswith("W/"):  # only a strong one can be asked with
                validator = response.headers.get("Last-Modified", "")
            if validator:
                write_json(about, {"validator": validator})
            else:
                about.unlink(missing_ok=True)
            _write(response, partial, start, total, name, tell)
        if total and _size(partial) != total:
            raise _Again(f"cut after {_size(partial):,} of {total:,} bytes")

    def _url(self, name: str) -> str:
        parts = urlsplit(self.base)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}", fragment=""))


def _write(response: requests.Response, partial: Path, start: int, total: int, name: str, tell: Tell) -> None:
    told, done = time.monotonic(), start
    with partial.open("ab" if start else "wb") as out:
        for piece in response.iter_content(CHUNK):
            out.write(piece)
            done += len(piece)
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                tell(f"{name}: {done / 1e6:,.0f}" + (f" of {total / 1e6:,.0f} MB" if total else " MB"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _read(about: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _damage(path: Path, kind: str) -> str:
    """What is wrong with an archive; empty for a sound one and for other files."""
    if kind != ".zip":
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        return str(error)
    return f"wrong CRC of {bad}" if bad else ""


def _check_space(folder: Path, wanted: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted + SPARE_BYTES:
        raise DataError(
            f"{name} needs {wanted / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free in {folder}: free some, or choose "
            "another data root with DRIVE_ASSETS_DATA."
        )


def extract_archives(
    raw: Path, archives: Sequence[Path], wanted: Callable[[str], bool], tell: Tell = lambda line: None
) -> None:
    """Extract the `wanted` members of tar archives into `raw`, each archive once.

    An archive is extracted beside its place and moved in when it is whole.

    Raises:
        DataError: an archive is damaged, holds links or devices, or names that lead out of it; nothing of it is kept.
    """
    done = _read(raw / EXTRACTED)
    for archive in archives:
        stamp = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
        if done.get(archive.name) == stamp:
            continue
        folder = raw / f".{archive.name}.extracted"
        shutil.rmtree(folder, ignore_errors=True)  # a killed run's
        try:
            with full_disk_named(folder):
                count = _extract(archive, folder, wanted, tell)
                for file in [path for path in folder.rglob("*") if path.is_file()]:
                    target = raw / file.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise DataError(f"{archive} cannot be extracted ({error}): delete it and get it again.") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        done[archive.name] = stamp
        write_json(raw / EXTRACTED, done)
        tell(f"{archive.name}: {count:,} files extracted")


def _extract(archive: Path, folder: Path, wanted: Callable[[str], bool], tell: Tell) -> int:
    count, told = 0, time.monotonic()
    with tarfile.open(archive, "r|*") as opened:
        for member in opened:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                raise DataError(f"{archive}: entry {member.name!r} leads out of the archive. Nothing of it was kept.")
            if not (member.isfile() or member.isdir()):
                raise DataError(f"{archive}: entry {member.name!r} is a link or a device. Nothing of it was kept.")
            stream = opened.extractfile(member) if member.isfile() and wanted(str(path)) else None
            if stream is None:
                continue
            _check_space(archive.parent, member.size, f"{archive.name}: {path}")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("wb") as out:
                shutil.copyfileobj(stream, out, CHUNK)
            count += 1
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                tell(f"{archive.name}: {count:,} files")
    if not count:
        raise DataError(f"{archive} holds nothing that is expected of it: is it the right archive?")
    return count
