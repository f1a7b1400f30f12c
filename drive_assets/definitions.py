"""Everything that Dagster knows of this project: what each room exports, merged."""

import dagster as dg

from drive_assets import automation, upkeep
from drive_assets.annotation import definitions as annotation
from drive_assets.catalogue import catalogued
from drive_assets.detection import definitions as detection
from drive_assets.evaluation import definitions as evaluation
from drive_assets.labels import definitions as labels
from drive_assets.operations import JOBS
from drive_assets.recordings import definitions as recordings
from drive_assets.resources.backends import compute_from_environment
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.running import notifications
from drive_assets.splits import definitions as splits
from drive_assets.training import definitions as training

ROOMS = [recordings, detection, annotation, labels, splits, training, evaluation, automation, notifications, upkeep]

defs = catalogued(
    dg.Definitions.merge(
        *(room.defs for room in ROOMS),
        dg.Definitions(
            jobs=JOBS,
            # A run is one process: a second one for its step would only have to import all again.
            executor=dg.in_process_executor,
            resources={
                "storage": Storage.from_environment(),
                "compute": compute_from_environment(),
                "mlflow": Mlflow.from_environment(),
            },
        ),
    )
)
