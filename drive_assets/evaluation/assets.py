"""checkpoint -> metrics and plots"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from drive_assets.asset import asset, bound_checks
from drive_assets.conditions import when_inputs_are_there
from drive_assets.evaluation.checks import calibrated, enough_events
from drive_assets.partitions import ARCHITECTURE_PARTITIONS
from drive_assets.reports.links import report_link
from drive_assets.resources.compute import Compute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_result, fail_on_data_error, partition_keys
from drive_assets.running.launchpad import Launchpad
from drive_assets.splits.manifest import current_version, recorded_version
from drive_assets.tasks import EVALUATE, EvaluateJob
from drive_assets.training.assets import training_key
from model.common.code import code_version
from model.common.errors import DataError
from model.common.files import sha256
from model.common.pages import UNDEFINED, number
from model.evaluation.config import EvaluationConfig
from model.evaluation.results import CALIBRATION, EVALUATION, EVENTS, REPORT, SHOWN_FIGURES, Evaluation, TaskFigures
from model.training.published import BEST, HISTORY, read_history

PLOTS = ("pr_curves", "roc_curves", "reliability", "score_distributions", "confusion", "timeline", "alarm_curves")
SCORED_BY = tuple(f"model.evaluation.{name}" for name in ("alarms", "calibration", "events", "measures", "scoring"))
"""Modules that determine the figures."""


class EvaluationLaunchpad(EvaluationConfig, Launchpad):
    """How checkpoints are scored."""


@asset(
    group_name="7_evaluation",
    deps=[
        "checkpoint",
        dg.AssetDep("h5_split", partition_mapping=dg.SpecificPartitionsPartitionMapping(["val", "test"])),
    ],
    partitions_def=ARCHITECTURE_PARTITIONS,
    output=lambda storage, name: storage.evaluation(name) / EVALUATION,
    page=lambda storage, name: storage.evaluation(name) / REPORT,
    checks=[enough_events, calibrated],
    data_version=recorded_version,
    quick={"bootstrap_samples": 500},
    automation_condition=when_inputs_are_there(later=dg.AssetSelection.assets("h5_split")),
    pool="gpu",
    code_version=code_version(*SCORED_BY),
    kinds={"pytorch", "mlflow"},
)
def evaluation(
    context: dg.AssetExecutionContext,
    config: EvaluationLaunchpad,
    storage: Storage,
    compute: Compute,
    mlflow: Mlflow,
) -> Iterator[Event]:
    """How well a network predicts on unseen drives. **In:** its checkpoint, val and test. **Out:** figures on test at
    thresholds chosen on val, with intervals; onsets alone, alarms by budget, and the worst misses with their frames."""
    with fail_on_data_error(context):
        version = current_version(storage)
    jobs = [
        EvaluateJob(
            name,
            storage.checkpoint(name) / "best_model.pt",
            storage.splits,
            storage.evaluation(name),
            config,
            recordings=storage.recordings,
            data_version=version,
        )
        for name in partition_keys(context)
    ]

    def scored(name: str, metrics_path: Path) -> dg.MaterializeResult:
        metrics = Evaluation.read(metrics_path)
        _log_to_mlflow(storage, mlflow, name, metrics)
        return _result(storage, name, metrics)

    results = compute.run_each(context, EVALUATE, jobs)
    yield from each_result(context, results, scored, bound_checks(context, storage))


def _log_to_mlflow(storage: Storage, mlflow: Mlflow, name: str, metrics: Evaluation) -> None:
    """Log to the run of the training, so that one row in MLflow describes a variant."""
    run_id = mlflow.find(key_of_checkpoint(storage, name))
    if run_id is None:
        return
    figures = {
        f"test_{figure}_{task}": getattr(metrics.test[task], figure)
        for task in metrics.tasks
        for figure in SHOWN_FIGURES
    }
    onsets = {f"test_onset_pr_auc_{task}": metrics.test[task].onset.pr_auc for task in metrics.tasks}
    means = {"test_mean_pr_auc": metrics.test.mean_pr_auc, "test_mean_onset_pr_auc": metrics.test.mean_onset_pr_auc}
    mlflow.log_figures(run_id, figures | onsets | means)
    folder = storage.evaluation(name)
    files = [EVALUATION, REPORT, EVENTS, *(f"{plot}.png" for plot in PLOTS)]
    mlflow.log_files(run_id, [folder / name for name in files], "evaluation")
    mlflow.log_files(run_id, [storage.checkpoint(name) / CALIBRATION], "checkpoint")


def _result(storage: Storage, name: str, metrics: Evaluation) -> dg.MaterializeResult:
    folder = storage.evaluation(name)
    table = [_task_record(task, metrics.test[task]) for task in metrics.tasks]
    return dg.MaterializeResult(
        metadata={
            "report": report_link("evaluation", name),
            "test": dg.MetadataValue.table(table),
            **_numbers(metrics),
            **({"camera": metrics.camera} if metrics.camera else {}),
            "path": dg.MetadataValue.path(folder),
        },
    )


def _numbers(metrics: Evaluation) -> dict[str, float | int]:
    """Figures that the UI plots over time, under stable names; undefined ones are omitted."""
    test = metrics.test
    found: dict[str, float | int | None] = {
        "mean_pr_auc": test.mean_pr_auc,
        "mean_onset_pr_auc": test.mean_onset_pr_auc,
        "windows": test[metrics.tasks[0]].windows,
    }
    for task in metrics.tasks:
        events = test[task].events
        found |= {
            f"pr_auc_{task}": test[task].pr_auc,
            f"onset_pr_auc_{task}": test[task].onset.pr_auc,
            f"events_{task}": test[task].event_count,
            f"foreseen_{task}": events.recall if events else None,
            f"false_alarms_per_hour_{task}": events.false_alarms_per_hour if events else None,
            f"calibration_error_{task}": test[task].calibration_error,
        }
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def _task_record(task: str, figures: TaskFigures) -> dg.TableRecord:
    """Events first; the report has all figures."""
    events = figures.events
    lead = events.lead_time_s[1] if events and events.lead_time_s else None
    return dg.TableRecord(
        {
            "task": task,
            "foreseen": f"{events.foreseen} of {events.events}" if events else UNDEFINED,
            "false alarms an hour": number(events.false_alarms_per_hour if events else None, 1),
            "lead, s": number(lead, 1),
            "onset PR-AUC": number(figures.onset.pr_auc),
            "PR-AUC": number(figures.pr_auc),
            "interval": " to ".join(number(value) for value in figures.pr_auc_interval or [None]),
            "random": number(figures.random_pr_auc),
        }
    )


def key_of_checkpoint(storage: Storage, architecture: str) -> str:
    """The training key of the checkpoint on disk.

    Raises:
        DataError: its history cannot be read, was edited, or belongs to other weights: publishing was interrupted.
    """
    folder = storage.checkpoint(architecture)
    history = read_history(folder)
    if history["made"]["weights"] != sha256(folder / BEST):
        raise DataError(
            f"{folder / HISTORY} belongs to other weights than {BEST}: materialise checkpoint for {architecture} again."
        )
    return training_key(architecture, history["data_version"], history["training_config"])
