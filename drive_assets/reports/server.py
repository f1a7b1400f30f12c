"""The server of the report pages: reads, draws when somebody looks, and changes nothing but its own cache of films."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route

from drive_assets.partitions import ARCHITECTURE_PARTITIONS, SPLITS
from drive_assets.reports import data_sets, drives, models
from drive_assets.reports.history import History
from drive_assets.reports.links import base_url
from drive_assets.reports.page import Link, Page, Section, html, sections_html
from drive_assets.resources.storage import Storage
from model.annotation.video import SUFFIX, write_video
from model.common.errors import DataError
from model.common.files import sha256

SHOWN_SUFFIXES = {".html", ".png", ".jpg", ".jpeg", ".csv", ".json", ".mp4", ".webm"}
SHOWN_FOLDERS = ("recordings", "datasets", "models", "evaluation")
"""Of the data root: not Dagster's and MLflow's files, nor a cluster's jobs, which may hold addresses with secrets."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_drawing, _filming = threading.Lock(), threading.Lock()
"""matplotlib draws one figure at a time; one film takes a whole processor."""


class Reports:
    """The pages of a data root."""

    def __init__(self, storage: Storage, history: History) -> None:
        self.storage, self.history = storage, history
        self.root = urlsplit(base_url()).path
        by_recording: dict[str, Callable[[Storage, str], Page]] = {
            "recording": drives.recording_page,
            "annotations": drives.annotations_page,
            "future_labels": drives.labels_page,
            "checkpoint": models.checkpoint_page,
            "h5_split": data_sets.split_page,
        }
        self.partitioned = {name: partial(page, storage) for name, page in by_recording.items()}
        self.single: dict[str, Callable[[], Page]] = {
            "split_manifest": partial(data_sets.manifest_page, storage),
            "boxy_dataset": partial(data_sets.detector_dataset_page, storage, "boxy_dataset", history),
            "nuimages_dataset": partial(data_sets.detector_dataset_page, storage, "nuimages_dataset", history),
            "boxy_detector": partial(data_sets.detector_page, storage, "boxy_detector", history),
            "nuimages_detector": partial(data_sets.detector_page, storage, "nuimages_detector", history),
        }

    def app(self) -> Starlette:
        """Only GET, only to this host by a name that is known: no other site's script reads it through a browser."""
        get = partial(Route, methods=["GET"])
        routes = [
            get("/", self.home),
            get("/files/{path:path}", self.file),
            get("/film/{recording}/{number:int}", self.film),
            get("/{asset}", self.asset),
            get("/{asset}/{partition}", self.asset),
        ]
        hosts = ["127.0.0.1", "localhost", urlsplit(base_url()).hostname or "localhost"]
        return Starlette(
            routes=[*([Mount(self.root, routes=routes)] if self.root else []), *routes],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
            exception_handlers={HTTPException: self._refused, DataError: self._refused, Exception: self._broken},
        )

    def home(self, request: Request) -> Response:
        """What there are pages of. Recordings may be thousands: Dagster lists them, with links."""
        return self._html(Page("Reports", _HOME, sections=[Section("", links=self._links())]))

    def asset(self, request: Request) -> Response:
        """The page of an asset or a partition, drawn now."""
        asset, partition = request.path_params["asset"], request.path_params.get("partition")
        made, now = request.query_params.get("made", ""), self.history.version(asset, partition)
        notice = (
            f"The link was made for data version {made}; this page shows what is there now, {now}."
            if made and now and made != now
            else ""
        )
        if asset == "evaluation" and partition:
            return self._stored(models.evaluation_report(self.storage, partition), asset, partition)
        if asset == "model_comparison" and not partition:
            return self._stored(models.comparison_report(self.storage), asset, None)
        draw = self.single.get(asset) if not partition else None
        if partition and asset in self.partitioned:
            draw = partial(self.partitioned[asset], partition)
        if draw is None:
            raise HTTPException(404, f"There is no report page {request.url.path}.")
        with _drawing:
            page = draw()
        found = self.history.sections(asset, partition)
        return self._html(
            Page(page.title, page.text, page.facts, [*found[:1], *page.sections, *found[1:]]), notice=notice
        )

    def file(self, request: Request) -> Response:
        """A picture, table or page of the data root; nothing hidden, nothing outside, no folder."""
        return FileResponse(self._shown(request.path_params["path"]), headers=HEADERS)

    def film(self, request: Request) -> Response:
        """A part of an annotated drive as a film, drawn once."""
        name, number = request.path_params["recording"], request.path_params["number"]
        recording = drives.existing(self.storage, name)
        parts = drives.film_parts(recording)
        if number >= len(parts):
            raise HTTPException(404, f"{name} has {len(parts)} parts of a film, counted from 0.")
        version = sha256(recording.annotations_path)[:8] + sha256(recording.labels_path)[:8]
        path = self.storage.cache / "films" / f"{name}-{number}-{version}{SUFFIX}"
        with _filming:
            if not path.is_file():
                write_video(recording.folder, path, part=parts[number])
            for older in set(path.parent.glob(f"{name}-{number}-*")) - {path}:
                older.unlink()
        return FileResponse(path, headers=HEADERS)

    def _shown(self, text: str) -> Path:
        """The file of a path below the data root, if it may be shown."""
        root = self.storage.root.resolve()
        parts = Path(text).parts
        hidden = any(part.startswith(".") for part in parts)
        allowed = parts[:1] and parts[0] in SHOWN_FOLDERS and Path(text).suffix.lower() in SHOWN_SUFFIXES
        if hidden or not allowed:
            raise HTTPException(404, f"{text} is not shown here.")
        path = (root / text).resolve()
        if not path.is_relative_to(root):
            raise HTTPException(404, f"{text} is a link to outside of the data root: not shown here.")
        if not path.is_file():
            raise HTTPException(404, f"{root / text} is not there now: it was moved, removed, or made anew elsewhere.")
        return path

    def _stored(self, path: Path, asset: str, partition: str | None) -> Response:
        """A page that was written when the asset was made, with checks and history at its end."""
        folder = path.parent.relative_to(self.storage.root)
        more = sections_html(self.history.sections(asset, partition), self.root)
        text = path.read_text(encoding="utf-8")
        text = text.replace("<head>", f'<head><base href="{self.root}/files/{folder}/">', 1)
        return HTMLResponse(text.replace("</body>", f"{more}</body>"), headers=HEADERS)

    def _refused(self, request: Request, error: Exception) -> Response:
        status, text = (error.status_code, error.detail) if isinstance(error, HTTPException) else (404, str(error))
        return self._html(Page("Not there" if status == 404 else "Not possible", text), status)

    def _broken(self, request: Request, error: Exception) -> Response:
        text = f"This page could not be drawn: {type(error).__name__}: {error}. The log of the server says where."
        return self._html(Page("Not possible", text), 500)

    def _html(self, page: Page, status: int = 200, notice: str = "") -> Response:
        return HTMLResponse(html(page, self.root, notice), status, HEADERS)

    def _links(self) -> list[Link]:
        storage = self.storage
        places = {
            **_single_files(storage),
            **{f"h5_split/{name}": storage.split(name) for name in SPLITS.get_partition_keys()},
        }
        for name in ARCHITECTURE_PARTITIONS.get_partition_keys():
            places[f"checkpoint/{name}"] = storage.checkpoint(name) / "training_history.json"
            places[f"evaluation/{name}"] = storage.evaluation(name) / "report.html"
        return [Link(name, name) for name, path in places.items() if path.exists()]


_HOME = (
    "Each asset and each partition has a page here. Those of recordings, of their annotations and labels are linked in "
    "Dagster, from the partition's metadata (report)."
)


def _single_files(storage: Storage) -> dict[str, Path]:
    return {
        "boxy_dataset": storage.boxy_dataset,
        "boxy_detector": storage.boxy_detector,
        "nuimages_dataset": storage.nuimages_dataset,
        "nuimages_detector": storage.nuimages_detector,
        "split_manifest": storage.manifest,
        "model_comparison": storage.evaluations / "comparison.html",
    }


def serve(
    host: str, port: int, storage: Storage, instance: dg.DagsterInstance, checks: Mapping[str, Sequence[str]]
) -> None:
    """Serve the pages until the process is ended.

    Args:
        checks: names of checks by asset, which the pages show.
    """
    app = Reports(storage, History(instance, checks)).app()
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
