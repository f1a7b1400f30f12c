"""The report pages as a browser receives them: content, refused paths, and missing or outdated outputs."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from drive_assets.definitions import defs
from drive_assets.reports import server
from drive_assets.reports.links import base_url, report_link
from drive_assets.reports.page import Page
from drive_assets.reports.server import Reports
from drive_assets.resources.storage import Storage
from drive_assets.running.front_door import SETTINGS, guarded
from drive_assets_tests.drives import write_drive
from model.common.errors import DataError
from model.dataset.assignment import SplitConfig
from model.dataset.split_file import write_split
from model.dataset.splits import build_manifest
from model.dataset.windows import WindowConfig
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording
from model.recording.labels import future_labels, write_future_labels

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 4)]
NAME = NAMES[0]
GRAPH = defs.resolve_asset_graph()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of three annotated and labelled recordings, with splits."""
    root = tmp_path_factory.mktemp("reports") / "data"
    for seed, name in enumerate(NAMES):
        recording = Recording(write_drive(root / "recordings" / name, seed=seed, rows=48))
        times = list(recording.frames())
        box = np.array([[100, 100, 500, 300, 0.9, 0]], np.float32)
        found = Annotations.from_frames(times, [f"{time}.jpg" for time in times], [box] * len(times))
        write_annotations(recording.annotations_path, found)
        write_future_labels(recording.labels_path, future_labels(recording.telemetry()[0]))
    storage = Storage(data_root=str(root), inbox_root=str(root / "inbox"))
    manifest = build_manifest(storage.recordings, NAMES, WindowConfig(stride=1), SplitConfig())
    storage.splits.mkdir(parents=True)
    storage.manifest.write_text(json.dumps(manifest))
    for split, part in manifest["splits"].items():
        members = [storage.recording(name) for name in part["recordings"]]
        write_split(storage.split(split), members, WindowConfig(stride=1), manifest["fingerprint"])
    return root


@contextmanager
def served(root: Path, url: str = "http://127.0.0.1") -> Iterator[tuple[Reports, TestClient, dg.DagsterInstance]]:
    """The server of a data root, with an empty Dagster instance."""
    with dg.instance_for_test() as instance:
        reports = Reports(Storage(data_root=str(root), inbox_root=str(root / "inbox")), instance, GRAPH)
        yield reports, TestClient(guarded(reports.app()), url, raise_server_exceptions=False), instance


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with served(root) as (_, client, instance):
        telemetry = dg.MetadataValue.table([dg.TableRecord({"rows": "duration_s", "count": 3600})])
        metadata = {"mlflow_run": dg.MetadataValue.url("http://tracking/run"), "telemetry": telemetry}
        versions = {"dagster/data_version": "abc"}
        for made in (
            dg.AssetMaterialization("recording", partition=NAME, metadata=metadata, tags=versions),
            dg.AssetMaterialization("annotations", partition=NAME, metadata={"vehicles_per_frame": 3.1}),
        ):
            instance.report_runless_asset_event(made)
        check = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("recording"), check_name="few_faults", passed=False, partition=NAME,
            severity=dg.AssetCheckSeverity.WARN, description="lost 30 %: look at the recorder", metadata={},
        )  # fmt: skip
        instance.report_runless_asset_event(check)
        yield client


def test_a_recording_shows_frames_telemetry_labels_and_checks(client: TestClient) -> None:
    page = client.get(f"/recording/{NAME}").text
    assert page.count("<img") == 10
    assert "lost 30 %: look at the recorder" in page and ">warns<" in page
    assert "<script" not in page and 'src="http' not in page


def test_pages_link_to_what_is_around_them(client: TestClient, root: Path) -> None:
    (root / "recordings" / "notes").mkdir(exist_ok=True)
    page = client.get(f"/annotations/{NAMES[1]}").text
    links = [f"annotations/{NAMES[0]}", f"annotations/{NAMES[2]}", f"recording/{NAMES[1]}", "split_manifest", ""]
    assert all(f'href="/{link}"' in page for link in links)
    page = client.get(f"/recording/{NAME}").text
    assert 'href="http://tracking/run"' in page and "previous recording" not in page


def test_the_start_page_sorts_and_filters_recordings(client: TestClient) -> None:
    def shown(query: str = "") -> list[str]:
        return re.findall(r'href="/recording/[^"]+">([-_0-9]+)</a>', client.get(f"/{query}").text)

    page = client.get("/").text
    texts = ("lost 30 %: look at the recorder", 'href="/h5_split/test"', ">60.0</td>", ">3.1</td>")
    assert all(text in page for text in texts)
    assert shown() == NAMES and shown("?sort=recording&down=1") == NAMES[::-1]
    assert shown("?sort=minutes") == [*NAMES[1:], NAME]
    assert shown("?warnings=1") == shown(f"?search={NAME}&page=nonsense") == [NAME]
    assert shown("?page=00") == shown(f"?page={'9' * 5000}") == NAMES and shown("?page=2") == []
    assert sorted(name for split in ("train", "val", "test") for name in shown(f"?split={split}")) == NAMES
    assert client.get(f"/thumbnail/{NAME}").content.startswith(b"\xff\xd8")


def test_annotations_labels_and_splits_have_pages(client: TestClient) -> None:
    page = client.get(f"/annotations/{NAME}").text
    assert page.count("<img") == 10
    assert f'src="/film/{NAME}/0"' in page
    assert "brake_1s" in client.get(f"/future_labels/{NAME}").text
    page = client.get("/split_manifest").text
    assert all(f'href="/recording/{name}"' in page for name in NAMES)
    assert "coast_2s" in client.get("/h5_split/test").text
    assert 'href="/split_manifest"' in client.get("/").text


def test_a_film_is_drawn_on_request_and_can_be_seeked(client: TestClient, root: Path) -> None:
    (got,) = [client.get(f"/film/{NAME}/0", headers={"Range": "bytes=0-99"})]
    assert (got.status_code, len(got.content)) == (206, 100)
    assert got.headers["content-type"] == "video/mp4"
    assert len(list((root / "cache" / "films").iterdir())) == 1
    assert client.get(f"/film/{NAME}/1").status_code == 404


def test_pages_of_changed_or_missing_outputs_say_so(client: TestClient) -> None:
    assert "The link is to data version old" in client.get(f"/recording/{NAME}?made=old").text
    assert "The link is to" not in client.get(f"/recording/{NAME}?made=abc").text
    gone = client.get("/recording/2024-05-09_10-00-00")
    assert gone.status_code == 404
    assert "recordings/2024-05-09_10-00-00 does not exist now" in gone.text and "DRIVE_ASSETS_DATA" in gone.text
    for place in (
        "boxy_detector",
        "checkpoint/simple_concat_lstm",
        "evaluation/simple_concat_lstm",
        "model_comparison",
    ):
        gone = client.get(f"/{place}")
        assert gone.status_code == 404 and f"materialise {place.split('/')[0]}" in gone.text


@pytest.mark.parametrize(
    "path",
    [
        "/files/",
        "/files/recordings",
        f"/files/recordings/{NAME}",
        f"/files/recordings/{NAME}/.hidden.csv",
        f"/files/recordings/{NAME}/linked.csv",
        f"/files/recordings/{NAME}/database.csv",
        f"/files/recordings/{NAME}/telemetry.csv%00",
        f"/files/recordings/{NAME}/%00.csv",
        "/recording/%00",
        f"/files/recordings/{NAME}/notes.txt",
        "/files/dagster/secret.json",
        "/files/recordings/../dagster/secret.json",
        "/files/recordings/..%2Fdagster%2Fsecret.json",
        "/files/%2Fetc/hostname.csv",
        "/recording/..%2F..%2Foutside",
        "/recording/my%20drive",
        "/h5_split/all",
        "/checkpoint/%2E%2E",
        "/nothing",
    ],
)
def test_other_files_are_not_served(client: TestClient, root: Path, path: str) -> None:
    folder = root / "recordings" / NAME
    secret = root / "dagster" / "secret.json"
    for file in (secret, folder / ".hidden.csv", folder / "notes.txt", root.parent / "outside.csv"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("secret")
    (root / "mlflow.db").write_text("secret")
    for name, target in (("linked.csv", root.parent / "outside.csv"), ("database.csv", root / "mlflow.db")):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    got = client.get(path)
    assert got.status_code == 404
    assert "secret" not in got.text.replace("secret.json", "")


def test_an_unexpected_error_is_shown_and_the_server_continues(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(server, "check_results", broken)
    with served(root) as (_, client, _):
        got = client.get("/split_manifest")
        assert got.status_code == 500 and "could not be drawn: OSError: the disk is gone" in got.text
        assert client.get("/").status_code == 200


def test_the_server_is_read_only_and_for_known_host_names(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"/files/recordings/{NAME}/telemetry.csv"
    got = client.get(place)
    assert got.text.startswith("Time,") and "default-src 'none'" in got.headers["content-security-policy"]
    assert {client.request(method, place).status_code for method in ("POST", "PUT", "DELETE", "PATCH")} == {405}
    monkeypatch.setenv(SETTINGS, json.dumps({"token": None, "hosts": ["desk"]}))
    with served(root, "http://desk") as (_, behind_the_door, _):
        for server, own in ((client, socket.gethostname()), (behind_the_door, "desk")):
            names = {own: 200, "evil.example": 400}
            assert {name: server.get("/", headers={"Host": name}).status_code for name in names} == names


def test_behind_a_proxy_links_begin_with_its_address(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_REPORTS_URL", "https://drives.example/reports/")
    assert report_link("recording", NAME, "v").value == f"https://drives.example/reports/recording/{NAME}?made=v"
    with served(root, "http://drives.example") as (_, client, _):
        for place in ("/reports", ""):  # whether the proxy strips the prefix or not
            assert 'href="/reports/h5_split/test"' in client.get(f"{place}/split_manifest/../").text
    monkeypatch.setenv("DRIVE_ASSETS_REPORTS_URL", "drives.example")
    with pytest.raises(DataError, match="must be an address such as"):
        base_url()


def test_files_are_served_while_pages_wait_to_be_drawn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = threading.Event()
    with served(root) as (reports, client, _):
        slow = replace(reports.declarations["split_manifest"], page=lambda storage: drawn.wait() and Page("drawn"))
        monkeypatch.setitem(reports.declarations, "split_manifest", slow)
        with client, ThreadPoolExecutor(60) as threads:
            pages = [threads.submit(client.get, "/split_manifest") for _ in range(60)]
            assert client.get(f"/files/recordings/{NAME}/telemetry.csv").status_code == 200
            drawn.set()
            assert {page.result().status_code for page in pages} == {200}


def test_connections_without_a_complete_request_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("answer")(scope, receive, send)

    monkeypatch.setattr(server, "REQUEST_S", 0.1)
    config = uvicorn.Config(answer, port=0, http=server._Protocol, log_level="error", lifespan="off")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        address = running.servers[0].sockets[0].getsockname()
        complete = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        for sent in (b"", complete[:9], complete + complete[:9]):
            with socket.create_connection(address, timeout=60) as connection:
                connection.sendall(sent)
                received = b"".join(iter(partial(connection.recv, 4096), b""))
                assert received.endswith(b"answer" if sent.startswith(complete) else b"")
    finally:
        running.should_exit = True
        thread.join()
