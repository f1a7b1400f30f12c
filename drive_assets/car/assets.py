"""checkpoint, evaluation, detector -> a bundle for the car"""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from pydantic import Field

from drive_assets.asset import asset, bound_checks
from drive_assets.car.checks import of_the_checkpoint, same_as_torch
from drive_assets.partitions import ARCHITECTURE_PARTITIONS
from drive_assets.reports.car import bundle_page, folder_bytes
from drive_assets.reports.links import report_link
from drive_assets.resources.compute import Compute
from drive_assets.resources.storage import Storage, own_detector
from drive_assets.running.batches import Event, each_result, partition_keys
from drive_assets.running.launchpad import Launchpad
from drive_assets.splits.manifest import recorded_version
from drive_assets.tasks import BUNDLE, BundleJob
from model.bundle.config import DESCRIPTION, MEASURED, BundleConfig
from model.common.code import code_version
from model.common.files import sha256
from model.training.published import BEST


class BundleLaunchpad(BundleConfig, Launchpad):
    """What a bundle contains."""

    weights: str = Field(
        "",
        description="Weights file of the detector that annotated the data set; empty: that of DRIVE_ASSETS_WEIGHTS, "
        "otherwise what boxy_detector trained",
    )


@asset(
    group_name="9_car",
    deps=["evaluation", "boxy_detector"],
    partitions_def=ARCHITECTURE_PARTITIONS,
    output=lambda storage, name: storage.bundle(name) / DESCRIPTION,
    page=bundle_page,
    checks=[same_as_torch, of_the_checkpoint],
    data_version=recorded_version,
    code_version=code_version("model.bundle.export", "model.bundle.network"),
    kinds={"onnx", "python"},
)
def car_bundle(
    context: dg.AssetExecutionContext, config: BundleLaunchpad, storage: Storage, compute: Compute
) -> Iterator[Event]:
    """All that a car needs to anticipate. **In:** a network's checkpoint, its evaluation, the detector's weights, and a
    recording of test. **Out:** network and detector in ONNX, thresholds, region of interest, a small Python package
    that runs them, and a golden drive, on which the bundle gives what torch gives. Made on request only."""
    named = config.weights or own_detector()
    weights = storage.root / Path(named).expanduser() if named else storage.boxy_detector
    options = BundleConfig(**config.model_dump(exclude={"weights"}))
    jobs = [
        BundleJob(
            storage.checkpoint(name) / BEST,
            storage.evaluation(name),
            storage.split("test"),
            storage.recordings,
            weights,
            storage.bundle(name),
            storage.cache,
            options,
        )
        for name in partition_keys(context)
    ]

    def described(name: str, path: Path) -> dg.MaterializeResult:
        content, measured = (json.loads((path.parent / each).read_bytes()) for each in (DESCRIPTION, MEASURED))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version := sha256(path)[:12]),
            metadata={
                "report": report_link("car_bundle", name, version),
                **{key: value for key, value in measured.items() if isinstance(value, (int, float))},
                "alarms_at": content["false_alarms_per_hour"],
                "megabytes": round(folder_bytes(path.parent) / 1e6, 1),
                "path": dg.MetadataValue.path(path.parent),
            },
        )

    yield from each_result(context, compute.run_each(context, BUNDLE, jobs), described, bound_checks(context, storage))
