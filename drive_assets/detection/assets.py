"""Boxy -> YOLO data set -> detector of highway vehicles."""

import dagster as dg

from drive_assets.config import launchpad, to_model
from drive_assets.pictures import LIMIT_BYTES, inline_image
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.tracking import tracked
from model.boxy import BoxyConfig, convert_boxy
from model.config import fingerprint, to_dict
from model.detector import DetectorConfig
from model.errors import DataError
from model.files import sha256
from model.yolo_dataset import dataset_version, mosaic, read_image, small_jpeg


class BoxyLaunchpad(launchpad(BoxyConfig)):
    """What of Boxy becomes a data set."""

    raw: str = ""
    """Folder of the raw data set; empty: raw/boxy in the data root, else the simulated one."""


class DetectorLaunchpad(launchpad(DetectorConfig)):
    """Recipe of the detector."""


@dg.asset(group_name="detection", code_version="1", kinds={"yolo"})
def boxy_dataset(context: dg.AssetExecutionContext, config: BoxyLaunchpad, storage: Storage) -> dg.MaterializeResult:
    """Boxy in YOLO's layout: images linked or extracted once, labels, sequences split into train and val."""
    default = storage.boxy_raw if storage.boxy_raw.is_dir() else storage.simulated / "boxy"
    raw = storage.root / config.raw if config.raw else default
    try:
        report = convert_boxy(raw, storage.boxy_dataset, to_model(config, BoxyConfig), context.log.info)
    except DataError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    return dg.MaterializeResult(
        metadata={
            "images": dg.MetadataValue.json(report.images),
            "boxes": dg.MetadataValue.json(report.boxes),
            "boxes_per_image": sum(report.boxes.values()) / sum(report.images.values()),
            "median_box": dg.MetadataValue.json(report.median_box),
            "sequences": dg.MetadataValue.json(report.groups),
            "left_out": dg.MetadataValue.json(report.dropped),
            "labelled_frames": inline_image(mosaic(storage.boxy_dataset), "jpeg"),
            "source": dg.MetadataValue.path(raw),
            "path": dg.MetadataValue.path(storage.boxy_dataset),
        },
    )


@dg.asset(
    deps=[boxy_dataset],
    pool="gpu",
    retry_policy=dg.RetryPolicy(max_retries=1),
    group_name="detection",
    code_version="1",
    kinds={"yolo", "pytorch"},
)
def boxy_detector(
    context: dg.AssetExecutionContext,
    config: DetectorLaunchpad,
    storage: Storage,
    compute: LocalCompute,
    mlflow: Mlflow,
) -> dg.MaterializeResult:
    """YOLO12n fine-tuned for highway vehicles."""
    recipe = to_dict(to_model(config, DetectorConfig))
    dataset = storage.boxy_dataset / "dataset.yaml"
    if not dataset.is_file():
        raise dg.Failure(f"{dataset} is missing: materialise boxy_dataset first.", allow_retries=False)
    key = f"boxy_detector/{dataset_version(storage.boxy_dataset)}/{fingerprint(recipe)}"
    job = {
        "dataset": str(dataset),
        "output": str(storage.boxy_detector),
        "work": str(storage.cache / "detector"),
        "config": recipe,
    }
    with tracked(context, mlflow, [key], ["boxy_detector"], [recipe], [job]) as runs:
        (result,) = compute.run(context, "train_detector", [job], mlflow.env)
        if "error" in result:
            raise dg.Failure(result["error"])
        figures = result["value"]
        files = [storage.root / file for file in figures["files"]]
        mlflow.log_figures(runs.ids[0], figures["metrics"])
        mlflow.log_files(runs.ids[0], files, "training")
        mlflow.log_files(runs.ids[0], [storage.boxy_detector], "weights")
    pictures = {file.stem: file for file in files if file.suffix == ".jpg"}
    shown = {
        name: inline_image(small_jpeg(read_image(pictures[name]), LIMIT_BYTES * 3 // 4), "jpeg")
        for name in ("val_batch0_labels", "val_batch0_pred")
        if name in pictures
    }
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256(storage.boxy_detector)[:12]),
        metadata={
            **{name: float(value) for name, value in figures["metrics"].items()},
            "epochs": figures["epochs"],
            "batch": figures["batch"],
            "resumed": figures["resumed"],
            "mlflow_run": runs.ids[0],
            **shown,
            "path": dg.MetadataValue.path(storage.boxy_detector),
        },
    )
