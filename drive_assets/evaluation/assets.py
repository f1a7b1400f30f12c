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
from model.common.pages import number
from model.evaluation.config import EvaluationConfig
from model.evaluation.results import CALIBRATION, EVALUATION, EVENTS, REPORT, SHOWN_FIGURES, Evaluation, TaskFigures
from model.training.published import BEST, HISTORY, read_history

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
            storage.checkpoint(name) / BEST,
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
    figures = {"test_mean_pr_auc": metrics.test.mean_pr_auc, "test_mean_onset_pr_auc": metrics.test.mean_onset_pr_auc}
    for task in metrics.tasks:
        figures[f"test_onset_pr_auc_{task}"] = metrics.test[task].onset.pr_auc
        figures |= {f"test_{name}_{task}": getattr(metrics.test[task], name) for name in SHOWN_FIGURES}
    mlflow.log_figures(run_id, figures)
    folder = storage.evaluation(name)
    files = [folder / EVALUATION, folder / REPORT, folder / EVENTS, *sorted(folder.glob("*.png"))]
    mlflow.log_files(run_id, files, "evaluation")
    mlflow.log_files(run_id, [storage.checkpoint(name) / CALIBRATION], "checkpoint")


def _result(storage: Storage, name: str, metrics: Evaluation) -> dg.MaterializeResult:
    """Figures of each task in a table, and under names of their own, by which the UI plots them over time."""
    test = metrics.test
    tasks = {task: _task_figures(test[task]) for task in metrics.tasks}
    numbers = {"mean_pr_auc": test.mean_pr_auc, "mean_onset_pr_auc": test.mean_onset_pr_auc}
    numbers |= {f"{of}_{task}": value for task, figures in tasks.items() for of, value in figures.items()}
    rows = {
        task: {of: value if isinstance(value, int) else number(value) for of, value in figures.items()}
        for task, figures in tasks.items()
    }
    return dg.MaterializeResult(
        metadata={
            "report": report_link("evaluation", name),
            "test": dg.MetadataValue.table([dg.TableRecord({"task": task, **row}) for task, row in rows.items()]),
            **{of: round(value, 4) for of, value in numbers.items() if value is not None},
            "windows": test[metrics.tasks[0]].windows,
            **({"camera": metrics.camera} if metrics.camera else {}),
            "path": dg.MetadataValue.path(storage.evaluation(name)),
        },
    )


def _task_figures(figures: TaskFigures) -> dict[str, float | None]:
    """Events first; the report has all figures."""
    at_best_f1 = figures.events
    lead = at_best_f1.lead_time_s if at_best_f1 else None
    return {
        "events": figures.event_count,
        "foreseen": at_best_f1.recall if at_best_f1 else None,
        "false_alarms_per_hour": at_best_f1.false_alarms_per_hour if at_best_f1 else None,
        "lead_s": lead[1] if lead else None,
        "onset_pr_auc": figures.onset.pr_auc,
        "pr_auc": figures.pr_auc,
        "random_pr_auc": figures.random_pr_auc,
        "calibration_error": figures.calibration_error,
    }


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
