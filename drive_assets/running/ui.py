"""Dagster's UI with its daemon, the report pages, and MLflow's UI, on loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from drive_assets.reports import links
from drive_assets.resources.mlflow.address import DATABASES, UI_ADDRESS, table_of_trainings, tracking_uri
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.running.services import prepare_services
from model.common.errors import DataError
from model.common.progress import Tell

STOP_S = 15.0
LOGS = "server_logs"
"""Folder in DAGSTER_HOME. Dagster's servers send what lies in one called `logs` to their makers."""
MOST_LOG_BYTES = 50_000_000
"""A longer log is begun anew, and the one before kept."""
LAST_LINES = 15


@dataclass(frozen=True)
class Server:
    """A process that serves on a port."""

    name: str
    port: int
    command: Sequence[str]
    health: str
    """Path that answers once it serves."""
    env: Mapping[str, str] = field(default_factory=dict)
    page: str = ""
    """What to open first."""


def run_ui(host: str, port: int, mlflow_port: int, reports_port: int, tell: Tell = print) -> int:
    """Serve all until one ends or the user interrupts. Returns an exit status.

    Raises:
        DataError: a port is in use.
    """
    serves_mlflow = tracking_uri().startswith(("sqlite:", *DATABASES))
    check_free(host, "dagster", port, "--port")
    check_free(host, "reports", reports_port, "--reports-port")
    if serves_mlflow:
        check_free(host, "mlflow", mlflow_port, "--mlflow-port")
    home = prepare_services(tell)
    servers = [
        _dagster(host, port),
        _reports(host, reports_port),
        *([_mlflow(host, mlflow_port)] if serves_mlflow else []),
    ]
    logs = home / LOGS
    logs.mkdir(exist_ok=True)
    # Before the servers start: they inherit a SIGINT that a shell's background job ignores, and would not end by it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    links_env = {  # of the links that runs write
        variable: os.environ.get(variable, f"http://{host}:{number}")
        for variable, number in ((links.VARIABLE, reports_port), (UI_ADDRESS, mlflow_port))
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    tell(f"What they say stands in {logs}. Stop with Ctrl-C.")
    try:
        for server in servers:
            with _log(logs / f"{server.name}.log") as stream:
                env = {**os.environ, **links_env, **server.env}
                running[server.name] = subprocess.Popen(
                    server.command, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
                )
        return _watch(host, servers, running, logs, tell)
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(list(running.values()))


def check_free(host: str, name: str, port: int, option: str) -> None:
    """Raises DataError if something else serves on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DataError(
                f"Port {port} of {host} cannot be used for {name} ({error.strerror}): end what serves there, or choose "
                f"another with {option}."
            ) from error


def _dagster(host: str, port: int) -> Server:
    here = Path(sys.executable).parent
    command = [str(here / "dagster"), "dev", "-m", "drive_assets.definitions", "-h", host, "-p", str(port)]
    env = {"PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}"}
    return Server("dagster", port, command, "/server_info", env)


def _reports(host: str, port: int) -> Server:
    command = [sys.executable, "-m", "drive_assets.cli", "reports", "--host", host, "--port", str(port)]
    return Server("reports", port, command, "/")


def _mlflow(host: str, port: int) -> Server:
    mlflow = Mlflow.from_environment()
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", host, "--port", str(port)]
    env = {
        # The store's address may hold a password: it goes through the environment, not through the process list.
        "MLFLOW_BACKEND_STORE_URI": tracking_uri(),
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": Path(mlflow.artifacts).as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for features of language models
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_ENABLE_ASSISTANT_SANDBOX": "true",  # its assistant would run commands on this machine
    }
    page = table_of_trainings(mlflow.prepared())
    return Server("mlflow", port, [*command, "--workers", "1"], "/health", env, page)


def _log(path: Path) -> IO[bytes]:
    if path.is_file() and path.stat().st_size > MOST_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _watch(
    host: str, servers: Sequence[Server], running: Mapping[str, "subprocess.Popen[bytes]"], logs: Path, tell: Tell
) -> int:
    """Say where each server is, once it answers; until one ends."""
    waited = list(servers)
    while True:
        for name, process in running.items():
            if process.poll() is not None:
                log = logs / f"{name}.log"
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
                tell("\n".join([f"{name} ended with status {process.returncode}; the end of {log}:", *last]))
                return 1
        for server in list(waited):
            if _answers(f"http://{host}:{server.port}{server.health}"):
                tell(f"{server.name:8} http://{host}:{server.port}{server.page}")
                waited.remove(server)
        time.sleep(0.5)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
        return True
    return False


def _stop(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End servers and what they started: Dagster's code server waits for runs, which would go on without a UI."""
    started: list[psutil.Process] = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            started += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs([psutil.Process(p.pid) for p in processes if p.poll() is None], STOP_S)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        alive = [process for process in {*alive, *started} if process.is_running()]
        for process in alive:
            with contextlib.suppress(psutil.Error):
                end(process)
        _, alive = psutil.wait_procs(alive, STOP_S)
    for process in processes:
        process.wait()
