"""All evaluations -> the comparison -> MLflow's registry, if the best model is shown to be better."""

import contextlib
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from drive_assets.asset import asset
from drive_assets.conditions import once_inputs_settle
from drive_assets.evaluation.assets import evaluation, key_of_checkpoint
from drive_assets.reports.links import report_link
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.registry import REGISTRY
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import Count, setting
from drive_assets.splits.manifest import read_manifest, recorded_version
from drive_assets.tasks import EVALUATE, EvaluateJob
from model.bundle.config import DESCRIPTION, MEASURED
from model.common.errors import DataError
from model.common.files import sha256
from model.common.pages import number
from model.dataset.split_file import read_split
from model.evaluation.config import EvaluationConfig
from model.evaluation.results import COMPARISON, EVALUATION, Comparison, Evaluation, Row
from model.network.architectures import ARCHITECTURES
from model.training.published import BEST, decline

if TYPE_CHECKING:
    from drive_assets.resources.mlflow.registry import Example
    from model.evaluation.best import Best, Verdict

FRESH_DAYS = setting("DRIVE_ASSETS_COMPARISON_DAYS", Count, 30)
"""The UI shows an older comparison as overdue."""
MEANS = ("val_mean_pr_auc", "test_mean_pr_auc", "test_mean_onset_pr_auc")
"""Figures of the best network and the best baseline that the UI plots over time, and of each model in its table."""


@asset(
    group_name="7_evaluation",
    deps=[evaluation],
    output=lambda storage: storage.evaluations / COMPARISON,
    page=lambda storage: storage.evaluations / "comparison.html",
    data_version=recorded_version,
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
    from model.evaluation import best  # scikit-learn is too heavy for the code server
    from model.evaluation.baselines import evaluate_baselines
    from model.evaluation.comparison import BASELINE_FOLDER, rank, write_comparison

    version, output = read_manifest(storage)["fingerprint"], storage.evaluations
    evaluations, missing = _evaluations(storage, version)
    for name, reason in missing.items():
        context.log.warning(f"{name} is left out: {reason}")
    try:
        first = next(iter(evaluations.values()), None)
        baselines = evaluate_baselines(storage.splits, output / BASELINE_FOLDER, first) if first else {}
        content = rank(evaluations, baselines, missing, output, _bundle_times(storage, list(evaluations)))
        winner, weights = evaluations[content.best], storage.checkpoint(content.best) / best.WEIGHTS
        unscored = _score_incumbent(context, storage, compute, version, winner.evaluation_config)
        verdict = best.judge(content, output, weights, unscored)
        declines = {name: decline(storage.checkpoint(name)) for name in evaluations}
        notes = [f"{name} replaced a better checkpoint: {worse}" for name, worse in declines.items() if worse]
        write_comparison(content, verdict, output, notes)
        key = key_of_checkpoint(storage, content.best)
        holder = best.promote(winner, output, weights, key) if verdict.promoted else best.incumbent(output)
        pages = _log_to_mlflow(storage, mlflow, content, key, holder, verdict.reason)
    except DataError as error:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in missing.items())
        raise dg.Failure(f"{error}\n{reasons}", allow_retries=False) from error
    for note in notes:
        context.log.warning(note)
    context.log.info(f"{verdict.headline}: {verdict.reason}. {verdict.alias}")
    return dg.MaterializeResult(metadata=_metadata(storage, content, verdict) | pages)


def _score_incumbent(
    context: dg.AssetExecutionContext, storage: Storage, compute: LocalCompute, version: str, config: EvaluationConfig
) -> str | None:
    """Score the best model so far on the current splits, unless that is done; returns why it is impossible, if so."""
    from model.evaluation import best

    holder = best.incumbent(storage.evaluations)
    if holder is None:
        return None
    folder = holder.folder(storage.evaluations)
    with contextlib.suppress(DataError):  # written by another version
        if Evaluation.read(folder / EVALUATION).data_version == version:
            return None
    job = EvaluateJob(
        holder.architecture,
        folder / best.WEIGHTS,
        storage.splits,
        folder,
        config.replace(device="cpu"),  # this step holds no slot of the GPU
        other_data=True,
        data_version=version,
    )
    (result,) = compute.run(context, EVALUATE, [job])
    return str(result) if isinstance(result, DataError) else None


def _log_to_mlflow(
    storage: Storage, mlflow: Mlflow, content: Comparison, key: str, holder: "Best | None", reason: str
) -> dict[str, Any]:
    """Log the comparison to the run of its best, and register the best model so far; returns metadata."""
    from model.evaluation.comparison import BY_DATA_VERSION

    metadata: dict[str, Any] = {"mlflow": dg.MetadataValue.url(mlflow.page(mlflow.prepared()))}
    if (run_id := mlflow.find(key)) is not None:
        pages = (storage.evaluations / BY_DATA_VERSION / content.data_version).glob("comparison.*")
        mlflow.log_files(run_id, sorted(pages), "comparison")
    if holder is not None and (run_id := mlflow.find(holder.training_key)) is not None:
        folder = holder.folder(storage.evaluations)
        version = mlflow.register_best(run_id, holder, folder, _first_window(storage, content.data_version), reason)
        metadata["registered"] = f"{REGISTRY} version {version}"
    return metadata


def _first_window(storage: Storage, version: str) -> "Example":
    """The first window of test, as an example for the registered model."""
    test = read_split(storage.split("test"), version)
    rows = slice(test.window_start[0], test.window_start[0] + test.window.length)
    return {
        **{name: getattr(test, name)[rows][None] for name in ("telemetry", "detections", "detection_mask")},
        "region": test.region[test.recording[rows][:1]],
    }


def _evaluations(storage: Storage, version: str) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """The evaluations of a data version by architecture, and why the others are left out."""
    evaluations: dict[str, Evaluation] = {}
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
            evaluations[name] = metrics
        else:
            missing[name] = "evaluated on older splits: train and evaluate again."
    return evaluations, missing


def _bundle_times(storage: Storage, names: Sequence[str]) -> dict[str, float]:
    """The time of a window, ms, in bundles of the present checkpoints, by architecture."""
    times = {}
    for name in names:
        with contextlib.suppress(OSError, ValueError, LookupError):  # there is none, or it is of another version
            folder = storage.bundle(name)
            if json.loads((folder / DESCRIPTION).read_bytes())["checkpoint"] == sha256(storage.checkpoint(name) / BEST):
                times[name] = float(json.loads((folder / MEASURED).read_bytes())["network_ms"])
    return times


def _metadata(storage: Storage, content: Comparison, verdict: "Verdict") -> dict[str, Any]:
    missing = f"left out: {', '.join(content.missing)}; " if content.missing else ""
    tops = {"best": content.variants[0], **dict(zip(["baseline"], content.baselines, strict=False))}
    figures = {f"{top}_{name}": getattr(row, name) for top, row in tops.items() for name in MEANS}
    return {
        "report": report_link("model_comparison"),
        "summary": f"{missing}{content.best} is the first of {len(content.variants)} by {content.chosen_by}. "
        f"{verdict.headline}: {verdict.reason}",
        "verdict": f"{verdict.headline}: {verdict.reason}",
        "alias": verdict.alias,
        "promoted": verdict.promoted,
        "best": content.best,
        **{name: round(value, 4) for name, value in figures.items() if value is not None},
        "no_better_than_a_baseline": [row.architecture for row in content.variants if not row.beats_baseline],
        "table": dg.MetadataValue.table([_record(row) for row in (*content.variants, *content.baselines)]),
        "path": dg.MetadataValue.path(storage.evaluations / "comparison.html"),
    }


def _record(row: Row) -> dg.TableRecord:
    beats = {None: "", True: "yes", False: "no"}[row.beats_baseline]
    means = {name: number(getattr(row, name)) for name in MEANS}
    return dg.TableRecord({"rank": row.rank, "architecture": row.architecture, "beats the baselines": beats, **means})
