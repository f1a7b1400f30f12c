"""Commands for servers: prepare, ui, reports."""

import argparse
from typing import Any

from drive_assets.commands.common import tell, writable_storage


def add_commands(commands: Any) -> None:
    prepare = commands.add_parser(
        "prepare", help="create what services need: DAGSTER_HOME, MLflow's store, the pool's limit"
    )
    prepare.set_defaults(command=_prepare)

    ui = commands.add_parser("ui", help="serve Dagster, the report pages and MLflow on loopback")
    ui.add_argument("--host", default="127.0.0.1")
    ui.add_argument("--port", type=int, default=3000)
    ui.add_argument("--mlflow-port", type=int, default=5000)
    ui.add_argument("--reports-port", type=int, default=3001)
    ui.add_argument("--no-token", action="store_true", help="let every user of this machine in")
    ui.set_defaults(command=_ui)

    reports = commands.add_parser("reports", help="serve the report pages alone, for a Dagster that runs elsewhere")
    reports.add_argument("--host", default="127.0.0.1")
    reports.add_argument("--port", type=int, default=3001)
    reports.set_defaults(command=_reports)


def _prepare(options: argparse.Namespace) -> bool:
    from drive_assets.running.ui import prepare_services

    writable_storage()
    tell(f"DAGSTER_HOME is {prepare_services()}.")
    return True


def _ui(options: argparse.Namespace) -> bool:
    from drive_assets.running.ui import run_ui

    writable_storage()
    ports = (options.port, options.mlflow_port, options.reports_port)
    return run_ui(options.host, *ports, tell, has_token=not options.no_token) == 0


def _reports(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.reports.server import serve
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance

    with open_instance() as instance:
        serve(options.host, options.port, Storage.from_environment(), instance, defs.resolve_asset_graph())
    return True
