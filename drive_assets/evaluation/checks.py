"""Whether figures tell anything: enough events, better than what needs no network, calibrated, complete."""

import dagster as dg

from drive_assets.partitions import ARCHITECTURE_PARTITIONS
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import PartitionCheck
from drive_assets.splits.manifest import read_manifest
from model.evaluation.results import COMPARISON, EVALUATION, FEW_EVENTS, Comparison, Evaluation
from model.network.architectures import ARCHITECTURES

MOST_CALIBRATION_ERROR = 0.1
"""Between predicted probability and observed rate, on average over test."""
ENOUGH_EVENTS = dg.AssetCheckSpec(
    "enough_events",
    asset="evaluation",
    partitions_def=ARCHITECTURE_PARTITIONS,
    description=f"Test holds at least {FEW_EVENTS} events of each task: fewer can hardly tell two models apart.",
)
CALIBRATED = dg.AssetCheckSpec(
    "calibrated",
    asset="evaluation",
    partitions_def=ARCHITECTURE_PARTITIONS,
    description=f"Predicted probabilities are at most {MOST_CALIBRATION_ERROR:g} off the observed rates on test.",
)


def enough_events(storage: Storage) -> PartitionCheck:
    """The check of `ENOUGH_EVENTS` on evaluations of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        found = Evaluation.read(storage.evaluation(name) / EVALUATION)
        counts = {task: found.test[task].event_count for task in found.tasks}
        few = [f"{count} of {task}" for task, count in counts.items() if count < FEW_EVENTS]
        hours = found.test[found.tasks[0]].hours
        return dg.AssetCheckResult(
            passed=not few,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"Test has {', '.join(few)} in {hours:.2f} hours, at least {FEW_EVENTS} are needed: figures of "
            "models differ by chance. Add recordings, or give test a larger share."
            if few
            else "",
            metadata={**{f"events_{task}": count for task, count in counts.items()}, "hours": round(hours, 3)},
        )

    return PartitionCheck(ENOUGH_EVENTS, evaluate)


def calibrated(storage: Storage) -> PartitionCheck:
    """The check of `CALIBRATED` on evaluations of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        found = Evaluation.read(storage.evaluation(name) / EVALUATION)
        errors = {task: found.test[task].calibration_error for task in found.tasks}
        known = {task: error for task, error in errors.items() if error is not None}
        wide = [f"{task} {error:.2f}" for task, error in known.items() if error > MOST_CALIBRATION_ERROR]
        return dg.AssetCheckResult(
            passed=not wide,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{name}, calibration error on test: {', '.join(wide)}, at most {MOST_CALIBRATION_ERROR:g} is "
            "wanted. Val, which calibrates, is too small or another road: add recordings to val."
            if wide
            else "",
            metadata={f"calibration_error_{task}": round(error, 4) for task, error in known.items()},
        )

    return PartitionCheck(CALIBRATED, evaluate)


@dg.asset_check(asset="model_comparison")
def complete(storage: Storage) -> dg.AssetCheckResult:
    """Every architecture that is trained is compared, on the data version that the splits hold now."""
    content, version = Comparison.read(storage.evaluations / COMPARISON), read_manifest(storage)["fingerprint"]
    trained = [name for name in ARCHITECTURES if (storage.checkpoint(name) / "best_model.pt").is_file()]
    told = [f"{name}: {content.missing[name].rstrip('.')}" for name in trained if name in content.missing]
    if content.data_version != version:
        told.insert(0, f"it is of data version {content.data_version}, the splits are of {version}")
    return dg.AssetCheckResult(
        passed=not told,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{'; '.join(told)}. Materialise checkpoint, evaluation and model_comparison for these."
        if told
        else "",
        metadata={"compared": len(content.variants), "trained": len(trained)},
    )


@dg.asset_check(asset="model_comparison")
def better_than_the_baselines(storage: Storage) -> dg.AssetCheckResult:
    """Each network beats the best baseline, and at onsets the best one there: else it need not be deployed."""
    content = Comparison.read(storage.evaluations / COMPARISON)
    lost = [row.architecture for row in content.variants if row.beats_baseline is False]
    lost_onset = [row.architecture for row in content.variants if row.beats_baseline_onset is False]
    told = []
    if lost:
        told.append(f"{', '.join(lost)} not shown to beat {content.best_baseline}")
    if lost_onset:
        told.append(f"{', '.join(lost_onset)} not shown to beat {content.best_onset_baseline} at onsets")
    return dg.AssetCheckResult(
        passed=not told,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{'; '.join(told)} (paired interval of the difference on test). Train longer, on more recordings, "
        "or use the baseline."
        if told
        else "",
        metadata={"beaten_by_a_baseline": len(lost), "at_onsets": len(lost_onset)},
    )
