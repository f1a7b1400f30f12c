"""Commands for the asset graph: run, status, demo."""

import argparse
from pathlib import Path
from typing import Any

from drive_assets.commands.common import tell, writable_storage
from model.common.errors import DataError


def add_commands(commands: Any) -> None:
    run = commands.add_parser("run", help="materialise assets")
    run.add_argument("--select", default="*", help="Dagster's selection syntax; default everything")
    run.add_argument("--recordings", nargs="+", default=[], metavar="NAME", help="default all")
    run.add_argument("--architectures", nargs="+", default=[], metavar="NAME", help="default all twelve")
    run.add_argument("--weights", type=Path, help="detector for annotations, instead of the trained one")
    run.add_argument("--lacking", action="store_true", help="only what is missing, failed or out of date")
    run.add_argument("--config", type=Path, help="YAML file: config by asset name, as in the launchpad")
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="list what is made, missing, out of date, running and refused")
    status.set_defaults(command=_status)

    demo = commands.add_parser("demo", help="simulated drives through the whole graph")
    demo.set_defaults(command=_demo)


def _run(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.resources.backends import compute_from_environment
    from drive_assets.running.instance import open_instance, set_default_limit
    from drive_assets.running.materialize import materialize
    from drive_assets.running.run_config import read_config

    storage, config = writable_storage(), read_config(options.config)
    if options.weights is not None:
        if not options.weights.is_file():
            raise DataError(f"{options.weights} does not exist: expected the weights file of a YOLO detector.")
        config.setdefault("annotations", {})["weights"] = str(options.weights.resolve())
    with open_instance() as instance:
        set_default_limit(instance, compute_from_environment().pool_limit)
        return materialize(
            defs.get_repository_def(),
            instance,
            options.select,
            options.recordings,
            options.architectures,
            config,
            tell=tell,
            needed_in=storage if options.lacking else None,
        )


def _status(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance
    from drive_assets.status import lines, read_status

    with open_instance() as instance:
        for line in lines(read_status(instance, defs.resolve_asset_graph(), Storage.from_environment())):
            tell(line)
    return True


def _demo(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import load
    from drive_assets.demo import demo_compute, run_demo
    from drive_assets.running.instance import open_instance

    storage = writable_storage()
    with open_instance() as instance:
        return run_demo(load(compute=demo_compute()).get_repository_def(), instance, storage, tell=tell)
