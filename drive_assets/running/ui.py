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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests

from drive_assets.asset import GROUPS
from drive_assets.reports import links
from drive_assets.resources.backends import compute_from_environment
from drive_assets.resources.mlflow.address import DATABASES, SQLITE, UI_ADDRESS, table_of_trainings, tracking_uri
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.running import front_door
from drive_assets.running.home import prepare_home
from drive_assets.running.instance import open_instance, set_default_limit
from model.common.errors import DataError
from model.common.files import atomic_path, locked
from model.common.progress import Log

LINEAGE = f"/asset-groups/?expanded={','.join(f'global@global:{group}' for group in GROUPS)}"
"""Dagster's page of the asset graph, all groups open."""
SERVED = (SQLITE, *DATABASES)
"""Beginnings of the addresses of MLflow stores that have no server of their own."""
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
    """What the address with the token leads to."""


def run_ui(host: str, port: int, mlflow_port: int, reports_port: int, tell: Log = print, has_token: bool = True) -> int:
    """Serve everything until a server ends or the user interrupts. Returns an exit status.

    Raises:
        DataError: a port is in use, or another process serves this data root.
    """
    options = {"--port": port, "--reports-port": reports_port}
    if tracking_uri().startswith(SERVED):
        options["--mlflow-port"] = mlflow_port
    for option, number in options.items():
        check_free(host, number, option)
    home = prepare_services()
    addresses = {  # that runs write into their links
        variable: os.environ.get(variable, f"http://{host}:{number}")
        for variable, number in ((links.VARIABLE, reports_port), (UI_ADDRESS, mlflow_port))
    }
    token = read_token(home / TOKEN) if has_token else None
    linked = [urlsplit(address).hostname or host for address in addresses.values()]
    hosts = sorted({"127.0.0.1", "localhost", socket.gethostname(), host, *linked})
    door = {"token": token, "hosts": hosts}
    module, definitions = [sys.executable, "-m"], ["-m", "drive_assets.definitions"]
    guarded = [*module, front_door.__name__]
    reports = ["drive_assets.cli", "reports", "--host", host, "--port", str(reports_port)]
    servers = [
        Server("dagster", [*guarded, "dagster", *definitions, "-h", host, "-p", str(port)], port, {}, LINEAGE),
        Server("daemon", [str(Path(sys.executable).parent / "dagster-daemon"), "run", *definitions]),
        Server("reports", [*module, *reports], reports_port),
    ]
    if "--mlflow-port" in options:
        servers.append(_mlflow([*guarded, "mlflow", host, str(mlflow_port)], mlflow_port))
    logs = home / LOGS
    logs.mkdir(exist_ok=True)
    running: dict[str, psutil.Popen] = {}
    with locked(home / "ui.lock", 0.0, "{holder} serves the UI of this data root already: use that, or end it first."):
        tell(f"Servers start; the address of each follows when it answers. Logs: {logs}. Press Ctrl-C to stop.")
        try:
            for server in servers:
                settings = {front_door.SETTINGS: json.dumps({**door, "page": server.page})} if server.port else {}
                env = {**os.environ, **addresses, **server.env, **settings}
                running[server.name] = _start(server, env, home, logs)
            return _watch(host, servers, running, logs, token, tell)
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(list(running.values()))


def prepare_services() -> Path:
    """Create DAGSTER_HOME, MLflow's store and the limit of the GPU pool, before several processes would create them.

    Returns DAGSTER_HOME.
    """
    home = prepare_home()
    if tracking_uri().startswith(SERVED):
        Mlflow.from_environment().prepared()
    with open_instance() as instance:
        set_default_limit(instance, compute_from_environment().pool_limit)
    return home


def read_token(path: Path) -> str:
    """The token in a file that only this user can read; a new one if there is none, or the file is empty."""
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        with atomic_path(path) as new:
            new.touch(0o600)
            new.write_text(secrets.token_urlsafe(24), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def check_free(host: str, port: int, option: str) -> None:
    """Raises DataError if something else serves on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DataError(
                f"Port {port} of {host} cannot be used ({error.strerror}): stop what serves there, or choose another "
                f"port with {option}."
            ) from error


def _mlflow(command: Sequence[str], port: int) -> Server:
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
    return Server("mlflow", command, port, env, table_of_trainings(mlflow.prepared()))


def _start(server: Server, env: Mapping[str, str], home: Path, logs: Path) -> psutil.Popen:
    log = logs / f"{server.name}.log"
    if log.is_file() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as stream:
        return psutil.Popen(server.command, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)


def _watch(
    host: str,
    servers: Sequence[Server],
    running: Mapping[str, psutil.Popen],
    logs: Path,
    token: str | None,
    tell: Log,
) -> int:
    """Print the address of each server once it answers, until one ends. Each must be behind the front door."""
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
                tell(f"{server.name:8} {address}{f'/?token={token}' if token else server.page}")
                waiting.remove(server)
        time.sleep(0.5)


def _status(address: str) -> int | None:
    """The status of an answer to a foreign host name; None if there is no answer yet."""
    try:
        return requests.get(address, headers={"Host": "foreign.invalid"}, timeout=2).status_code
    except requests.RequestException:
        return None


def _stop(servers: Sequence[psutil.Popen]) -> None:
    """End servers and what they started: Dagster's code server waits for runs, which would continue without a UI."""
    every: list[psutil.Process] = list(servers)
    for server in servers:
        with contextlib.suppress(psutil.Error):
            every += server.children(recursive=True)
            server.send_signal(signal.SIGINT)
    psutil.wait_procs(servers, STOP_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [process for process in every if process.is_running()]
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        psutil.wait_procs(alive, STOP_S)
