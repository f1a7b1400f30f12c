"""Dagster's UI with its daemon, the report pages, and MLflow's UI, on loopback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from drive_assets.instance import prepare_home
from drive_assets.reports import links
from drive_assets.resources.mlflow import Mlflow, tracking_uri
from drive_assets.resources.mlflow_store import prepare
from model.common.progress import Tell

STOP_S = 15.0


def run_ui(host: str, port: int, mlflow_port: int, reports_port: int, tell: Tell = print) -> int:
    """Serve all until one ends or the user interrupts. Returns an exit status."""
    home = prepare_home()
    mlflow = Mlflow.from_environment()
    prepare(tracking_uri(), Path(mlflow.artifacts))  # before the server and a training make it at once
    here = Path(sys.executable).parent
    commands = [
        [str(here / "dagster"), "dev", "-m", "drive_assets.definitions", "-h", host, "-p", str(port)],
    ]
    env = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}"}
    env.setdefault(links.VARIABLE, f"http://{host}:{reports_port}")  # of the links that runs write
    served = ["reports", "--host", host, "--port", str(reports_port)]
    commands.append([sys.executable, "-m", "drive_assets.cli", *served])
    tell(f"Dagster  http://{host}:{port}")
    tell(f"Reports  http://{host}:{reports_port}")
    uri = tracking_uri()
    if uri.startswith(("sqlite:", "postgresql", "mysql")):
        tell(f"MLflow   http://{host}:{mlflow_port}")
        # The store's address may hold a password: it goes through the environment, not through the process list.
        env["MLFLOW_BACKEND_STORE_URI"] = uri
        env["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = Path(mlflow.artifacts).as_uri()
        env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight processes for features of language models
        commands.append([str(here / "mlflow"), "server", "--host", host, "--port", str(mlflow_port), "--workers", "1"])
    else:
        tell("MLflow   the server that MLFLOW_TRACKING_URI names")
    tell("Stop with Ctrl-C.")
    # Before the servers start: they inherit a SIGINT that a shell's background job ignores, and would not end by it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    servers = [subprocess.Popen(command, env=env, cwd=home) for command in commands]
    try:
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
        for server in servers:
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
