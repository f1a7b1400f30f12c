"""Everything that Dagster knows about this project. A room's assets, checks and sensors are loaded from its modules."""

from typing import Any

import dagster as dg

from drive_assets import annotation, automation, car, detection, evaluation, labels, predictions, splits, training
from drive_assets.jobs import JOBS
from drive_assets.recordings import definitions as recordings
from drive_assets.resources.backends import compute_from_environment
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.running import notifications
from drive_assets.running.launchpad import fixed
from drive_assets.upkeep import upkeep

ROOMS = [detection, annotation, labels, splits, training, evaluation, predictions, car]


def load(**resources: dg.ConfigurableResource[Any]) -> dg.Definitions:
    """The rooms' definitions, and what derives from their assets. (A code location has one `Definitions` object.)

    Args:
        resources: replace the environment's.
    """
    from_environment = {
        "storage": Storage.from_environment(),
        "compute": compute_from_environment(),
        "mlflow": Mlflow.from_environment(),
    }
    rooms = dg.Definitions.merge(recordings.defs, *map(dg.load_definitions_from_package_module, ROOMS))
    return dg.Definitions.merge(
        rooms,
        automation.defs,
        notifications.defs,
        upkeep(asset for asset in rooms.assets or () if isinstance(asset, dg.AssetsDefinition)),
        dg.Definitions(
            jobs=JOBS,
            # A run is one process: another one for its step would only repeat the imports.
            executor=dg.in_process_executor,
            resources={name: fixed(resource) for name, resource in (from_environment | resources).items()},
        ),
    )


defs = load()
