"""`drive-assets ui` as a user sees it: Dagster and MLflow answer on loopback, and a browser shows the graph."""

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from drive_assets.definitions import defs
from drive_assets.ui import _stop

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[bytes], seconds: float = 120) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"{url} did not answer; exit status {server.poll()}")


@pytest.fixture
def ui(data_root: Path) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    ports = [free_port(), free_port()]
    command = [sys.executable, "-m", "drive_assets.cli", "ui", "--port", str(ports[0]), "--mlflow-port", str(ports[1])]
    server = subprocess.Popen(command)
    try:
        yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", server
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


@pytest.mark.timeout(300)
def test_both_answer_and_a_browser_shows_the_graph(
    ui: tuple[str, str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    dagster, mlflow, server = ui
    assert "dagster_webserver_version" in wait_for(f"{dagster}/server_info", server)
    assert wait_for(f"{mlflow}/health", server) == "OK"
    if BROWSER is None or DRIVER is None:
        pytest.skip("the servers answer; the browser's view was not looked at: chromium and chromedriver are missing")
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    for flag in (*flags, "--disable-quic", "--disable-component-update", "--disable-sync", "--window-size=1600,1000"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'browser'}")
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as browser:
        groups = {spec.group_name for spec in defs.resolve_all_asset_specs()}
        expanded = quote(",".join(f"global@global:{group}" for group in sorted(map(str, groups))))
        browser.get(f"{dagster}/asset-groups/?expanded={expanded}")
        names = [spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()]
        WebDriverWait(browser, 90).until(lambda b: all(name in b.page_source for name in names))


def test_a_port_in_use_is_said_in_one_line(data_root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "drive_assets.cli", "ui", "--port", port]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 2
    assert ended.stdout.startswith(f"drive-assets: Port {port} of 127.0.0.1 cannot be used for dagster")
    assert ended.stdout.count("\n") == 1


def test_what_a_server_started_ends_with_it(tmp_path: Path) -> None:
    """As a run that Dagster's code server waits for; it hears SIGTERM, and has a session of its own."""
    run = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(120)"
    server = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {run!r}], start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(120)"
    )
    process = subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    _stop([process])
    assert process.returncode is not None and not child.is_running()
