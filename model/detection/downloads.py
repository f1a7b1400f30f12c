"""Downloads of a public data set: resumed, retried, checked and published whole.

The base address may hold a user, a password or a token: errors and log lines name the file, never the address.
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
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from model.common.errors import DataError
from model.common.files import explained_errors, fsync, locked, temporary_folder, write_json
from model.common.progress import Log

RETRIES = 6
TIMEOUT_S = (15.0, 60.0)
LONGEST_WAIT_S = 60.0
PROGRESS_S = 10.0
SPARE_BYTES = 200 * 1024 * 1024
CHUNK = 1024 * 1024
EXTRACTED = ".extracted.json"


class _Retry(Exception):
    """A temporary failure; `wait_s` is what the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


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
            raise DataError("The base address of the downloads is not an http:// or https:// address.")

    def __repr__(self) -> str:
        return f"Remote({urlsplit(self.base).hostname})"

    def fetch(self, names: Sequence[str], target: Path, log: Log = lambda line: None) -> None:
        """Download the first of `names` that the server has, unless `target` exists.

        An interrupted download resumes if the file on the server is still the same. A zip is checked by its CRCs and,
        if damaged, downloaded once more from the start.

        Raises:
            NotOnServer: the server has none of them.
            DataError: access denied, no success after retries, disk full, or a zip damaged twice.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock")):
            if target.is_file():
                return
            for name in names:
                try:
                    self._fetch(name, target, log)
                    return
                except NotOnServer:
                    continue
        raise NotOnServer(f"{names[0]} is not on the server (404): check the base address and the names of the files.")

    def _fetch(self, name: str, target: Path, log: Log) -> None:
        partial, about = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.about.json")
        for attempt in (1, 2):
            self._transfer(name, partial, about, log)
            damage = _zip_damage(partial) if target.suffix == ".zip" else ""
            if not damage:
                break
            partial.unlink()
            if attempt == 2:
                raise DataError(f"{name} is damaged on the server ({damage}): downloaded twice and deleted.")
            log(f"{name} is damaged ({damage}): downloading it again")
        fsync(partial)
        partial.replace(target)
        about.unlink(missing_ok=True)
        fsync(target.parent)

    def _transfer(self, name: str, partial: Path, about: Path, log: Log) -> None:
        """Request the file until it is complete. Transfers that make progress do not count as failures."""
        failures = 0
        while True:
            before = _size(partial)
            try:
                with explained_errors(partial):
                    self._request(name, partial, about, log)
                return
            except _Retry as failure:
                reason, wait_s = str(failure), failure.wait_s
            except requests.RequestException as error:  # its text holds the address
                reason, wait_s = type(error).__name__, 0.0
            failures = 1 if _size(partial) > before else failures + 1
            if failures > RETRIES:
                raise DataError(f"{name} could not be downloaded after {RETRIES} retries ({reason}): try again later.")
            pause_s = min(max(wait_s, 2.0 ** (failures - 1) * random.uniform(0.5, 1.0)), LONGEST_WAIT_S)
            log(f"{name}: {reason}; next try in {pause_s:.0f} s")
            self.sleep(pause_s)

    def _request(self, name: str, partial: Path, about: Path, log: Log) -> None:
        """Append the rest of the file to `partial`, or write it from the start. `about` holds its ETag or date."""
        start, known = _size(partial), _read_json(about)
        headers = {"Accept-Encoding": "identity"}
        if start and known:
            headers |= {"Range": f"bytes={start}-", "If-Range": known["validator"]}
        with requests.get(self._url(name), headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            status = response.status_code
            if status == 404:
                raise NotOnServer(name)
            if status in (408, 429) or status >= 500:
                wait_s = response.headers.get("Retry-After", "")
                raise _Retry(f"the server responds with status {status}", float(wait_s) if wait_s.isdigit() else 0.0)
            resumed = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if status == 416 or (status == 206 and not resumed):
                partial.unlink(missing_ok=True)
                raise _Retry("the server does not have the requested range")
            if status not in (200, 206):
                raise DataError(
                    f"{name} cannot be downloaded: the server responds with status {status}. Check address and "
                    "credentials."
                )
            start = start if resumed else 0
            length = int(response.headers.get("Content-Length", 0))
            free = shutil.disk_usage(partial.parent).free
            if free < length + SPARE_BYTES:
                raise DataError(
                    f"{name} needs {length / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free in {partial.parent}: free "
                    "some, or choose another data root with DRIVE_ASSETS_DATA."
                )
            validator = response.headers.get("ETag", "")
            if not validator or validator.startswith("W/"):  # If-Range takes no weak ETag
                validator = response.headers.get("Last-Modified", "")
            write_json(about, {"validator": validator} if validator else {})
            _write(response, partial, start, length, name, log)
        if length and _size(partial) != start + length:
            raise _Retry(f"cut after {_size(partial):,} of {start + length:,} bytes")

    def _url(self, name: str) -> str:
        parts = urlsplit(self.base)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}", fragment=""))


def _write(response: requests.Response, partial: Path, start: int, length: int, name: str, log: Log) -> None:
    logged, done = time.monotonic(), start
    with partial.open("ab" if start else "wb") as out:
        for piece in response.iter_content(CHUNK):
            out.write(piece)
            done += len(piece)
            if time.monotonic() - logged > PROGRESS_S:
                logged = time.monotonic()
                log(f"{name}: {done / 1e6:,.0f}" + (f" of {(start + length) / 1e6:,.0f} MB" if length else " MB"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _read_json(path: Path) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _zip_damage(path: Path) -> str:
    """What is wrong with a zip; empty for an intact one."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        return str(error)
    return f"wrong CRC of {bad}" if bad else ""


def extract_archives(
    raw: Path, archives: Sequence[Path], wanted: Callable[[str], bool], log: Log = lambda line: None
) -> None:
    """Extract the regular files whose names are `wanted` from tar archives into `raw`, each archive once.

    Nothing else is extracted, be it a link, a device or a name that leads out of the archive. The files are moved into
    `raw` once the archive is read to its end.

    Raises:
        DataError: an archive is damaged or holds no wanted file.
    """
    done = _read_json(raw / EXTRACTED)
    for archive in archives:
        stamp = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
        if done.get(archive.name) == stamp:
            continue
        log(f"Extracting {archive.name}")
        try:
            with explained_errors(raw / archive.name), temporary_folder(raw / archive.name) as folder:
                with tarfile.open(archive, "r|*") as opened:
                    members = (member for member in opened if member.isfile() and wanted(member.name))
                    opened.extractall(folder, members, filter="data")
                files = [path for path in folder.rglob("*") if path.is_file()]
                for file in files:
                    target = raw / file.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise DataError(f"{archive} cannot be extracted ({error}): delete it and download it again.") from error
        if not files:
            raise DataError(f"{archive} holds none of the expected files: is it the right archive?")
        done[archive.name] = stamp
        write_json(raw / EXTRACTED, done)
        log(f"{archive.name}: {len(files):,} files extracted")
