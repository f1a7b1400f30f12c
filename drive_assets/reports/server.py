"""The server of the report pages. Reads and draws on request; writes nothing but its cache of films."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import uvicorn
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from drive_assets.asset import declarations
from drive_assets.reports import drives
from drive_assets.reports.history import History
from drive_assets.reports.links import base_url
from drive_assets.reports.page import Link, Page, Section, html, sections_html
from drive_assets.resources.storage import Storage
from drive_assets.running.front_door import SETTINGS, guarded
from model.annotation.video import SUFFIX, write_video
from model.common.errors import DataError
from model.common.files import sha256
from model.recording.folder import Recording

SHOWN_SUFFIXES = {".html", ".png", ".jpg", ".jpeg", ".csv", ".json", ".mp4", ".webm"}
SHOWN_FOLDERS = ("recordings", "datasets", "models", "evaluation")
"""In the data root: not the files of Dagster, MLflow and cluster jobs, which may hold secrets."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
REQUEST_S = 30.0
"""Time for a connection to send a complete request."""


class Reports:
    """The report pages of a data root, for the assets of a graph."""

    def __init__(self, storage: Storage, instance: dg.DagsterInstance, graph: Any) -> None:
        self.storage, self.declarations = storage, declarations(graph.assets_defs)
        self.history = History(instance, graph.asset_check_keys)
        self.root = urlsplit(base_url()).path
        # matplotlib draws one figure at a time, and a film takes a whole processor. Requests wait without a thread, so
        # that files are still served.
        self._drawing, self._filming = CapacityLimiter(1), CapacityLimiter(1)

    def app(self) -> Starlette:
        """Serves GET requests for known host names only: scripts of other sites cannot read pages through a browser.

        The front door checks the names if there is one.
        """
        get = partial(Route, methods=["GET"])
        routes = [
            get("/", self.home),
            get("/files/{path:path}", self.file),
            get("/film/{recording}/{number:int}", self.film),
            get("/{asset}", self.asset),
            get("/{asset}/{partition}", self.asset),
        ]
        hosts = ["127.0.0.1", "localhost", urlsplit(base_url()).hostname or "localhost"]
        checked = Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        return Starlette(
            routes=[*([Mount(self.root, routes=routes)] if self.root else []), *routes],
            middleware=[] if SETTINGS in os.environ else [checked],
            exception_handlers={HTTPException: self._refused, DataError: self._refused, Exception: self._broken},
        )

    def home(self, request: Request) -> Response:
        """Links to the pages of all outputs, except those of recordings, which may be thousands."""
        return self._html(Page("Reports", _HOME, sections=[Section("", links=list(self._links()))]))

    async def asset(self, request: Request) -> Response:
        """The page of an asset or a partition, drawn now or stored with the output."""
        return await to_thread.run_sync(self._asset, request, limiter=self._drawing)

    def _asset(self, request: Request) -> Response:
        asset, partition = request.path_params["asset"], request.path_params.get("partition")
        declared = self.declarations.get(asset)
        if declared is None or (declared.partitions is None) != (partition is None):
            raise HTTPException(404, f"There is no report page {request.url.path}.")
        self._output(asset, partition)
        page = declared.page(self.storage, *([partition] if partition else []))
        checks, materialisations = self.history.sections(asset, partition)
        if isinstance(page, Path):
            return self._stored(page, [checks, materialisations])
        facts, tables = dict(page.facts), list[Section]()
        if page.from_metadata:
            facts |= self.history.facts(asset, partition)
            tables = self.history.mappings(asset, partition)
        expected, current = request.query_params.get("made", ""), self.history.version(asset, partition)
        notice = (
            f"The link is to data version {expected}; this page shows the current one, {current}."
            if expected and current and expected != current
            else ""
        )
        sections = [checks, *page.sections, *tables, materialisations]
        return self._html(replace(page, facts=facts, sections=sections), notice=notice)

    def file(self, request: Request) -> Response:
        """A picture, table or page in the data root: no folder, nothing hidden, nothing outside."""
        return FileResponse(self._shown(request.path_params["path"]), headers=HEADERS)

    async def film(self, request: Request) -> Response:
        """A part of an annotated drive as a film, drawn once."""
        return await to_thread.run_sync(self._film, request, limiter=self._filming)

    def _film(self, request: Request) -> Response:
        name, number = request.path_params["recording"], request.path_params["number"]
        recording = Recording(self._output("recording", name))
        parts = drives.film_parts(recording)
        if number >= len(parts):
            raise HTTPException(404, f"{name} has {len(parts)} parts of a film, counted from 0.")
        version = sha256(recording.annotations_path)[:8] + sha256(recording.labels_path)[:8]
        path = self.storage.cache / "films" / f"{name}-{number}-{version}{SUFFIX}"
        if not path.is_file():
            write_video(recording.folder, path, part=parts[number])
        for older in set(path.parent.glob(f"{name}-{number}-*")) - {path}:
            older.unlink()
        return FileResponse(path, headers=HEADERS)

    def _output(self, asset: str, partition: str | None) -> Path:
        """The output that a page is about. DataError if it does not exist."""
        path = self.declarations[asset].path(self.storage, partition)
        if not path.exists():
            raise DataError(
                f"{path} does not exist now: materialise {asset}{f' for {partition}' if partition else ''}. If it was "
                "not removed, this server may read another data root (DRIVE_ASSETS_DATA) than the one of the link."
            )
        return path

    def _shown(self, text: str) -> Path:
        """The path of a file in the data root that may be shown. Links are judged by what they lead to."""
        root, refused = self.storage.root.resolve(), HTTPException(404, f"{text!r} is not shown here.")
        if "\0" in text:
            raise refused
        path = (root / text).resolve()
        for place in (root / text, path):
            folder, *names = place.relative_to(root).parts or ("",) if place.is_relative_to(root) else ("",)
            is_hidden = any(name.startswith(".") for name in names)
            if is_hidden or folder not in SHOWN_FOLDERS or place.suffix.lower() not in SHOWN_SUFFIXES:
                raise refused
        if not path.is_file():
            raise HTTPException(404, f"{root / text} does not exist now: it was moved or removed.")
        return path

    def _stored(self, path: Path, sections: list[Section]) -> Response:
        """An HTML file that the asset wrote, with checks and history appended."""
        folder = path.parent.relative_to(self.storage.root)
        text = path.read_text(encoding="utf-8")
        text = text.replace("<head>", f'<head><base href="{self.root}/files/{folder}/">', 1)
        text = text.replace("</body>", f"{sections_html(sections, self.root)}</body>")
        return HTMLResponse(text, headers=HEADERS)

    def _refused(self, request: Request, error: Exception) -> Response:
        status, text = (error.status_code, error.detail) if isinstance(error, HTTPException) else (404, str(error))
        return self._html(Page("Not found" if status == 404 else "Not possible", text), status)

    def _broken(self, request: Request, error: Exception) -> Response:
        text = f"This page could not be drawn: {type(error).__name__}: {error}. See the log of the server."
        return self._html(Page("Not possible", text), 500)

    def _html(self, page: Page, status: int = 200, notice: str = "") -> Response:
        return HTMLResponse(html(page, self.root, notice), status, HEADERS)

    def _links(self) -> Iterator[Link]:
        for asset, declared in self.declarations.items():
            if isinstance(declared.partitions, dg.DynamicPartitionsDefinition):
                continue
            for key in declared.partitions.get_partition_keys() if declared.partitions else [""]:
                if declared.path(self.storage, key).exists():
                    name = f"{asset}/{key}" if key else asset
                    yield Link(name, name)


_HOME = (
    "Each asset and each partition has a page here. Pages of recordings, annotations and labels are linked in Dagster, "
    "from the partition's metadata (report)."
)


class _Protocol(H11Protocol):
    """Closes connections that send no complete request in time, which uvicorn keeps."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request(self)

    def _expect_request(self, seen: object) -> None:
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and seen is self.cycle:
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(REQUEST_S, self._expect_request, self.cycle)


def serve(host: str, port: int, storage: Storage, instance: dg.DagsterInstance, graph: Any) -> None:
    """Serve the report pages of the assets of a graph until the process ends."""
    app = Reports(storage, instance, graph).app()
    uvicorn.run(guarded(app), host=host, port=port, http=_Protocol, log_level="warning", server_header=False)
