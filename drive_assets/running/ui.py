"""Dagster's UI with its daemon, the report pages and MLflow's UI, each behind the front door."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import psutil

from drive_assets.reports import links
from drive_assets.resources.mlflow.address import DATABASES, UI_ADDRESS, table_of_trainings, tracking_uri
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.running import front_door
from drive_assets.running.services import prepare_services
from model.common.errors import DataError
from model.common.files import atomic_path, locked
from model.common.progress import Log

STOP_S = 15.0
LOGS = "server_logs"
"""Folder in DAGSTER_HOME. Dagster's servers upload what is in a folder called `logs`."""
MAX_LOG_BYTES = 50_000_000
"""A longer log is moved aside at the next start."""
LAST_LINES = 15
TOKEN = "ui_token"
"""File in DAGSTER_HOME: it stays, so that bookmarks work after a restart."""


@dataclass(frozen=True)
class Server:
    """A process of the UI."""

    name: str
    command: Sequence[str]
    port: int = 0
    """0: it serves nothing."""
    env: Mapping[str, str] = field(default_factory=dict)
    page: str = "/"
    """What to open first."""


def run_ui(host: str, port: int, mlflow_port: int, reports_port: int, tell: Log = print, has_token: bool = True) -> int:
    """Serve everything until a server ends or the user interrupts. Returns an exit status.

    Raises:
        DataError: a port is in use, or another process serves this data root.
    """
    serves_mlflow = tracking_uri().startswith(("sqlite:", *DATABASES))
    check_free(host, "dagster", port, "--port")
    check_free(host, "reports", reports_port, "--reports-port")
    if serves_mlflow:
        check_free(host, "mlflow", mlflow_port, "--mlflow-port")
    home = prepare_services(tell)
    addresses = {  # that runs write into their links
        variable: os.environ.get(variable, f"http://{host}:{number}")
        for variable, number in ((links.VARIABLE, reports_port), (UI_ADDRESS, mlflow_port))
    }
    token = read_token(home / TOKEN) if has_token else None
    linked = [urlsplit(address).hostname or host for address in addresses.values()]
    hosts = sorted({"127.0.0.1", "localhost", socket.gethostname(), host, *linked})
    door = {front_door.SETTINGS: json.dumps({"token": token, "hosts": hosts})}
    python = [sys.executable, "-m"]
    definitions = ["-m", "drive_assets.definitions"]
    servers = [
        Server(
            "dagster", [*python, front_door.__name__, "dagster", *definitions, "-h", host, "-p", str(port)], port, door
        ),
        Server("daemon", [str(Path(sys.executable).parent / "dagster-daemon"), "run", *definitions]),
        Server(
            "reports",
            [*python, "drive_assets.cli", "reports", "--host", host, "--port", str(reports_port)],
            reports_port,
            door,
        ),
    ]
    if serves_mlflow:
        servers.append(_mlflow(host, mlflow_port, door))
    logs = home / LOGS
    logs.mkdir(exist_ok=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    with locked(home / "ui.lock", 0.0, "{holder} serves the UI of this data root already: use that, or end it first."):
        tell(f"Logs: {logs}. Press Ctrl-C to stop.")
        try:
            for server in servers:
                with _log(logs / f"{server.name}.log") as stream:
                    running[server.name] = subprocess.Popen(
                        server.command,
                        env={**os.environ, **addresses, **server.env},
                        cwd=home,
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=stream,
                    )
            return _watch(host, servers, running, logs, token, tell)
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(list(running.values()))


def read_token(path: Path) -> str:
    """The token in a file that only this user can read; a new one if there is none.

    Raises:
        DataError: the file is empty, or cannot be written.
    """
    if not path.exists():
        with atomic_path(path) as new:
            new.touch(0o600)
            new.write_text(secrets.token_urlsafe(24), encoding="utf-8")
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise DataError(f"{path} is empty, but must hold the UI's token: delete it, and the next start writes one.")
    return token


def check_free(host: str, name: str, port: int, option: str) -> None:
    """Raises DataError if something else serves on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DataError(
                f"Port {port} of {host} cannot be used for {name} ({error.strerror}): stop what serves there, or "
                f"choose another port with {option}."
            ) from error


def _mlflow(host: str, port: int, door: Mapping[str, str]) -> Server:
    mlflow = Mlflow.from_environment()
    env = {
        # In the environment, not in the process list: the store's address may hold a password.
        "MLFLOW_BACKEND_STORE_URI": tracking_uri(),
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": Path(mlflow.artifacts).as_uri(),
        "MLFLOW_SERVER_ALLOWED_HOSTS": "*",  # the front door checks them
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for features of language models
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_ENABLE_ASSISTANT_SANDBOX": "true",  # its assistant would run commands on this machine
    }
    command = [sys.executable, "-m", front_door.__name__, "mlflow", host, str(port)]
    return Server("mlflow", command, port, {**env, **door}, table_of_trainings(mlflow.prepared()))


def _log(path: Path) -> IO[bytes]:
    if path.is_file() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _watch(
    host: str,
    servers: Sequence[Server],
    running: Mapping[str, "subprocess.Popen[bytes]"],
    logs: Path,
    token: str | None,
    tell: Log,
) -> int:
    """Print the address of each server once it answers, until one ends.

    Raises:
        DataError: a server does not refuse a foreign host name: it is not behind the front door.
    """
    waiting = [server for server in servers if server.port]
    while True:
        for name, process in running.items():
            if process.poll() is not None:
                log = logs / f"{name}.log"
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
                tell("\n".join([f"{name} ended with status {process.returncode}; the end of {log}:", *last]))
                return 1
        for server in list(waiting):
            address = f"http://{host}:{server.port}"
            status = _status(address)
            if status not in (None, front_door.FOREIGN_HOST):
                raise DataError(
                    f"{server.name} at {address} is not behind its front door: it answers a foreign host name with "
                    f"status {status}, expected {front_door.FOREIGN_HOST}. Install the pinned packages."
                )
            if status is not None:
                page, mark, fragment = server.page.partition("#")
                tell(f"{server.name:8} {address}{page}{f'?token={token}' if token else ''}{mark}{fragment}")
                waiting.remove(server)
        time.sleep(0.5)


def _status(address: str) -> int | None:
    """The status of an answer to a foreign host name; None if there is no answer yet."""
    try:
        request = urllib.request.Request(address, headers={"Host": "foreign.invalid"})
        with urllib.request.urlopen(request, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def _stop(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End servers and what they started: Dagster's code server waits for runs, which would continue without a UI."""
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
