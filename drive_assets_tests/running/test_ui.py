"""`drive-assets ui` as a user sees it: a way through Dagster's UI and the report pages, in a browser."""

import errno
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import psutil
import pytest
import requests

from drive_assets.partitions import register_recordings
from drive_assets.recordings.local import find_all
from drive_assets.recordings.sources import register
from drive_assets.resources.mlflow.address import table_of_trainings
from drive_assets.resources.storage import Storage
from drive_assets.running.home import prepare_home
from drive_assets.running.instance import open_instance
from drive_assets.running.ui import Server, _stop, _watch, read_token, run_ui
from drive_assets.status import failure_reason
from drive_assets_tests.browser.walk import BROWSER, DRIVER, Walk, browser, free_port, served, token
from drive_assets_tests.drives import write_drive
from drive_assets_tests.waiting import until
from model.common.errors import DataError
from model.common.files import locked

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 4)]


@pytest.mark.timeout(900)
def test_a_user_finds_the_graph_launchpad_backfill_sensor_check_report_and_plot(
    data_root: Path, tmp_path: Path
) -> None:
    drives = [write_drive(tmp_path / "given" / name, rows=24, seed=seed) for seed, name in enumerate(NAMES)]
    register(Storage.from_environment(), find_all(drives)[0])
    with open_instance() as instance:
        register_recordings(instance, NAMES)
        with served() as urls:
            wrong_launches(urls["dagster"], instance)
            if BROWSER is None or DRIVER is None:
                pytest.skip("the servers answer, but the pages were not opened: chromium or chromedriver is missing")
            with browser(tmp_path / "profile") as driver:
                walk = Walk(driver, urls["dagster"])
                walk_through(walk, instance)
                attack(walk, instance)
                walk.job("train_quick")
                walk.mlflow(urls["mlflow"] + table_of_trainings("1"))


LAUNCH = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def launch(dagster: str, asset: str, partition: str, config: dict) -> dict:
    """What Dagster answers to a launch of one partition."""
    job = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "drive_assets.definitions",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": [asset]}],
    }
    tags = [{"key": "dagster/partition", "value": partition}] if partition else []
    params = {"selector": job, "mode": "default", "runConfigData": config, "executionMetadata": {"tags": tags}}
    query, headers = {"query": LAUNCH, "variables": {"params": params}}, {"Authorization": f"Bearer {token()}"}
    answer = requests.post(f"{dagster}/graphql", json=query, headers=headers, timeout=120)
    return dict(answer.json()["data"]["launchPipelineExecution"])


def wrong_launches(dagster: str, instance: dg.DagsterInstance) -> None:
    """A partition that does not exist, none, and a wrong option, as a script or an old browser tab may ask for."""
    expected = {"future_labels": "has no partition '2031-01-01_00-00-00': choose one", "annotations": "run has none"}
    for asset, partition in (("future_labels", "2031-01-01_00-00-00"), ("annotations", "")):
        run_id = launch(dagster, asset, partition, {})["run"]["runId"]
        until(
            lambda run_id=run_id: instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE,
            "the run fails",
            180,
        )
        assert expected[asset] in failure_reason(instance, run_id)
    wrong = {"ops": {"checkpoint": {"config": {"epochs": 0}}}}
    refused = launch(dagster, "checkpoint", "simple_concat_lstm", wrong)
    assert "epochs 0: expected greater than or equal to 1" in refused["message"]


def walk_through(walk: Walk, instance: dg.DagsterInstance) -> None:
    def ingested() -> set[str]:
        return instance.get_materialized_partitions(dg.AssetKey("recording"))

    walk.graph()
    walk.materialize("recording", NAMES[1])
    until(lambda: ingested() == {NAMES[1]}, "the partition is made", 180)
    walk.backfill("recording")
    until(lambda: ingested() == set(NAMES), "the backfill ends", 180)
    walk.switch_on("refresh_schedule")
    until(
        lambda: "refresh_schedule" in {state.name for state in instance.all_instigator_state() if state.is_running},
        "the schedule runs",
        180,
    )
    walk.check("recording", "few_faults", "few_faults")
    address = walk.metadata("recording", NAMES[1])
    assert walk.page(address, "report") == f"Recording {NAMES[1]}"
    walk.reports(NAMES)
    walk.plot("recording")


ATTACK = """<title>another site</title><script>
const dagster = "%s", added = name => `mutation { addDynamicPartition(partitionKey: "${name}",
  partitionsDefName: "recordings", repositorySelector: {repositoryName: "__repository__",
  repositoryLocationName: "drive_assets.definitions"}) { __typename } }`;
const query = name => JSON.stringify({query: added(name)});
new Image().src = `${dagster}/graphql?query=${encodeURIComponent(added("by-image"))}`;
const post = {method: "POST", mode: "no-cors", credentials: "include", body: query("by-post")};
const sent = fetch(`${dagster}/graphql`, post);
const socket = new WebSocket(dagster.replace("http", "ws") + "/graphql", "graphql-ws");
socket.onopen = () => socket.send(JSON.stringify({type: "start", id: "1", payload: {query: added("by-socket")}}));
socket.onerror = socket.onclose = () => sent.finally(() => setTimeout(() => document.title = "done", 1000));
</script>"""


def attack(walk: Walk, instance: dg.DagsterInstance) -> None:
    """A page of another server on this machine, in the browser that has the token, tries to add partitions."""
    page = (ATTACK % walk.dagster).encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        walk.driver.get(f"http://127.0.0.1:{server.server_port}/")
        until(lambda: walk.driver.title == "done", "the page has tried", 180)
        server.shutdown()
    assert set(instance.get_dynamic_partitions("recordings")) == set(NAMES)


def test_a_token_that_could_not_be_written_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ui_token"

    def full(self: Path, *given: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk, pytest.raises(DataError, match="the disk is full"):
        disk.setattr(Path, "write_text", full)
        read_token(path)
    assert list(tmp_path.iterdir()) == []
    token = read_token(path)
    path.write_text("\n")
    assert read_token(path) != token and len(read_token(path)) == 32
    token = read_token(path)
    assert len(token) == 32 and read_token(path) == token and path.stat().st_mode & 0o777 == 0o600


def test_a_server_without_its_front_door_is_reported(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # answers 501
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(DataError, match="not behind its front door"):
            _watch("127.0.0.1", [Server("reports", [], server.server_port)], {}, tmp_path, None, print)
        server.shutdown()


def test_two_uis_of_one_data_root_are_refused(data_root: Path) -> None:
    with locked(prepare_home() / "ui.lock"), pytest.raises(DataError, match=f"process {os.getpid()} .* serves the UI"):
        run_ui("127.0.0.1", *(free_port() for _ in range(3)), tell=lambda line: None)


def test_a_port_in_use_is_reported_in_one_line(data_root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "drive_assets.cli", "ui", "--port", port]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 2
    assert ended.stdout.startswith(f"drive-assets: Port {port} of 127.0.0.1 cannot be used (Address already in use)")
    assert ended.stdout.count("\n") == 1


def test_processes_of_a_server_end_with_it(tmp_path: Path) -> None:
    """Such as a run that Dagster's code server waits for, in a session of its own."""
    run = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(120)"
    server = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {run!r}], start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(120)"
    )
    process = psutil.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    _stop([process])
    assert process.returncode is not None and not child.is_running()
