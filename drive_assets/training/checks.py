"""Whether a checkpoint is worth evaluating: of the current splits, finite, and better than chance."""

import math

import dagster as dg

from drive_assets.batches import PartitionCheck
from drive_assets.manifest import read_manifest
from drive_assets.partitions import ARCHITECTURE_PARTITIONS
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.network.architectures import ARCHITECTURES
from model.training.published import HISTORY, read_history

FINITE_HISTORY = dg.AssetCheckSpec(
    "finite_history",
    asset="checkpoint",
    partitions_def=ARCHITECTURE_PARTITIONS,
    blocking=True,
    description="Losses are numbers in every epoch. Blocking: a network without losses is not worth evaluating.",
)
LEARNT_SOMETHING = dg.AssetCheckSpec(
    "learnt_something",
    asset="checkpoint",
    partitions_def=ARCHITECTURE_PARTITIONS,
    description="The best epoch's PR-AUC on val is above the rate of positives, which chance reaches, for every task.",
)


def finite_history(storage: Storage) -> PartitionCheck:
    """The check of `FINITE_HISTORY` on checkpoints of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        epochs = read_history(storage.checkpoint(name))["epochs"]
        wrong = [
            f"{loss} of epoch {epoch['epoch'] + 1}"
            for epoch in epochs
            for loss in ("train_loss", "val_loss")
            if not math.isfinite(epoch.get(loss) if epoch.get(loss) is not None else math.nan)
        ]
        left_out = sum(int(epoch.get("bad_steps") or 0) for epoch in epochs)
        return dg.AssetCheckResult(
            passed=not wrong and bool(epochs),
            severity=dg.AssetCheckSeverity.ERROR,
            description=""
            if epochs and not wrong
            else f"{storage.checkpoint(name) / HISTORY}: {', '.join(wrong[:5]) or 'no epoch'} is no number. Train "
            "again with a smaller learning_rate, or with precision fp32.",
            metadata={"epochs": len(epochs), "steps_left_out": left_out},
        )

    return PartitionCheck(FINITE_HISTORY, evaluate)


def learnt_something(storage: Storage) -> PartitionCheck:
    """The check of `LEARNT_SOMETHING` on checkpoints of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        history, val = read_history(storage.checkpoint(name)), read_manifest(storage)["splits"]["val"]
        best = history["epochs"][history["best_epoch"]]
        told = []
        for task in history["training_config"]["tasks"]:
            reached, chance = best.get(f"val_pr_auc_{task}"), val["label_rates"][task]
            if reached is not None and reached <= chance:
                told.append(f"{task} {reached:.3f}, chance reaches {chance:.3f}")
        return dg.AssetCheckResult(
            passed=not told,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{name}, PR-AUC on val at its best epoch: {'; '.join(told)}. Train longer, with another "
            "learning_rate, or on more recordings."
            if told
            else "",
            metadata={"best_epoch": history["best_epoch"]},
        )

    return PartitionCheck(LEARNT_SOMETHING, evaluate)


@dg.asset_check(asset="checkpoint", additional_deps=["split_manifest"])
def of_current_splits(storage: Storage) -> dg.AssetCheckResult:
    """Checkpoints are of the data that the splits hold now; others are not compared. Looks at all architectures."""
    version = read_manifest(storage)["fingerprint"]
    older: dict[str, str] = {}
    for name in ARCHITECTURES:
        try:
            made_of = str(read_history(storage.checkpoint(name))["data_version"])
        except DataError:
            continue  # not trained
        if made_of != version:
            older[name] = made_of
    return dg.AssetCheckResult(
        passed=not older,
        severity=dg.AssetCheckSeverity.WARN,
        description=""
        if not older
        else f"{len(older)} checkpoint(s) are of other data than the current splits ({version}): "
        f"{', '.join(f'{name} of {made_of}' for name, made_of in older.items())}. Materialise checkpoint for them.",
        metadata={"older": len(older)},
    )
