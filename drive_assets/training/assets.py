"""splits -> checkpoint of one architecture"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from drive_assets.asset import Column, asset, bound_checks
from drive_assets.partitions import ARCHITECTURE_PARTITIONS
from drive_assets.reports.links import base_url, report_link
from drive_assets.reports.models import checkpoint_page
from drive_assets.reports.page import html
from drive_assets.resources.compute import Compute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import DAGSTER_RUN, GROUP, TrackedRun, UsedData
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_result, fail_on_data_error, partition_keys, warn
from drive_assets.running.interrupts import fail_when_terminated
from drive_assets.running.launchpad import Launchpad
from drive_assets.splits.manifest import read_current_manifest, recorded_version
from drive_assets.tasks import TRAIN, TrainJob
from drive_assets.training.checks import finite_history, learnt_something, no_worse_than_before
from model.common.code import code_version
from model.common.config import changed_options, fingerprint
from model.common.errors import DataError
from model.common.files import sha256
from model.training.published import (
    BEST,
    HISTORY,
    LEARNT_BY,
    PUBLISHED,
    TrainingResult,
    decline,
    hold,
    read_history,
    restore_previous,
)
from model.training.recipes import RECIPES, TrainingConfig


class _WithBestDefaults(Launchpad):
    """The launchpad shows the options of `best`, the default recipe."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        for name, value in RECIPES["best"]:
            cls.model_fields[name].default = value
        cls.model_rebuild(force=True)  # Dagster leaves out what equals the default, which pydantic then fills in
        super().__pydantic_init_subclass__(**options)


class TrainingLaunchpad(TrainingConfig, _WithBestDefaults):
    """How a network is trained."""

    recipe: Literal["reference", "best"] = Field(
        "best",
        description="Recipe for all options that the run's config does not give; defaults shown are those of best",
    )
    train_anew: bool = Field(
        False,
        description="Train again although this architecture was trained by this code on the same data with the same "
        "options; otherwise that result is reused, and only missing metrics are logged to MLflow",
    )
    keep_better: bool = Field(
        False,
        description="Keep the published checkpoint if the new one has a lower mean PR-AUC on val, on the same data and "
        "tasks; the folder previous then holds the new one, instead of the one that was replaced",
    )

    def training_config(self, given: Iterable[str]) -> TrainingConfig:
        """The recipe with the options `given`; others keep the recipe's values."""
        options = TrainingConfig.model_fields.keys() & set(given)
        return RECIPES[self.recipe].replace(**{name: getattr(self, name) for name in options})

    def name_of(self, chosen: TrainingConfig) -> str:
        """The recipe's name, and whether options were changed."""
        return self.recipe if chosen == RECIPES[self.recipe] else f"{self.recipe} changed"


def training_key(architecture: str, data_version: str, recipe: dict[str, Any]) -> str:
    """Identifies a training by architecture, data and options; names its MLflow run."""
    return f"{architecture}/{data_version}/{fingerprint(recipe)}"


COLUMNS: list[Column] = [
    ("epoch", "int", "from 0; pages, logs and MLflow count from 1"),
    ("train_loss", "float", "mean weighted loss over the tasks"),
    ("val_loss", "float", "the same on val"),
    ("val_pr_auc_mean", "float", "decides which epoch is best"),
    ("val_pr_auc_<task>", "float", "area under the precision-recall curve on val"),
]


@asset(
    group_name="6_training",
    deps=[dg.AssetDep("h5_split", partition_mapping=dg.SpecificPartitionsPartitionMapping(["train", "val"]))],
    partitions_def=ARCHITECTURE_PARTITIONS,
    output=lambda storage, name: storage.checkpoint(name) / BEST,
    page=checkpoint_page,
    checks=[finite_history, learnt_something, no_worse_than_before],
    columns=COLUMNS,
    data_version=lambda path: recorded_version(path.with_name(HISTORY)),
    quick={"epochs": 12, "batch_size": 128},
    pool="gpu",
    retry_policy=dg.RetryPolicy(max_retries=2),
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
    """One of twelve networks, trained. **In:** train and val. **Out:** the weights of the best epoch on val, the latest
    checkpoint to resume from, and the history; the MLflow run has the same. **Uses a GPU** if there is one."""
    with fail_when_terminated(), mlflow.ended(context.run_id):
        with fail_on_data_error(context):
            chosen = config.training_config(_given(context))
            version, runs = _runs(context, config.name_of(chosen), chosen, storage, mlflow)
            _warn_of_changes(context, chosen, storage)
        # A failure after the training, such as in logging, is no reason to train again.
        anew = config.train_anew and context.retry_number == 0
        jobs = [
            TrainJob(name, storage.splits, storage.checkpoint(name), chosen, version, run, anew)
            for name, run in runs.items()
        ]

        def trained(name: str, result: TrainingResult) -> dg.MaterializeResult:
            run = runs[name]
            run_id = mlflow.complete(run, result.history, result.resumed_from, result.duration_s)
            mlflow.log_best(run, run_id, result.best_metrics)
            mlflow.log_files(run_id, [storage.checkpoint(name) / file for file in PUBLISHED], "checkpoint")
            mlflow.log_page(run_id, html(checkpoint_page(storage, name), base_url()), "report.html")
            pages = {"mlflow": mlflow.page(run.experiment), "mlflow_run": mlflow.page(run.experiment, run_id)}
            shown: dict[str, Any] = {name: dg.MetadataValue.url(page) for name, page in pages.items()}
            if worse := decline(result.output):
                mlflow.log_figures(run_id, {"previous_val_pr_auc_mean": worse.before})
                shown["previous"] = f"{'kept' if config.keep_better else 'better than the new one'}: {worse}"
                if config.keep_better:
                    with hold(result.output):
                        restore_previous(result.output)
                    result = replace(result, identity="")  # describes the restored training from here on
            return _result(storage, name, result, shown)

        results = compute.run_each(context, TRAIN, jobs, mlflow.env)
        yield from each_result(context, results, trained, bound_checks(context, storage))


def _runs(
    context: dg.AssetExecutionContext, recipe: str, chosen: TrainingConfig, storage: Storage, mlflow: Mlflow
) -> tuple[str, dict[str, TrackedRun]]:
    """The data version of the splits, and the MLflow run of each training, which its worker opens."""
    manifest = read_current_manifest(storage)
    experiment = mlflow.prepared()
    mlflow.end_killed(context.instance)
    version, options = manifest["fingerprint"], chosen.model_dump(mode="json")
    profile = {name: part["windows"] for name, part in manifest["splits"].items()}
    data = UsedData("multimodal", version, str(storage.splits), profile)
    tags = {DAGSTER_RUN: context.run_id, "data_version": version, "recipe": recipe}
    key = f"{version}/{fingerprint(options)}"
    tags[GROUP] = mlflow.group(TrackedRun(experiment, key, f"{recipe} on {version}", options, dict(tags), data))
    runs = {}
    for name in partition_keys(context):
        of_training = {**tags, "architecture": name}
        key = training_key(name, version, options)
        runs[name] = TrackedRun(experiment, key, f"{name}, {recipe}", options, of_training, data)
    return version, runs


def _warn_of_changes(context: dg.AssetExecutionContext, chosen: TrainingConfig, storage: Storage) -> None:
    """Warn of options that differ from those of the published trainings, which will be replaced."""
    names = defaultdict(list)
    for name in partition_keys(context):
        with suppress(DataError):  # there is none, or it is damaged
            before = read_history(storage.checkpoint(name))["training_config"]
            names[changed_options(before, chosen.model_dump(mode="json"))].append(name)
    for changes in filter(None, names):
        warn(context, f"Replaces {', '.join(names[changes])}, with other options: {changes}")


def _given(context: dg.AssetExecutionContext) -> Iterable[str]:
    """Names of the options in the run's config: Dagster fills in the defaults of all others."""
    ops: Any = context.run.run_config.get("ops", {})
    return ops.get(context.op_def.name, {}).get("config", {})


def _result(storage: Storage, name: str, result: TrainingResult, more: Mapping[str, Any]) -> dg.MaterializeResult:
    folder, made, best_epoch = storage.checkpoint(name), result.record["made"], result.record["best_epoch"] + 1
    version = sha256(folder / BEST)[:12]
    best = {key: value for key, value in result.best_metrics.items() if key.startswith("val_") and value is not None}
    words = "already trained on the same data with the same options (train_anew trains again)"
    how = words if result.reused else f"resumed from epoch {done}" if (done := result.resumed_from) else "trained"
    previous = f"; the previous checkpoint was {more['previous']}" if "previous" in more else ""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata={
            "report": report_link("checkpoint", name, version),
            "summary": f"{how}; {len(result.history)} epochs, best is {best_epoch}{previous}",
            "best_epoch": best_epoch,
            "epochs": len(result.history),
            "resumed_from": result.resumed_from,
            **{key: float(value) for key, value in best.items()},
            "parameters": made["parameters"],
            "windows_per_s": round(made["windows_per_s"], 1),
            "device": f"{made['device']}, {made['precision']}",
            **more,
            "path": dg.MetadataValue.path(folder),
        },
    )
