"""`drive-assets predict`, the asset and its page: of a recording of the data root, and of a drive anywhere."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import uvicorn
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from starlette.testclient import TestClient

from drive_assets import cli
from drive_assets.commands import predictions
from drive_assets.definitions import defs
from drive_assets.reports.page import html
from drive_assets.reports.predictions import page_alone
from drive_assets.reports.server import Reports
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets_tests.browser.walk import BROWSER, DRIVER, browser
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from drive_assets_tests.networks import ARCHITECTURE, NAMES, bare_drive, write_network
from drive_assets_tests.waiting import until
from model.detection.detector import BUNDLED
from model.evaluation.forecast import ALARM, FALSE, MISSED, UNKNOWN
from model.evaluation.forecasting import choose_network, write_forecast
from model.recording.folder import Recording

ASKED = ("--architecture", ARCHITECTURE)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predicted") / "data"
    write_network(root, rows=160)
    return root


@pytest.fixture
def storage(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(root))
    monkeypatch.setenv("DAGSTER_HOME", str(root / "dagster"))
    monkeypatch.setenv("DRIVE_ASSETS_WEIGHTS", str(BUNDLED))
    yield Storage.from_environment()


def run(*arguments: str, command: str = "predict") -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, *arguments])
    return int(ended.value.code or 0)


def test_of_a_recording_it_is_the_asset_with_a_page(storage: Storage) -> None:
    command = [sys.executable, "-m", "drive_assets.cli", "predict", NAMES[0], *ASKED]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert told.returncode == 0 and "141 of 160 rows predicted" in told.stdout, told.stdout
    with open_instance() as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("predictions")) == {NAMES[0]}
        reports = Reports(storage, instance, defs.resolve_asset_graph())
        client = TestClient(reports.app(), base_url="http://127.0.0.1")
        answer = client.get(f"/predictions/{NAMES[0]}")
        page, policy = answer.text, answer.headers["content-security-policy"]
        assert "This recording was in train" in page and 'src="http' not in page
        assert page.count("<script>") == 1 and "script-src 'sha256-" in policy
        (data,) = (json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page))
        assert [len(task["probability"]) for task in data["tasks"]] == [160] * 4
        assert client.get(f"/{data['pictures'][7]}").content.startswith(b"\xff\xd8")
        for wrong in ("telemetry.csv", "..%2F..%2Fsecret.jpg", "none.jpg"):
            assert client.get(f"/thumbnail/{NAMES[0]}/{wrong}").status_code == 404


@pytest.mark.parametrize("is_annotated", [True, False])
def test_a_drive_elsewhere_is_only_read(
    storage: Storage, tmp_path: Path, is_annotated: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / f"2024-07-0{1 + is_annotated}_10-00-00"
    drive = labelled_drive(folder, 60) if is_annotated else bare_drive(folder).folder
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in drive.iterdir()}
    for _ in range(2):  # the second time over what the first left
        assert run(str(drive), *ASKED) == 0, capfd.readouterr()
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in drive.iterdir()} == before
    made = storage.predictions_elsewhere(folder.name)
    page = (made / "predictions.html").read_text()
    assert "No split of the current data set holds" in page
    assert page.count("data:image/jpeg;base64,") == 60 and "http" not in page and "<nav" not in page
    assert not list(storage.recordings.glob("2024-07*"))
    assert (made / "annotations.csv").is_symlink() == is_annotated


@pytest.mark.parametrize("has_display", [True, False])
def test_the_viewer_opens_on_loopback_without_analytics_where_there_is_a_display(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], has_display: bool
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(predictions.subprocess, "Popen", lambda *given, **options: started.append((given, options)))
    monkeypatch.setenv("DISPLAY", ":0" if has_display else "")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert run(NAMES[1], "--around", "10-00-30-0", command="view") == 0
    path = storage.root / "videos" / f"{NAMES[1]}_10-00-30-0.rrd"
    told = capfd.readouterr().out
    assert path.is_file() and f"{path}: 41 frames" in told
    assert bool(started) == has_display and ("CI=1 rerun --bind 127.0.0.1" in told) == (not has_display)
    for (command,), options in started:
        assert command[-1] == str(path) and command[3:5] == ["--bind", "127.0.0.1"] and options["env"]["CI"] == "1"
    assert run(NAMES[1], "--output", "drive.mp4", command="view") == 2
    assert run("2031-01-01_00-00-00", command="view") == 2


@contextmanager
def reports(storage: Storage) -> Iterator[str]:
    """The address of the report pages of a data root."""
    with dg.instance_for_test() as instance:
        app = Reports(storage, instance, defs.resolve_asset_graph()).app()
        running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=running.run)
        thread.start()
        try:
            until(lambda: running.started, "the server starts", 60)
            yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


@pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="no chromium and chromedriver")
def test_in_the_browser_keys_jump_and_the_frame_follows_the_pointer(storage: Storage, tmp_path: Path) -> None:
    folder = storage.recording(NAMES[2])
    network = choose_network(storage.evaluations, storage.checkpoints, ARCHITECTURE)
    moments = write_forecast(folder, network, 3.0).moments
    frames = list(Recording(folder).frames().values())
    with reports(storage) as address, browser(tmp_path) as driver:
        driver.get(f"{address}/predictions/{NAMES[2]}#row-30")
        figure = driver.find_element(By.CSS_SELECTOR, "figure.timeline")
        picture = figure.find_element(By.TAG_NAME, "img")

        def at(row: int) -> None:
            """Waits until the cursor is at a row, with its frame."""
            WebDriverWait(driver, 60).until(lambda _: figure.get_attribute("data-row") == str(row), f"row {row}")
            until(lambda: picture.get_property("naturalWidth") == 320, "the frame is shown", 60)
            assert picture.get_attribute("src").endswith(f"/thumbnail/{NAMES[2]}/{quote(frames[row].name)}")

        at(30)
        body = driver.find_element(By.TAG_NAME, "body")
        for key, kinds in (("a", {ALARM, FALSE, UNKNOWN}), ("m", {MISSED}), ("f", {FALSE})):
            rows = sorted({moment.row for moment in moments if moment.kind in kinds})
            here = int(figure.get_attribute("data-row"))
            body.send_keys(key)
            if later := [row for row in rows if row > here]:
                at(later[0])
            else:
                assert figure.find_element(By.TAG_NAME, "output").text.startswith("None after")
        body.send_keys("0", Keys.ARROW_RIGHT)
        canvas = figure.find_element(By.TAG_NAME, "canvas")
        ActionChains(driver).move_to_element_with_offset(canvas, 100, 0).perform()
        middle = figure.get_attribute("data-row")
        place = picture.rect["x"]
        ActionChains(driver).move_to_element_with_offset(canvas, 200, 0).perform()
        WebDriverWait(driver, 60).until(lambda _: figure.get_attribute("data-row") != middle)
        at(int(figure.get_attribute("data-row")))
        assert int(figure.get_attribute("data-row")) > 80 and picture.rect["x"] > place
        complaints = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert [text for text in complaints if "favicon.ico" not in text] == []
        page = tmp_path / "alone.html"
        page.write_text(html(page_alone(Recording(folder)), "", None))
        driver.get(page.as_uri())
        assert driver.find_element(By.CSS_SELECTOR, ".shown img").get_attribute("src").startswith("data:image/jpeg")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("DRIVE", "--architecture", "../../etc"), "Unknown architecture '../../etc'"),
        (("DRIVE",), "No network has the alias best"),
        (("2031-01-01_00-00-00",), "does not exist: give a recording, or the path of a drive's folder"),
        (("/nowhere/drive",), "does not exist: give a recording, or the folder of a drive"),
        (("DRIVE", *ASKED, "--false-alarms", "5"), "No threshold was chosen for 5 false alarms per hour: choose 3, 60"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(
    storage: Storage, tmp_path: Path, arguments: tuple[str, ...], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    drive = labelled_drive(tmp_path / "2024-07-05_10-00-00", 30)
    assert run(*(str(drive) if word == "DRIVE" else word for word in arguments)) == 2
    told = "".join(capfd.readouterr())
    assert sentence in told and "Traceback" not in told
