"""The server of the report pages. Reads and draws on request; writes its cache of films, and tags of the review."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import uvicorn
from anyio import CapacityLimiter, to_thread
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from uvicorn.protocols.http.h11_impl import H11Protocol

from drive_assets.asset import GROUPS, declarations
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, is_recording_name
from drive_assets.reports import drives
from drive_assets.reports.links import base_url
from drive_assets.reports.page import (
    SCRIPT_SOURCES,
    Cell,
    Link,
    Page,
    Section,
    Table,
    html,
    navigation_html,
    sections_html,
)
from drive_assets.reports.records import check_results, failed_checks, latest, with_metadata
from drive_assets.reports.review import NewTag, moment_id, moments, tags_by_moment
from drive_assets.reports.start import Choice, start_page
from drive_assets.resources.storage import Storage
from drive_assets.running.front_door import SETTINGS, guarded
from model.annotation.video import SUFFIX, write_video
from model.common.config import problems
from model.common.errors import DataError
from model.common.files import sha256
from model.dataset.review import Tag, store_tag
from model.evaluation.forecast import PREDICTIONS, predictions_of
from model.recording.folder import Recording

SHOWN_SUFFIXES = {".html", ".png", ".jpg", ".jpeg", ".csv", ".json", ".mp4", ".webm"}
SHOWN_FOLDERS = ("recordings", "datasets", "models", "evaluation", "predictions", "bundles", "review")
"""In the data root: not the files of Dagster, MLflow and cluster jobs, which may hold secrets."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; "
    f"script-src {SCRIPT_SOURCES}; connect-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
IN_MLFLOW = {"mlflow_run": "its training in MLflow", "mlflow": "all trainings in MLflow"}
"""Metadata of checkpoints that links to MLflow, and the texts of the links."""
VERSION_TAG = "dagster/data_version"
MOST_SENT = 10_000
"""Bytes of a tag"""
REQUEST_S = 30.0
"""Time for a connection to send a complete request."""


class Reports:
    """The report pages of a data root, for the assets of a graph."""

    def __init__(self, storage: Storage, instance: dg.DagsterInstance, graph: Any) -> None:
        self.storage, self.instance, self.graph = storage, instance, graph
        self.declarations, self.checks = declarations(graph.assets_defs), sorted(graph.asset_check_keys)
        self.root = urlsplit(base_url()).path

    def app(self) -> Starlette:
        """Serves known host names only, and GET alone but for tags: scripts of other sites cannot use it by a browser.

        The front door checks the names if there is one.
        """
        get = partial(Route, methods=["GET"])
        page = _one_at_a_time(self.asset)
        routes = [
            get("/", _one_at_a_time(self.home)),
            get("/thumbnail/{recording}", self.thumbnail),
            get("/thumbnail/{recording}/{frame}", self.thumbnail),
            Mount("/files", ShownFiles(directory=self.storage.root)),
            get("/film/{recording}/{number:int}", _one_at_a_time(self.film)),
            Route("/review_queue/tags", self.tags, methods=["GET", "POST"]),
            get("/{asset}", page),
            get("/{asset}/{partition}", page),
        ]
        hosts = ["127.0.0.1", "localhost", socket.gethostname(), urlsplit(base_url()).hostname or "localhost"]
        checked = Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        return Starlette(
            routes=[*([Mount(self.root, routes=routes)] if self.root else []), *routes],
            middleware=[] if SETTINGS in os.environ else [checked],
            exception_handlers={HTTPException: self._refused, DataError: self._refused, Exception: self._broken},
        )

    def home(self, request: Request) -> Response:
        """The start page."""
        query = request.query_params
        choice = Choice(**{name: query[name] for name in Choice._fields if name in query})
        recorded = {name for name, declared in self.declarations.items() if declared.partitions == RECORDINGS}
        checks = [key for key in self.checks if key.asset_key.to_user_string() in recorded]
        others = Table(("output", "contents", "warnings"), list(self._others()))
        return self._html(start_page(self.storage, self.instance, checks, others, choice), choice=choice)

    def _others(self) -> Iterator[list[Cell]]:
        """Outputs that are neither of recordings nor of networks, each with what its last run and its checks found."""
        for asset, declared in self.declarations.items():
            if declared.partitions in (RECORDINGS, ARCHITECTURE_PARTITIONS):
                continue
            warnings = failed_checks(self.instance, [key for key in self.checks if key.asset_key == dg.AssetKey(asset)])
            for key in declared.partitions.get_partition_keys() if declared.partitions else [""]:
                if self._exists(asset, key):
                    event = latest(self.instance, asset, key)
                    summary = event.metadata["summary"].value if event and "summary" in event.metadata else ""
                    link = Link(f"{asset} {key}".replace("_", " "), f"{asset}/{key}".rstrip("/"))
                    yield [link, summary, "; ".join(warnings.get(key, []))]

    def thumbnail(self, request: Request) -> Response:
        """A small picture of a frame, by default from the middle of the recording."""
        recording = Recording(self._output("recording", request.path_params["recording"]))
        content = drives.thumbnail(recording, request.path_params.get("frame", ""))
        return Response(content, headers=HEADERS, media_type="image/jpeg")

    def asset(self, request: Request) -> Response:
        """The page of an asset or a partition, drawn now or stored with the output."""
        asset, partition = request.path_params["asset"], request.path_params.get("partition")
        declared = self.declarations.get(asset)
        if declared is None or (declared.partitions is None) != (partition is None):
            raise HTTPException(404, f"There is no report page {request.url.path}.")
        self._output(asset, partition)
        page = declared.page(self.storage, *([partition] if partition else []))
        keys = [key for key in self.checks if key.asset_key == dg.AssetKey(asset)]
        checks = check_results(self.instance, keys, partition)
        links = list(self._around(asset, partition))
        if isinstance(page, Path):
            return self._stored(page, links, checks)
        event = latest(self.instance, asset, partition)
        if page.from_metadata and event:
            page = with_metadata(page, event)
        expected = request.query_params.get("made", "")
        current = (event.tags or {}).get(VERSION_TAG, "") if event else ""
        notice = (
            f"The link is to data version {expected}; this page shows the current one, {current}."
            if expected and current and expected != current
            else ""
        )
        return self._html(replace(page, sections=[checks, *page.sections]), links=links, notice=notice)

    def film(self, request: Request) -> Response:
        """A part of an annotated drive as a film, drawn once."""
        name, number = request.path_params["recording"], request.path_params["number"]
        recording = Recording(self._output("recording", name))
        parts = drives.film_parts(recording)
        if number >= len(parts):
            raise HTTPException(404, f"{name} has {len(parts)} parts of a film, counted from 0.")
        shown = [recording.annotations_path, recording.labels_path, recording.folder / PREDICTIONS]
        version = "".join(sha256(file)[:8] for file in shown if file.is_file())
        path = self.storage.cache / "films" / f"{name}-{number}-{version}{SUFFIX}"
        if not path.is_file():
            write_video(recording.folder, path, part=parts[number], predictions=predictions_of(recording.folder))
        for older in set(path.parent.glob(f"{name}-{number}-*")) - {path}:
            older.unlink()
        return FileResponse(path, headers=HEADERS)

    async def tags(self, request: Request) -> Response:
        """The tags of all moments of the review queue, after one more is stored if one is sent."""
        try:
            if request.method == "POST":
                tag = await _sent_tag(request)
                if moment_id(tag.model_dump()) not in {clip["id"] for clip in moments(self.storage)["clips"]}:
                    raise HTTPException(404, "This moment is not in the review queue now: load the page again.")
                at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
                await to_thread.run_sync(store_tag, self.storage.tags, Tag(**tag.model_dump(), at=at))
            return JSONResponse(tags_by_moment(self.storage), headers=HEADERS)
        except HTTPException as error:
            return PlainTextResponse(error.detail, error.status_code, HEADERS)
        except DataError as error:
            return PlainTextResponse(str(error), 409, HEADERS)

    def _exists(self, asset: str, partition: str | None) -> bool:
        return self.declarations[asset].path(self.storage, partition).exists()

    def _output(self, asset: str, partition: str | None) -> Path:
        """The output that a page is about. DataError if it does not exist."""
        path = self.declarations[asset].path(self.storage, partition)
        if not path.exists():
            raise DataError(
                f"{path} does not exist now: materialise {asset}{f' for {partition}' if partition else ''}. If it was "
                "not removed, this server may read another data root (DRIVE_ASSETS_DATA) than the one of the link."
            )
        return path

    def _around(self, asset: str, partition: str | None) -> Iterator[Link]:
        """The navigation of a page: the recordings before and after, what else there is of the partition, and assets
        without partitions."""
        if self.declarations[asset].partitions == RECORDINGS and partition:
            names = [name for name in self.storage.recording_names() if is_recording_name(name)]
            names = [name for name in names if self._exists(asset, name)]
            place = names.index(partition)
            yield from (Link("previous recording", f"{asset}/{name}") for name in names[max(place - 1, 0) : place])
            yield from (Link("next recording", f"{asset}/{name}") for name in names[place + 1 : place + 2])
        partitions = self.declarations[asset].partitions
        for other, declared in self.declarations.items():
            key = partition if declared.partitions == partitions else None
            is_near = key or (declared.partitions is None and self._is_detection(other) == self._is_detection(asset))
            if not is_near or not self._exists(other, key):
                continue
            if other != asset:
                yield Link(other.replace("_", " "), f"{other}/{key}" if key else other)
            event = latest(self.instance, other, key) if key else None
            for name, text in IN_MLFLOW.items():
                if event and name in event.metadata:
                    yield Link(text, str(event.metadata[name].value))

    def _is_detection(self, asset: str) -> bool:
        return bool(self.graph.get(dg.AssetKey(asset)).group_name == GROUPS[1])

    def _stored(self, path: Path, links: Sequence[Link], checks: Section) -> Response:
        """An HTML file that the asset wrote, with navigation and checks added."""
        folder = path.parent.relative_to(self.storage.root)
        text = path.read_text(encoding="utf-8")
        text = text.replace("<head>", f'<head><base href="{self.root}/files/{folder}/">', 1)
        text = text.replace("<body>", f"<body>{navigation_html(links, self.root)}", 1)
        text = text.replace("</body>", f"{sections_html([checks], self.root)}</body>")
        return HTMLResponse(text, headers=HEADERS)

    def _refused(self, request: Request, error: Exception) -> Response:
        status, text = (error.status_code, error.detail) if isinstance(error, HTTPException) else (404, str(error))
        return self._html(Page("Not found" if status == 404 else "Not possible", text), status)

    def _broken(self, request: Request, error: Exception) -> Response:
        text = f"This page could not be drawn: {type(error).__name__}: {error}. See the log of the server."
        return self._html(Page("Not possible", text), 500)

    def _html(self, page: Page, status: int = 200, **shown: Any) -> Response:
        return HTMLResponse(html(page, self.root, **shown), status, HEADERS)


async def _sent_tag(request: Request) -> NewTag:
    """The tag in a request of the page itself. A foreign page can send no JSON without asking, which is refused."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "Pages of other sites may not use this server.")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Send a tag as application/json.")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_SENT:
            raise HTTPException(413, f"A tag has at most {MOST_SENT} bytes.")
    try:
        return NewTag.model_validate_json(content)
    except ValidationError as error:
        raise HTTPException(422, f"This is no tag: {problems(error, NewTag)}") from None


class ShownFiles(StaticFiles):
    """Pictures, tables and pages in the data root: nothing hidden, and no link that leads to anything else."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        found, status = super().lookup_path(path)
        places = (Path(path), Path(os.path.relpath(found, os.path.realpath(str(self.directory)))))
        return (found, status) if status and all(map(_is_shown, places)) else ("", None)

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


def _is_shown(place: Path) -> bool:
    """Whether a file may be shown, by its path in the data root."""
    is_hidden = any(name.startswith(".") for name in place.parts)
    return not is_hidden and "".join(place.parts[:1]) in SHOWN_FOLDERS and place.suffix.lower() in SHOWN_SUFFIXES


def _one_at_a_time(draw: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Requests to `draw` wait without a thread, so that files are still served.

    matplotlib draws one figure at a time, and a film takes a whole processor.
    """
    limiter = CapacityLimiter(1)

    async def answer(request: Request) -> Response:
        return await to_thread.run_sync(draw, request, limiter=limiter)

    return answer


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
