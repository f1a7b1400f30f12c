"""Report pages of checkpoints."""

from collections.abc import Mapping
from typing import Any

from drive_assets.reports.links import file_link
from drive_assets.reports.page import Link, Page, Section, Table, drawn
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import current_version
from model.training.plots import training_curves
from model.training.published import HISTORY, read_history
from model.training.recipes import RECIPES

CAPTION = "Losses on train and val, and PR-AUC on val, by epoch"


def checkpoint_page(storage: Storage, architecture: str) -> Page:
    """Training curves, the best epoch, the recipe and the data version."""
    folder = storage.checkpoint(architecture)
    history = read_history(folder)
    epochs, recipe, trained = history["epochs"], history["training_config"], history["data_version"]
    best = epochs[history["best_epoch"]] if epochs else {}
    current = current_version(storage)
    return Page(
        f"Checkpoint of {architecture}",
        f"Trained on data version {trained}"
        + (f". The splits now have data version {current}: train again." if current not in ("", trained) else "."),
        facts={
            "best epoch": history["best_epoch"] + 1,
            "epochs": len(epochs),
            **{f"{name.removeprefix('val_pr_auc_')}, PR-AUC on val": best[name] for name in best if "pr_auc" in name},
        },
        sections=[
            Section("Curves", pictures=[drawn(training_curves(epochs, architecture), CAPTION)]),
            Section("Recipe", "Options that differ from recipe best come first, with its value.", _options(recipe)),
            Section("Files", links=[Link(HISTORY, file_link(storage, folder / HISTORY))]),
        ],
    )


def _options(recipe: Mapping[str, Any]) -> Table:
    default = RECIPES["best"].model_dump(mode="json")
    rows = [
        (name.replace("_", " "), value, default.get(name) if value != default.get(name) else "")
        for name, value in sorted(recipe.items(), key=lambda option: option[1] == default.get(option[0]))
    ]
    return Table(("option", "value", "in best"), rows)
