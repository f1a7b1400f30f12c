"""all evaluations -> the comparison; the best model that is shown to be one -> MLflow's registry"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from drive_assets.asset import asset
from drive_assets.conditions import once_inputs_settle
from drive_assets.evaluation.assets import evaluation, key_of_checkpoint
from drive_assets.reports.links import report_link
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import Count, setting
from drive_assets.splits.manifest import read_manifest, recorded_version
from drive_assets.tasks import EVALUATE, EvaluateJob
from model.common.errors import DataError
from model.common.pages import number
from model.dataset.split_file import read_split
from model.evaluation.results import CALIBRATION, COMPARISON, EVALUATION, Comparison, Evaluation, Row
from model.network.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from drive_assets.resources.mlflow.registry import TrainedModel
    from model.evaluation.best import Best

FRESH_DAYS = setting("DRIVE_ASSETS_COMPARISON_DAYS", Count, 30)
"""The UI shows an older comparison as overdue."""
REGISTERED_MODEL = "drive-assets"


@asset(
    group_name="7_evaluation",
    deps=[evaluation],
    output=lambda storage: storage.evaluations / COMPARISON,
    page=lambda storage: storage.evaluations / "comparison.html",
    data_version=lambda storage: recorded_version(storage.evaluations / COMPARISON),
    automation_condition=once_inputs_settle(),
    code_version="2",
    kinds={"html", "mlflow"},
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=FRESH_DAYS)),
)
def model_comparison(
    context: dg.AssetExecutionContext, storage: Storage, compute: LocalCompute, mlflow: Mlflow
) -> dg.MaterializeResult:
    """All evaluated networks side by side, with baselines that need no network. **In:** the evaluations of the current
    data version. **Out:** a page, a table, and the alias `best` in MLflow's registry for the network chosen on val, if
    it is shown to be better than the baselines and the previous holder."""
    from model.evaluation.baselines import evaluate_baselines  # scikit-learn would weigh on the code server
    from model.evaluation.comparison import BASELINE_FOLDER, compare

    version = read_manifest(storage)["fingerprint"]
    found, missing = _evaluations(storage, version)
    for name, reason in missing.items():
        context.log.warning(f"{name} is left out: {reason}")
    try:
        baselines: dict[str, Evaluation] = {}
        if found:
            first = next(iter(found.values()))
            folder = storage.evaluations / BASELINE_FOLDER
            tasks, config = tuple(first.tasks), first.evaluation_config
            baselines = evaluate_baselines(storage.splits, folder, tasks, version, config)
        content = compare(found, storage.evaluations, baselines, missing)
        kept = _keep_the_best(context, storage, compute, mlflow, content, found[content.best])
    except DataError as error:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in missing.items())
        raise dg.Failure(f"{error}\n{reasons}", allow_retries=False) from error
    return dg.MaterializeResult(metadata=_metadata(storage, content, kept))


def _keep_the_best(
    context: dg.AssetExecutionContext,
    storage: Storage,
    compute: LocalCompute,
    mlflow: Mlflow,
    content: Comparison,
    evaluation: Evaluation,
) -> dict[str, Any]:
    """Let the comparison's best take the incumbent's place where it is shown to be better; what the metadata says."""
    from model.evaluation import best
    from model.evaluation.comparison import KEPT

    output, weights = storage.evaluations, storage.checkpoint(content.best) / best.WEIGHTS
    unscored = _score_incumbent(context, storage, compute, content, evaluation)
    verdict = best.judge(content, output, weights, unscored)
    context.log.info(verdict.reason)
    key = key_of_checkpoint(storage, content.best)
    holder = best.promote(evaluation, output, weights, key) if verdict.promoted else best.incumbent(output)
    page = dg.MetadataValue.url(mlflow.page(mlflow.prepared()))
    metadata: dict[str, Any] = {"verdict": verdict.reason, "promoted": verdict.promoted, "mlflow": page}
    if (run_id := mlflow.find(key)) is not None:
        mlflow.log_files(run_id, sorted((output / KEPT / content.data_version).glob("comparison.*")), "comparison")
    if holder is not None and (run_id := mlflow.find(holder.training_key)) is not None:
        kept = mlflow.register_best(REGISTERED_MODEL, run_id, _trained_model(storage, holder, verdict.reason))
        metadata["registered"] = f"{REGISTERED_MODEL} version {kept}"
    return metadata


def _trained_model(storage: Storage, holder: "Best", reason: str) -> "TrainedModel":
    """What MLflow is told of the best model; the example is the first window of test."""
    from drive_assets.resources.mlflow.registry import TrainedModel
    from model.evaluation import best

    folder = holder.folder(storage.evaluations)
    evaluated, test = Evaluation.read(folder / EVALUATION), read_split(storage.split("test"))
    rows = np.arange(test.window.length) + test.window_start[0]
    example = {
        "telemetry": test.telemetry[rows][None],
        "detections": test.detections[rows][None],
        "detection_mask": test.detection_mask[rows][None],
        "region": test.region[test.recording[rows[:1]]],
    }
    figures = {
        "test_mean_pr_auc": evaluated.test.mean_pr_auc,
        "test_mean_onset_pr_auc": evaluated.test.mean_onset_pr_auc,
    }
    tags = {"architecture": holder.architecture, "data_version": holder.data_version}
    return TrainedModel(
        name=holder.architecture,
        checkpoint=holder.checkpoint,
        files=[folder / best.WEIGHTS, folder / CALIBRATION],
        example=example,
        tasks=evaluated.tasks,
        tags={**tags, **{name: number(value, 4) for name, value in figures.items()}},
        figures=figures,
        description=f"{holder.architecture}, trained on data version {holder.data_version}: mean PR-AUC "
        f"{number(evaluated.test.mean_pr_auc, 3)} on test. {reason}.",
    )


def _score_incumbent(
    context: dg.AssetExecutionContext, storage: Storage, compute: LocalCompute, content: Comparison, of: Evaluation
) -> str | None:
    """Score the best model so far on the data of a comparison, unless it is; why that was not possible, if so."""
    from model.evaluation import best

    holder = best.incumbent(storage.evaluations)
    if holder is None or best.scored_on(holder, storage.evaluations) == content.data_version:
        return None
    folder = holder.folder(storage.evaluations)
    config = of.evaluation_config.replace(device="cpu")  # this step holds no slot of the GPU
    job = EvaluateJob(holder.architecture, folder / best.WEIGHTS, storage.splits, folder, config, other_data=True)
    (result,) = compute.run(context, EVALUATE, [job])
    return str(result) if isinstance(result, DataError) else None


def _evaluations(storage: Storage, version: str) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """The evaluations of a data version by architecture, and why others are left out."""
    found: dict[str, Evaluation] = {}
    missing: dict[str, str] = {}
    for name in ARCHITECTURES:
        path = storage.evaluation(name) / EVALUATION
        if not path.is_file():
            missing[name] = "not evaluated."
            continue
        try:
            metrics = Evaluation.read(path)
        except DataError as error:
            missing[name] = str(error)
            continue
        if metrics.data_version == version:
            found[name] = metrics
        else:
            missing[name] = "of older splits: train and evaluate again."
    return found, missing


def _metadata(storage: Storage, content: Comparison, kept: dict[str, Any]) -> dict[str, Any]:
    rows = [*content.variants, *content.baselines]
    missing = f"left out: {', '.join(content.missing)}; " if content.missing else ""
    return {
        "report": report_link("model_comparison"),
        "summary": f"{missing}{content.best} is the best of {len(content.variants)} by {content.chosen_by}; "
        f"{kept['verdict']}",
        "best": content.best,
        "left_out": dg.MetadataValue.json(content.missing),
        "compared": len(content.variants),
        **_numbers(content),
        "no_better_than_a_baseline": [row.architecture for row in content.variants if not row.beats_baseline],
        "table": dg.MetadataValue.table([_record(row) for row in rows]),
        "path": dg.MetadataValue.path(storage.evaluations / "comparison.html"),
        **kept,
    }


def _numbers(content: Comparison) -> dict[str, float]:
    """What the UI plots over time: of the best, and of the best baseline."""
    best = content.variants[0]
    baseline = next((row for row in content.baselines if row.architecture == content.best_baseline), None)
    found = {
        "best_val_mean_pr_auc": best.val_mean_pr_auc,
        "best_test_mean_pr_auc": best.test_mean_pr_auc,
        "best_test_mean_onset_pr_auc": best.test_mean_onset_pr_auc,
        "baseline_test_mean_pr_auc": baseline.test_mean_pr_auc if baseline else None,
        "baseline_test_mean_onset_pr_auc": baseline.test_mean_onset_pr_auc if baseline else None,
    }
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def _record(row: Row) -> dg.TableRecord:
    marks = {None: "", True: "yes", False: "no"}
    return dg.TableRecord(
        {
            "rank": row.rank,
            "model": row.architecture,
            "beats baselines": "baseline" if row.difference_to_baseline is None else marks[row.beats_baseline],
            "beats them at onsets": marks[row.beats_baseline_onset],
            "val mean": number(row.val_mean_pr_auc),
            "test mean": number(row.test_mean_pr_auc),
            "onset test mean": number(row.test_mean_onset_pr_auc),
        }
    )
