"""Checks of evaluations and their comparison: are the figures conclusive?"""

import dagster as dg

from drive_assets.checks import check_result, partition_check
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from drive_assets.status import named
from model.evaluation.results import COMPARISON, EVALUATION, FEW_EVENTS, Comparison, Evaluation
from model.network.architectures import ARCHITECTURES

MAX_CALIBRATION_ERROR = 0.1
"""Mean difference between predicted probability and observed rate on test."""


@partition_check(f"Test has at least {FEW_EVENTS} events of each task: fewer can hardly distinguish two models.")
def enough_events(storage: Storage, name: str) -> dg.AssetCheckResult:
    evaluation = Evaluation.read(storage.evaluation(name) / EVALUATION)
    counts = {task: evaluation.test[task].event_count for task in evaluation.tasks}
    hours = evaluation.test[evaluation.tasks[0]].hours
    few = [f"{count} of {task}" for task, count in counts.items() if count < FEW_EVENTS]
    return check_result(
        [f"Test has {', '.join(few)} in {hours:.2f} hours, at least {FEW_EVENTS} are needed"] if few else [],
        "Differences between models may be chance. Add recordings, or give test a larger share.",
    )


@partition_check(
    f"Predicted probabilities differ by at most {MAX_CALIBRATION_ERROR:g} from the observed rates on test."
)
def calibrated(storage: Storage, name: str) -> dg.AssetCheckResult:
    evaluation = Evaluation.read(storage.evaluation(name) / EVALUATION)
    errors = {task: evaluation.test[task].calibration_error for task in evaluation.tasks}
    large = [f"{task} {error:.2f}" for task, error in errors.items() if error and error > MAX_CALIBRATION_ERROR]
    return check_result(
        [f"{', '.join(large)}, expected at most {MAX_CALIBRATION_ERROR:g}"] if large else [],
        "Val, on which models are calibrated, is too small or unlike test: add recordings to val.",
        about=f"{name}, calibration error on test",
    )


@dg.asset_check(asset="model_comparison")
def complete(storage: Storage) -> dg.AssetCheckResult:
    """Every trained architecture is compared, on the data version of the current splits."""
    comparison, version = Comparison.read(storage.evaluations / COMPARISON), read_manifest(storage)["fingerprint"]
    trained = [name for name in ARCHITECTURES if (storage.checkpoint(name) / "best_model.pt").is_file()]
    problems = [f"{name}: {comparison.missing[name].rstrip('.')}" for name in trained if name in comparison.missing]
    if comparison.data_version != version:
        problems.insert(0, f"it has data version {comparison.data_version}, the splits have {version}")
    return check_result(problems, "Materialise checkpoint, evaluation and model_comparison for these.")


@dg.asset_check(asset="model_comparison")
def better_than_the_baselines(storage: Storage) -> dg.AssetCheckResult:
    """Each network beats the best baseline, overall and at onsets: otherwise there is no reason to deploy it."""
    comparison = Comparison.read(storage.evaluations / COMPARISON)
    variants = comparison.variants
    problems = [
        f"{len(lost)} of {len(variants)} networks are not shown to beat {baseline}: {named(lost)}"
        for baseline, lost in {
            comparison.best_baseline: [row.architecture for row in variants if row.beats_baseline is False],
            f"{comparison.best_onset_baseline} at onsets": [
                row.architecture for row in variants if row.beats_baseline_onset is False
            ],
        }.items()
        if lost
    ]
    return check_result(
        problems,
        "This is by the paired interval of the difference on test. Train longer or on more recordings, or deploy the "
        "baseline.",
    )
