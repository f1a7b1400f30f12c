"""checkpoint -> metrics and plots; all evaluations -> comparison"""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg

from drive_assets.batches import Event, Outcome, report_partitions
from drive_assets.manifest import read_manifest
from drive_assets.partitions import ARCHITECTURE_PARTITIONS
from drive_assets.pictures import LIMIT_BYTES, inline_image
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.tasks import EVALUATE, EvaluateJob
from drive_assets.training.assets import training_key
from model.common.errors import DataError
from model.common.images import read_image, small_jpeg
from model.evaluation.config import EvaluationConfig
from model.evaluation.pages import UNDEFINED, number
from model.evaluation.results import EVALUATION, Evaluation, Row, TaskFigures
from model.network.architectures import ARCHITECTURES

REGISTERED_MODEL = "drive-assets"
PLOTS = ("pr_curves", "roc_curves", "reliability", "score_distributions", "confusion", "timeline")
FIGURES = ("pr_auc", "roc_auc", "f1", "mcc", "balanced_accuracy", "brier", "calibration_error")


class EvaluationLaunchpad(EvaluationConfig, dg.Config):
    """How a checkpoint is scored."""


@dg.asset(
    deps=[
        "checkpoint",
        dg.AssetDep("h5_split", partition_mapping=dg.SpecificPartitionsPartitionMapping(["val", "test"])),
    ],
    partitions_def=ARCHITECTURE_PARTITIONS,
    automation_condition=dg.AutomationCondition.eager().ignore(dg.AssetSelection.assets("h5_split")),
    pool="gpu",
    group_name="evaluation",
    code_version="1",
    kinds={"pytorch", "mlflow"},
)
def evaluation(
    context: dg.AssetExecutionContext,
    config: EvaluationLaunchpad,
    storage: Storage,
    compute: LocalCompute,
    mlflow: Mlflow,
) -> Iterator[Event]:
    """Figures of one architecture on test, at thresholds chosen on val, with intervals and plots."""
    jobs = [
        EvaluateJob(name, storage.checkpoint(name) / "best_model.pt", storage.splits, storage.evaluation(name), config)
        for name in context.partition_keys
    ]
    outcomes: dict[str, Outcome] = {}
    for name, result in zip(context.partition_keys, compute.run(context, EVALUATE, jobs), strict=True):
        if isinstance(result, DataError):
            outcomes[name] = result
        else:
            _log_to_mlflow(storage, mlflow, name, result)
            outcomes[name] = _result(storage, name, result)
    yield from report_partitions(context, outcomes)


@dg.asset(deps=[evaluation], group_name="evaluation", code_version="1", kinds={"html", "mlflow"})
def model_comparison(context: dg.AssetExecutionContext, storage: Storage, mlflow: Mlflow) -> dg.MaterializeResult:
    """All evaluated architectures side by side; the best by val gets the alias `best` in MLflow's registry."""
    from model.evaluation.comparison import compare  # scikit-learn would weigh on the code server

    version = read_manifest(storage)["fingerprint"]
    found, left_out = _evaluations(storage, version)
    for name, reason in left_out.items():
        context.log.warning(f"{name} is left out: {reason}")
    try:
        content = compare(found, storage.evaluations)
    except DataError as error:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in left_out.items())
        raise dg.Failure(f"{error}\n{reasons}", allow_retries=False) from error
    best = content.best
    run_id = mlflow.find(_key_of(storage, best))
    metadata: dict[str, Any] = {}
    if run_id is not None:
        weights = storage.checkpoint(best) / "best_model.pt"
        text = f"{best}, best of {len(found)} by mean PR-AUC on val"
        metadata["registered"] = (
            f"{REGISTERED_MODEL} version {mlflow.register_best(REGISTERED_MODEL, run_id, weights, text)}"
        )
        mlflow.log_files(run_id, sorted(storage.evaluations.glob("comparison.*")), "comparison")
    table = [_comparison_record(row, content.tasks) for row in content.variants]
    picture = small_jpeg(read_image(storage.evaluations / "comparison.png"), LIMIT_BYTES * 3 // 4)
    return dg.MaterializeResult(
        metadata={
            "summary": f"{best} is the best of {len(found)} by mean PR-AUC on val"
            + (f"; left out: {', '.join(left_out)}" if left_out else ""),
            "best": best,
            "left_out": dg.MetadataValue.json(left_out),
            "compared": len(found),
            "table": dg.MetadataValue.table(table),
            "figure": inline_image(picture, "jpeg"),
            "page": dg.MetadataValue.path(storage.evaluations / "comparison.html"),
            **metadata,
        },
    )


def _evaluations(storage: Storage, version: str) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """The evaluations of a data version by architecture, and why others are left out."""
    found: dict[str, Evaluation] = {}
    left_out: dict[str, str] = {}
    for name in ARCHITECTURES:
        path = storage.evaluation(name) / EVALUATION
        if not path.is_file():
            left_out[name] = "not evaluated."
            continue
        try:
            metrics = Evaluation.read(path)
        except DataError as error:
            left_out[name] = str(error)
            continue
        if metrics.data_version == version:
            found[name] = metrics
        else:
            left_out[name] = "of older splits: train and evaluate again."
    return found, left_out


def _comparison_record(row: Row, tasks: list[str]) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "rank": row.rank,
            "architecture": row.architecture,
            "val mean": _text(row.val_mean_pr_auc),
            "test mean": _text(row.test_mean_pr_auc),
            "onset test mean": _text(row.test_mean_onset_pr_auc),
            **{task: _text(row.test[task].pr_auc) for task in tasks},
        }
    )


def _key_of(storage: Storage, architecture: str) -> str:
    """The training key of the checkpoint on disk."""
    history = json.loads((storage.checkpoint(architecture) / "training_history.json").read_text(encoding="utf-8"))
    return training_key(architecture, history["data_version"], history["training_config"])


def _log_to_mlflow(storage: Storage, mlflow: Mlflow, name: str, metrics: Evaluation) -> None:
    """Into the run of the training, so that one row in MLflow tells all of a variant."""
    run_id = mlflow.find(_key_of(storage, name))
    if run_id is None:
        return
    figures = {
        f"test_{figure}_{task}": getattr(metrics.test[task], figure) for task in metrics.tasks for figure in FIGURES
    }
    onsets = {f"test_onset_pr_auc_{task}": metrics.test[task].onset.pr_auc for task in metrics.tasks}
    means = {"test_mean_pr_auc": metrics.test.mean_pr_auc, "test_mean_onset_pr_auc": metrics.test.mean_onset_pr_auc}
    mlflow.log_figures(run_id, figures | onsets | means)
    folder = storage.evaluation(name)
    mlflow.log_files(run_id, [folder / EVALUATION, *(folder / f"{plot}.png" for plot in PLOTS)], "evaluation")


def _result(storage: Storage, name: str, metrics: Evaluation) -> dg.MaterializeResult:
    folder = storage.evaluation(name)
    table = [_task_record(task, metrics.test[task]) for task in metrics.tasks]
    plots = {plot: small_jpeg(read_image(folder / f"{plot}.png"), LIMIT_BYTES // 2) for plot in PLOTS}
    return dg.MaterializeResult(
        metadata={
            "test": dg.MetadataValue.table(table),
            **{plot: inline_image(content, "jpeg") for plot, content in plots.items()},
            "path": dg.MetadataValue.path(folder),
        },
    )


def _task_record(task: str, figures: TaskFigures) -> dg.TableRecord:
    events = figures.events
    lead = events.lead_time_s[1] if events and events.lead_time_s else None
    return dg.TableRecord(
        {
            "task": task,
            "random": _text(figures.random_pr_auc),
            **{name: _text(getattr(figures, name)) for name in FIGURES},
            "interval": " to ".join(_text(value) for value in figures.pr_auc_interval or [None]),
            "onset pr_auc": _text(figures.onset.pr_auc),
            "onset interval": " to ".join(_text(value) for value in figures.onset.pr_auc_interval or [None]),
            "foreseen": f"{events.foreseen} of {events.events}" if events else UNDEFINED,
            "lead, s": number(lead, 1),
            "false alarms an hour": number(events.false_alarms_per_hour if events else None, 1),
        }
    )


def _text(value: float | None) -> str:
    return number(value, 4)
