"""A password in the address of MLflow's server, and a client's secret: searched for in everything that is left."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from drive_assets_tests.browser.walk import free_port, wait_for
from drive_assets_tests.training.conftest import SMALL

PASSWORD, SECRET = "pa55/w0rd", "cl1ent-s3cret"
FORMS = ("pa55/w0rd", "pa55%2Fw0rd", SECRET)
NAME = "simple_concat_lstm"


@contextmanager
def command_lines() -> Iterator[set[str]]:
    """The command lines of all processes of this machine while the block runs."""
    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            seen.update(" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def run_training(data_root: Path) -> tuple[int, str]:
    config = data_root / "config.yaml"
    config.write_text(yaml.safe_dump({"checkpoint": {**SMALL, "epochs": 1}}))
    command = [sys.executable, "-m", "drive_assets.cli", "run", "--select", "checkpoint", "--architectures", NAME]
    done = subprocess.run(
        [*command, "--config", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


@pytest.mark.timeout(900)
def test_no_secret_is_left_anywhere(
    data_root: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)]
    backend = f"sqlite:///{data_root / 'server.db'}"
    store = {"MLFLOW_BACKEND_STORE_URI": backend, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen([*command, "--workers", "1"], env={**os.environ, **store}, cwd=tmp_path) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, 600)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:pa55%2Fw0rd@127.0.0.1:{port}")
            monkeypatch.setenv("SHAREPOINT_CLIENT_SECRET", SECRET)
            with command_lines() as seen:
                status, trained = run_training(data_root)
            assert status == 0, trained
        finally:
            server.terminate()
    status, failed = run_training(data_root)
    assert (status, "The MLflow store (http) failed" in failed) == (1, True), failed
    assert f"http://127.0.0.1:{port}/#/experiments/" in trained
    assert any("drive_assets.worker" in line for line in seen)

    from drive_assets.definitions import defs

    shown = serialize_value(RepositorySnap.from_def(defs.get_repository_def()))
    assert '"storage"' in shown or "data_root" in shown
    texts = {"terminal": trained + failed, "command lines": "\n".join(seen), "the UI's definitions": shown}
    places = [place for place, text in texts.items() if any(form in text for form in FORMS)]
    files = [path for path in data_root.rglob("*") if path.is_file()]
    assert {"mlflow.db", "server.db"} & {path.name for path in files} and any("dagster" in path.parts for path in files)
    places += [str(path) for path in files if any(form.encode() in path.read_bytes() for form in FORMS)]
    assert places == []
