"""annotations, network -> predictions.csv"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.asset import Column, asset
from drive_assets.partitions import RECORDINGS
from drive_assets.reports.links import report_link
from drive_assets.reports.predictions import predictions_page
from drive_assets.resources.compute import Compute
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_result, fail_on_data_error, partition_keys
from drive_assets.running.launchpad import Launchpad
from drive_assets.splits.manifest import read_manifest
from drive_assets.tasks import PREDICT, PredictJob
from model.common.code import code_version
from model.common.files import sha256
from model.evaluation.config import PredictionConfig
from model.evaluation.forecast import FALSE, FOUND, MISSED, Forecast
from model.recording.schema import DEFAULT_TASKS


class PredictionLaunchpad(PredictionConfig, Launchpad):
    """How recordings are predicted."""


COLUMNS: list[Column] = [
    ("Time", "text", "time of the row"),
    *((task, "float", "calibrated probability; empty: no prediction. A column a task") for task in DEFAULT_TASKS),
    ("alarms", "text", "tasks whose alarm rings at the row"),
    ("reason", "text", "why there is no prediction"),
]


@asset(
    group_name="8_predictions",
    deps=["annotations", "model_comparison"],
    partitions_def=RECORDINGS,
    output=Storage.predictions,
    page=predictions_page,
    columns=COLUMNS,
    example="2024-05-31 08-15-12-5, 0.0312, 0.0450, 0.6310, 0.5809, coast_1s, ",
    backfill_policy=dg.BackfillPolicy.multi_run(100),
    code_version=code_version("model.evaluation.forecasting", "model.evaluation.events"),
    kinds={"pytorch", "csv"},
)
def predictions(
    context: dg.AssetExecutionContext, config: PredictionLaunchpad, storage: Storage, compute: Compute
) -> Iterator[Event]:
    """What a network foresees in a drive, also in one that no data set holds. **In:** the recording's annotations, and
    the network with the alias `best` or one that the launchpad names. **Out:** the calibrated probability of each task
    at each row, and its alarms at the budget of false alarms; `predictions.json` records the network, the thresholds,
    and which onsets were found."""
    with fail_on_data_error(context):
        jobs = [predict_job(storage, storage.recording(name), config) for name in partition_keys(context)]

    def described(name: str, summary: Path) -> dg.MaterializeResult:
        path = storage.predictions(name)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version := sha256(path)[:12]),
            metadata={
                "report": report_link("predictions", name, version),
                **_metadata(summary),
                "path": dg.MetadataValue.path(path),
            },
        )

    yield from each_result(context, compute.run_each(context, PREDICT, jobs), described)


def predict_job(storage: Storage, recording: Path, config: PredictionConfig) -> PredictJob:
    """The job that writes predictions into the folder of a recording. DataError if the architecture does not exist."""
    if config.architecture:
        storage.checkpoint(config.architecture)  # refuses what is none
    manifest: dict[str, Any] = read_manifest(storage) if storage.manifest.is_file() else {"splits": {}}
    splits = [name for name, part in manifest["splits"].items() if recording.name in part["recordings"]]
    return PredictJob(
        recording,
        storage.evaluations,
        storage.checkpoints,
        PredictionConfig(**config.model_dump()),
        next(iter(splits), ""),
        {manifest["fingerprint"]: manifest["window"]["length"]} if "fingerprint" in manifest else {},
    )


def _metadata(path: Path) -> dict[str, Any]:
    forecast = Forecast.read(path)
    counts = {
        kind: {task: forecast.count(task, kind) for task in forecast.thresholds} for kind in (FOUND, MISSED, FALSE)
    }
    table = [
        dg.TableRecord({"task": task, **{kind: counts[kind][task] for kind in counts}}) for task in forecast.thresholds
    ]
    return {
        "summary": f"{forecast.architecture}: {forecast.predicted:,} of {forecast.rows:,} rows predicted; "
        f"{sum(counts[FOUND].values())} onsets found, {sum(counts[MISSED].values())} missed, "
        f"{sum(counts[FALSE].values())} false alarms. {forecast.chosen}",
        "network": forecast.architecture,
        "checkpoint": forecast.checkpoint[:12],
        "at_budget": dg.MetadataValue.table(table),
    }
