"""Downloads of a public data set: resumed, retried, checked and published whole.

The base address may hold a user, a password or a token: errors and log lines name the file, never the address.
"""

import json
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from model.common.downloads import Retries, open_partial, receive, requested_pause
from model.common.errors import DataError, PassingError
from model.common.files import explained_errors, fsync, locked, temporary_folder, write_json
from model.common.progress import Log

TIMEOUT_S = (15.0, 60.0)
PROGRESS_S = 10.0
SPARE_BYTES = 200 * 1024 * 1024
EXTRACTED = ".extracted.json"
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What reading a damaged archive raises."""


class NotOnServer(DataError):
    """The server has no such file."""


class DamagedArchive(DataError):
    """An archive cannot be extracted, or does not hold what is expected."""


@dataclass(frozen=True)
class Remote:
    """Files below a base address."""

    base: str = field(repr=False)
    retries: Retries = field(default_factory=lambda: Retries("The server"), repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError("The base address of the downloads is not an http:// or https:// address.")

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
            with explained_errors(partial), open_partial(partial, resume=True) as file:
                self.retries(lambda: self._request(name, file, about, log), log)
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

    def _request(self, name: str, file: FileIO, about: Path, log: Log) -> None:
        """Append the rest of the file, or write it from the start. `about` holds its ETag or date."""
        known, headers = _read_json(about), {"Accept-Encoding": "identity"}
        if file.tell() and known:
            headers |= {"Range": f"bytes={file.tell()}-", "If-Range": known["validator"]}
        try:
            response = requests.get(self._url(name), headers=headers, stream=True, timeout=TIMEOUT_S)
        except requests.RequestException as error:  # its text holds the address
            reason = type(error).__name__
            response = None
        if response is None:
            raise PassingError(f"{name} cannot be downloaded ({reason}).")
        with response:
            status = response.status_code
            if status == 404:
                raise NotOnServer(name)
            if status in (408, 429) or status >= 500:
                failure = PassingError(f"{name} cannot be downloaded: the server responds with status {status}.")
                failure.pause_s = requested_pause(response)
                raise failure
            if status not in (200, 206, 416):
                raise DataError(
                    f"{name} cannot be downloaded: the server responds with status {status}. Check address and "
                    "credentials."
                )
            length = int(response.headers.get("Content-Length", 0))
            free = shutil.disk_usage(about.parent).free
            if free < length + SPARE_BYTES:
                raise DataError(
                    f"{name} needs {length / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free in {about.parent}: free "
                    "some, or choose another data root with DRIVE_ASSETS_DATA."
                )
            validator = response.headers.get("ETag", "")
            if not validator or validator.startswith("W/"):  # If-Range takes no weak ETag
                validator = response.headers.get("Last-Modified", "")
            write_json(about, {"validator": validator} if validator else {})
            logged = time.monotonic()

            def progress(size: int) -> None:
                nonlocal logged
                if time.monotonic() - logged > PROGRESS_S:
                    logged = time.monotonic()
                    log(f"{name}: {size / 1e6:,.0f} MB")

            receive(response, file, f"Downloading {name}", progress)

    def _url(self, name: str) -> str:
        parts = urlsplit(self.base)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}", fragment=""))


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
    except (*DAMAGE, OSError) as error:
        return str(error)
    return f"wrong CRC of {bad}" if bad else ""


def extract_archives(
    folder: Path, archives: Sequence[Path], wanted: Callable[[str], bool], log: Log = lambda line: None
) -> None:
    """Extract the regular files whose names are `wanted` from zip or tar archives into `folder`, each archive once.

    Nothing else is extracted, be it a link, a device or a name that leads out of the archive. The files are moved into
    `folder` once the archive is read to its end.

    Raises:
        DamagedArchive: an archive is damaged or holds no wanted file.
    """
    done = _read_json(folder / EXTRACTED)
    for archive in archives:
        stamp = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
        if done.get(archive.name) == stamp:
            continue
        log(f"Extracting {archive.name}")
        try:
            with explained_errors(folder / archive.name), temporary_folder(folder / archive.name) as new:
                if archive.suffix == ".zip":
                    with zipfile.ZipFile(archive) as opened:
                        opened.extractall(new, [name for name in opened.namelist() if wanted(name)])
                else:
                    with tarfile.open(archive, "r|*") as tar:
                        members = (member for member in tar if member.isfile() and wanted(member.name))
                        tar.extractall(new, members, filter="data")
                files = [path for path in new.rglob("*") if path.is_file()]
                for file in files:
                    target = folder / file.relative_to(new)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
        except (*DAMAGE, tarfile.TarError, OSError) as error:
            raise DamagedArchive(f"{archive} cannot be extracted ({error}): download it again.") from error
        if not files:
            raise DamagedArchive(f"{archive} holds none of the expected files: is it the right archive?")
        done[archive.name] = stamp
        write_json(folder / EXTRACTED, done)
        log(f"{archive.name}: {len(files):,} files extracted")
