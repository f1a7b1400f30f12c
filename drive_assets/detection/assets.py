"""Boxy and nuImages -> YOLO data sets -> detectors"""

import os
import shutil
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field

from drive_assets.asset import asset
from drive_assets.reports.data_sets import detector_dataset_page, detector_page
from drive_assets.reports.links import report_link
from drive_assets.resources.compute import Compute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import DAGSTER_RUN, TrackedRun, UsedData
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import fail_on_data_error
from drive_assets.running.interrupts import fail_when_terminated
from drive_assets.running.launchpad import Launchpad
from drive_assets.tasks import TRAIN_DETECTOR, TrainDetectorJob
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import atomic_path, sha256
from model.detection.boxy import BoxyConfig, convert_boxy, download_boxy
from model.detection.dataset_folder import dataset_version
from model.detection.detector_config import DetectorConfig, NuimagesDetectorConfig
from model.detection.detector_training import RESULTS, read_epochs
from model.detection.downloads import Remote
from model.detection.nuimages import ARCHIVES, NuimagesConfig, convert_nuimages, download_nuimages, extract_nuimages
from model.detection.yolo_dataset import DatasetReport

BOXY_URL, NUIMAGES_URL = "DRIVE_ASSETS_BOXY_URL", "DRIVE_ASSETS_NUIMAGES_URL"
OFF = ("warmup_epochs", "multi_scale", "degrees", "perspective", "mosaic", "mixup", "cutmix", "copy_paste")
QUICK: dict[str, Any] = {"epochs": 1, "batch": 8, "workers": 0, "close_mosaic": 0, **dict.fromkeys(OFF, 0.0)}
"""Quick options of detectors: one epoch without augmentation."""


class BoxyLaunchpad(BoxyConfig, Launchpad):
    """Which Boxy frames become the data set."""

    raw: str = Field(
        "", description="Folder of the raw data set; empty: raw/boxy in the data root, otherwise the simulated set"
    )
    url: str = Field(
        "",
        description=f"Address to download missing files from; empty: {BOXY_URL}, which may hold credentials, if set",
    )


class NuimagesLaunchpad(NuimagesConfig, Launchpad):
    """Which nuImages frames become the data set."""

    raw: str = Field(
        "",
        description="Folder of the raw data set: tables and samples, or the archives; empty: raw/nuimages in the data "
        "root, otherwise the simulated set",
    )
    url: str = Field(
        "", description=f"Address to download archives from; empty: {NUIMAGES_URL}, which may hold credentials, if set"
    )
    archives: list[str] = Field(
        list(ARCHIVES), description="Archives to download; nuimages-v1.0-mini.tgz is the small one"
    )


class BoxyDetectorLaunchpad(DetectorConfig, Launchpad):
    """Recipe of the detector."""


class NuimagesDetectorLaunchpad(NuimagesDetectorConfig, Launchpad):
    """Recipe of the detector."""


@asset(
    group_name="2_detection",
    output=attrgetter("boxy_dataset"),
    page=lambda storage: detector_dataset_page(storage.boxy_dataset),
    quick={"min_box_px": 24.0},  # at image size 704 such a box is 7 px wide: a car about 140 m ahead
    code_version="2",
    kinds={"yolo"},
)
def boxy_dataset(context: dg.AssetExecutionContext, config: BoxyLaunchpad, storage: Storage) -> dg.MaterializeResult:
    """Boxy's highway frames in YOLO's layout. **In:** zips and label JSON in `raw/boxy`, downloaded if an address is
    set; otherwise the simulated set. **Out:** images, labels, `dataset.yaml`. Whole sequences go to train or val."""
    with fail_on_data_error(context):
        raw, remote = _source(config.url, BOXY_URL, config.raw, storage, storage.boxy_raw)
        if remote is not None:
            download_boxy(remote, raw, config, context.log.info)
        report = convert_boxy(raw, storage.boxy_dataset, config, context.log.info)
    return _dataset_result(context, report, raw, storage.boxy_dataset)


@asset(
    group_name="2_detection",
    output=attrgetter("nuimages_dataset"),
    page=lambda storage: detector_dataset_page(storage.nuimages_dataset),
    code_version="1",
    kinds={"yolo"},
)
def nuimages_dataset(
    context: dg.AssetExecutionContext, config: NuimagesLaunchpad, storage: Storage
) -> dg.MaterializeResult:
    """nuImages in YOLO's layout, front and back cameras. **In:** tables and samples, or their archives, in
    `raw/nuimages`, downloaded if an address is set. **Out:** images, labels, `dataset.yaml`. Whole logs go to train or
    val."""
    with fail_on_data_error(context):
        raw, remote = _source(config.url, NUIMAGES_URL, config.raw, storage, storage.nuimages_raw)
        if remote is not None:
            download_nuimages(remote, raw, config.archives, context.log.info)
        extract_nuimages(raw, context.log.info)
        report = convert_nuimages(raw, storage.nuimages_dataset, config, context.log.info)
    return _dataset_result(context, report, raw, storage.nuimages_dataset)


def _source(url: str, variable: str, raw: str, storage: Storage, usual: Path) -> tuple[Path, Remote | None]:
    """The raw folder, simulated unless there is a real one, and where to download missing files from.

    Raises:
        DataError: the address holds a secret, which the launchpad would store and show.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise DataError(f"url holds credentials or a token: set it in the environment instead, as {variable}.")
    base, simulated = url or os.environ.get(variable, ""), storage.simulated / usual.name
    use_simulated = not base and not usual.is_dir() and simulated.is_dir()
    default = simulated if use_simulated else usual
    return storage.root / raw if raw else default, Remote(base) if base else None


def _dataset_result(
    context: dg.AssetExecutionContext, report: DatasetReport, raw: Path, dataset: Path
) -> dg.MaterializeResult:
    for problem in report.problems:
        context.log.warning(problem)
    images, boxes = sum(report.images.values()), sum(report.boxes.values())
    version, shown = dataset_version(dataset), ("images", "boxes", "classes", "groups", "problems")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata={
            "report": report_link(context.asset_key.to_user_string(), version=version),
            "boxes_per_image": round(boxes / images, 3),
            "left_out": dg.MetadataValue.json(report.dropped),
            **{key: dg.MetadataValue.json(getattr(report, key)) for key in shown},
            "source": dg.MetadataValue.path(raw),
            "path": dg.MetadataValue.path(dataset),
        },
    )


def _detector(
    name: str,
    dataset_asset: dg.AssetsDefinition,
    launchpad_class: type[DetectorConfig],
    description: str,
    quick: dict[str, Any],
) -> dg.AssetsDefinition:
    """A detector's asset. Its weights and its data set are at the storage's paths of the assets' names."""
    dataset_path, weights_path = attrgetter(dataset_asset.key.to_user_string()), attrgetter(name)

    @asset(
        name=name,
        group_name="2_detection",
        deps=[dataset_asset],
        output=weights_path,
        page=lambda storage: detector_page(storage, weights_path(storage)),
        quick=QUICK | quick,
        pool="gpu",
        retry_policy=dg.RetryPolicy(max_retries=1),
        code_version="2",
        kinds={"yolo", "pytorch"},
        description=description,
    )
    def detector(
        context: dg.AssetExecutionContext,
        config: launchpad_class,  # type: ignore[valid-type]
        storage: Storage,
        compute: Compute,
        mlflow: Mlflow,
    ) -> dg.MaterializeResult:
        dataset, weights = dataset_path(storage), weights_path(storage)
        described = dataset / "dataset.yaml"
        with fail_when_terminated(), mlflow.ended(context.run_id), fail_on_data_error(context):
            if not described.is_file():
                raise DataError(f"{described} is missing: materialise {dataset_asset.key.to_user_string()} first.")
            recipe, version = config.model_dump(mode="json"), dataset_version(dataset)  # type: ignore[attr-defined]
            key = f"{name}/{version}/{fingerprint(recipe)}"
            tags = {DAGSTER_RUN: context.run_id, "data_version": version}
            data = UsedData(dataset.name, version, str(dataset), {})
            run = TrackedRun(mlflow.prepared(), key, name, recipe, tags, data)
            job = TrainDetectorJob(described, weights, storage.cache / "detector", config, run)
            (result,) = compute.run(context, TRAIN_DETECTOR, [job], mlflow.env)
            if isinstance(result, DataError):
                raise result
            epochs = [epoch for file in result.files if file.name == RESULTS for epoch in read_epochs(file)]
            run_id = mlflow.complete(run, epochs, int(result.resumed))
            mlflow.log_figures(run_id, dict(result.metrics))
            mlflow.log_files(run_id, result.files, "training")
            mlflow.log_files(run_id, [weights], "weights")
        for file in result.files:  # the report page shows these; the training's own folder is a cache
            with atomic_path(storage.detector_files(weights) / file.name) as temporary:
                shutil.copyfile(file, temporary)
        weights_version = sha256(weights)[:12]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(weights_version),
            metadata={
                "report": report_link(name, version=weights_version),
                **result.metrics,
                "epochs": result.epochs,
                "batch": result.batch,
                "resumed": result.resumed,
                "mlflow_run": dg.MetadataValue.url(mlflow.page(run.experiment, run_id)),
                "path": dg.MetadataValue.path(weights),
            },
        )

    return detector


boxy_detector = _detector(
    "boxy_detector",
    boxy_dataset,
    BoxyDetectorLaunchpad,
    "The detector that annotates: YOLO12n fine-tuned for vehicles on highways. **In:** `boxy_dataset`. **Out:** "
    "weights and training curves. An interrupted training resumes.",
    # The bundled weights have been trained on many such frames: large steps would spoil them.
    {"image_size": 704, "learning_rate": 0.00005},
)
nuimages_detector = _detector(
    "nuimages_detector",
    nuimages_dataset,
    NuimagesDetectorLaunchpad,
    "YOLO11n for people, types of vehicles and traffic cones. **In:** `nuimages_dataset`. **Out:** weights and "
    "training curves. An interrupted training resumes.",
    {"image_size": 320},
)
