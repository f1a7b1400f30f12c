"""Commands for servers: prepare, ui, reports."""

import argparse

from drive_assets.commands.common import tell, writable_storage


def prepare(options: argparse.Namespace) -> bool:
    from drive_assets.running.ui import prepare_services

    writable_storage()
    tell(f"DAGSTER_HOME is {prepare_services()}.")
    return True


def ui(options: argparse.Namespace) -> bool:
    from drive_assets.running.ui import run_ui

    writable_storage()
    ports = (options.port, options.mlflow_port, options.reports_port)
    return run_ui(options.host, *ports, tell, has_token=not options.no_token) == 0


def reports(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.reports.server import serve
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance

    with open_instance() as instance:
        serve(options.host, options.port, Storage.from_environment(), instance, defs.resolve_asset_graph())
    return True
