"""Commands for the asset graph: run, status, demo."""

import argparse
import json
from dataclasses import asdict

from drive_assets.commands.common import tell, writable_storage
from drive_assets.definitions import defs, load
from drive_assets.demo import demo_compute, run_demo
from drive_assets.resources.backends import compute_from_environment
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance, set_default_limit
from drive_assets.running.materialize import EVERYTHING, materialize
from drive_assets.running.run_config import read_config
from drive_assets.status import lines, read_status
from model.common.errors import DataError


def run(options: argparse.Namespace) -> bool:
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
            options.select or EVERYTHING,
            options.recordings,
            options.architectures,
            config,
            tell=tell,
            needed_in=storage if options.lacking else None,
            dry_run_in=storage if options.dry_run else None,
        )


def status(options: argparse.Namespace) -> bool:
    with open_instance() as instance:
        found = read_status(instance, defs.resolve_asset_graph(), Storage.from_environment())
    tell(
        json.dumps([asdict(status) for status in found], indent=1) if options.json else "\n".join(lines(found)),
        wrap=not options.json,
    )
    return True


def demo(options: argparse.Namespace) -> bool:
    storage = writable_storage()
    with open_instance() as instance:
        return run_demo(load(compute=demo_compute()).get_repository_def(), instance, storage, tell=tell)
