"""splits -> checkpoint of one architecture"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from drive_assets.batches import TRIES_TAG, Event, each_result
from drive_assets.launchpad import Launchpad
from drive_assets.manifest import read_current_manifest
from drive_assets.partitions import ARCHITECTURE_PARTITIONS
from drive_assets.reports.links import report_link
from drive_assets.resources.compute import Compute
from drive_assets.resources.mlflow import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.tasks import TRAIN, TrainJob
from drive_assets.tracking import TrackedRuns, tracked
from drive_assets.versions import code_version
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import sha256
from model.training.published import BEST, PUBLISHED
from model.training.recipes import RECIPES, TrainingConfig
from model.training.result import TrainingResult

LEARNT_BY = (
    "model.recording.schema",
    "model.dataset.features",
    *(f"model.network.{name}" for name in ("attention", "decoders", "derived", "encoders", "fusions")),
    *(f"model.training.{name}" for name in ("loss", "recipes", "schedule")),
)
"""Modules that decide on what is learnt; not the loop, which changes for speed."""


class TrainingLaunchpad(TrainingConfig, Launchpad):
    """The recipe. Defaults are the reference recipe."""

    recipe: Literal["reference", "best"] = Field(
        "reference", description="Recipe by name; an option that the run's config gives overrides it"
    )
    train_anew: bool = Field(
        False,
        description="Train though the same architecture was trained on the same data with the same options; otherwise "
        "that training is taken over, and only what MLflow lacks is logged",
    )

    def training_config(self, given: Iterable[str]) -> TrainingConfig:
        """The recipe with the options `given`. Options that are not keep what they are in the recipe."""
        options = TrainingConfig.model_fields.keys() & set(given)
        return RECIPES[self.recipe].replace(**{name: getattr(self, name) for name in options})


def training_key(architecture: str, data_version: str, recipe: dict[str, Any]) -> str:
    """What was trained on what: names the MLflow run."""
    return f"{architecture}/{data_version}/{fingerprint(recipe)}"


@dg.asset(
    deps=[dg.AssetDep("h5_split", partition_mapping=dg.SpecificPartitionsPartitionMapping(["train", "val"]))],
    partitions_def=ARCHITECTURE_PARTITIONS,
    pool="gpu",
    retry_policy=dg.RetryPolicy(max_retries=2),
    group_name="training",
    code_version=code_version(*LEARNT_BY),
    kinds={"pytorch", "mlflow"},
)
def checkpoint(
    context: dg.AssetExecutionContext,
    config: TrainingLaunchpad,
    storage: Storage,
    compute: Compute,
    mlflow: Mlflow,
) -> Iterator[Event]:
    """One architecture, trained: its best weights, the latest checkpoint and the history."""
    try:
        manifest = read_current_manifest(storage)
        chosen = config.training_config(_given(context))
    except DataError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    version = manifest["fingerprint"]
    names, recipe = context.partition_keys, chosen.model_dump(mode="json")
    keys = [training_key(name, version, recipe) for name in names]
    # What failed after the training, such as logging it, is no reason to train for a second time.
    anew = config.train_anew and context.retry_number == 0 and TRIES_TAG not in context.run.tags
    with tracked(context, mlflow, keys, names, [recipe] * len(names)) as runs:
        profile = {name: part["windows"] for name, part in manifest["splits"].items()}
        for run_id in runs.ids:
            mlflow.log_dataset(run_id, "multimodal", version, str(storage.splits), profile)
        jobs = [
            TrainJob(name, storage.splits, storage.checkpoint(name), chosen, version, run_id, anew)
            for name, run_id in zip(names, runs.ids, strict=True)
        ]
        results = _logged(compute.run_each(context, TRAIN, jobs, mlflow.env), jobs, mlflow, runs)
        yield from each_result(context, results, partial(_result, storage, dict(zip(names, runs.ids, strict=True))))


def _logged(
    results: Iterable[tuple[int, TrainingResult | DataError]],
    jobs: Sequence[TrainJob],
    mlflow: Mlflow,
    runs: TrackedRuns,
) -> Iterator[tuple[int, TrainingResult | DataError]]:
    """The same, each once its MLflow run has all that it made, and has ended."""
    for number, result in results:
        run_id, folder = runs.ids[number], jobs[number].output
        try:
            if not isinstance(result, DataError):
                mlflow.log_history(run_id, result.history)
                mlflow.log_files(run_id, [folder / file for file in PUBLISHED], "checkpoint")
            runs.end(run_id, failed=isinstance(result, DataError))
        except DataError as error:  # of the store: the other trainings go on
            yield number, error
        else:
            yield number, result


def _given(context: dg.AssetExecutionContext) -> Iterable[str]:
    """Names of the options that the run's config gives: Dagster fills in the defaults of all others."""
    ops: Any = context.run.run_config.get("ops", {})
    given: dict[str, Any] = ops.get(context.op_def.name, {}).get("config", {})
    return given


def _result(storage: Storage, runs: Mapping[str, str], name: str, result: TrainingResult) -> dg.MaterializeResult:
    folder = storage.checkpoint(name)
    version = sha256(folder / BEST)[:12]
    best = {key: value for key, value in result.best_metrics.items() if key.startswith("val_") and value is not None}
    words = "already trained on the same data with the same options (train_anew trains again)"
    how = words if result.taken_over else f"resumed from epoch {done}" if (done := result.resumed_from) else "trained"
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata={
            "report": report_link("checkpoint", name, version),
            "summary": f"{how}; {len(result.history)} epochs, best is {result.best_epoch}",
            "best_epoch": result.best_epoch,
            "epochs": len(result.history),
            "resumed_from": result.resumed_from,
            **{key: float(value) for key, value in best.items()},
            "parameters": result.parameters,
            "windows_per_s": round(result.windows_per_s, 1),
            "device": f"{result.device}, {result.precision}",
            "mlflow_run": runs[name],
            "path": dg.MetadataValue.path(folder),
        },
    )
