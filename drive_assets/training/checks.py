"""Whether a checkpoint is worth evaluating: its losses are finite, and it is better than chance."""

import math

import dagster as dg

from drive_assets.partitions import ARCHITECTURE_PARTITIONS
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import PartitionCheck
from drive_assets.splits.manifest import read_manifest
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
