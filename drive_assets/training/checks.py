"""Checks of checkpoints: are they worth evaluating?"""

import math

import dagster as dg

from drive_assets.checks import ERROR, check_result, partition_check
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from model.training.published import HISTORY, PREVIOUS, decline, read_history


@partition_check(blocking=True)
def finite_history(storage: Storage, name: str) -> dg.AssetCheckResult:
    """Losses are finite in every epoch. Blocking: other networks are not worth evaluating."""
    epochs = read_history(storage.checkpoint(name))["epochs"]
    wrong = [
        f"{loss} of epoch {epoch['epoch'] + 1} is not finite"
        for epoch in epochs
        for loss in ("train_loss", "val_loss")
        if epoch.get(loss) is None or not math.isfinite(epoch[loss])
    ]
    return check_result(
        wrong[:5] if epochs else ["it has no epochs"],
        "Train again with a smaller learning_rate, or with precision fp32.",
        about=str(storage.checkpoint(name) / HISTORY),
        severity=ERROR,
        metadata={"epochs": len(epochs), "steps_left_out": sum(int(epoch.get("bad_steps") or 0) for epoch in epochs)},
    )


@partition_check()
def learnt_something(storage: Storage, name: str) -> dg.AssetCheckResult:
    """For every task, the best epoch's PR-AUC on val exceeds the rate of positives, which guessing reaches."""
    history, val = read_history(storage.checkpoint(name)), read_manifest(storage)["splits"]["val"]
    best = history["epochs"][history["best_epoch"]]
    problems = []
    for task in history["training_config"]["tasks"]:
        reached, chance = best.get(f"val_pr_auc_{task}"), val["label_rates"][task]
        if reached is not None and reached <= chance:
            problems.append(f"{task} {reached:.3f}, guessing reaches {chance:.3f}")
    return check_result(
        problems,
        "Train longer, with another learning_rate, or on more recordings.",
        about=f"{name}, PR-AUC on val at its best epoch",
        metadata={"best_epoch": history["best_epoch"] + 1},
    )


@partition_check()
def no_worse_than_before(storage: Storage, name: str) -> dg.AssetCheckResult:
    """The checkpoint did not replace one with a higher mean PR-AUC on val, on the same data and tasks."""
    folder = storage.checkpoint(name)
    worse = decline(folder)
    return check_result(
        [str(worse)] if worse else [],
        f"The better checkpoint is in {folder / PREVIOUS}: move its files back, or train again with keep_better.",
        about=name,
    )
