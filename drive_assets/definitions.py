"""Everything that Dagster knows of this project, assembled explicitly."""

import dagster as dg

from drive_assets.annotation.assets import annotations
from drive_assets.annotation.checks import plausible_detections
from drive_assets.automation import AUTOMATION, JOBS, SCHEDULES
from drive_assets.detection.assets import boxy_dataset, boxy_detector, nuimages_dataset, nuimages_detector
from drive_assets.detection.checks import DETECTOR_CHECKS
from drive_assets.evaluation.assets import evaluation, model_comparison
from drive_assets.labels.assets import future_labels_asset
from drive_assets.recordings.arrivals import ArrivalRules
from drive_assets.recordings.assets import recording
from drive_assets.recordings.checks import few_faults
from drive_assets.recordings.inbox import inbox_sensor
from drive_assets.recordings.sharepoint.sensor import sharepoint_sensor
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.splits.assets import h5_split, split_manifest
from drive_assets.splits.checks import every_split_has_positives, manifest_is_current, one_detector
from drive_assets.training.assets import checkpoint

ASSETS = [
    recording,
    boxy_dataset,
    boxy_detector,
    nuimages_dataset,
    nuimages_detector,
    annotations,
    future_labels_asset,
    split_manifest,
    h5_split,
    checkpoint,
    evaluation,
    model_comparison,
]

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=[
        few_faults,
        *DETECTOR_CHECKS,
        plausible_detections,
        manifest_is_current,
        every_split_has_positives,
        one_detector,
    ],
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=[inbox_sensor, sharepoint_sensor, AUTOMATION],
    resources={
        "storage": Storage.from_environment(),
        "arrival_rules": ArrivalRules.from_environment(),
        "compute": LocalCompute(),
        "mlflow": Mlflow.from_environment(),
    },
)
