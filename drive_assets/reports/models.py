"""Report pages of trainings, evaluations and the comparison."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drive_assets.reports.page import Cell, Link, Page, Picture, Section, Table
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from model.common.errors import DataError
from model.common.figures import png_bytes
from model.evaluation.results import REPORT
from model.training.plots import training_curves
from model.training.published import HISTORY, read_history

FIGURE_BYTES = 200_000
SHOWN_EPOCHS = 20


def checkpoint_page(storage: Storage, architecture: str) -> Page:
    """Training curves, the best epoch, the recipe, and of which data.

    Raises:
        DataError: there is no such architecture, or it is not trained.
    """
    folder = storage.checkpoint(architecture)
    history = read_history(folder)
    epochs, recipe = history["epochs"], history["training_config"]
    best = epochs[history["best_epoch"]] if epochs else {}
    current = _current_version(storage)
    stale = current is not None and current != history["data_version"]
    columns = [name for name in (epochs[0] if epochs else {}) if not name.startswith("val_roc")][:12]
    return Page(
        f"Checkpoint of {architecture}",
        f"Trained on data version {history['data_version']}"
        + (f", while the splits are now of {current}: train again." if stale else "."),
        facts={
            "best epoch": history["best_epoch"] + 1,
            "epochs": len(epochs),
            **{f"{name.removeprefix('val_pr_auc_')}, PR-AUC on val": best[name] for name in best if "pr_auc" in name},
        },
        sections=[
            Section("Curves", pictures=[Picture(png_bytes(training_curves(epochs, architecture), FIGURE_BYTES), "")]),
            Section(
                "Epochs",
                f"The last {SHOWN_EPOCHS}." if len(epochs) > SHOWN_EPOCHS else "",
                Table([_column(name) for name in columns], _rows(epochs[-SHOWN_EPOCHS:], columns)),
            ),
            Section("Recipe", table=Table.of({name: _text(value) for name, value in recipe.items()})),
            Section("Next", links=_next(storage, architecture, folder)),
        ],
    )


def evaluation_report(storage: Storage, architecture: str) -> Path:
    """The page that an evaluation wrote.

    Raises:
        DataError: there is no such architecture, or it is not evaluated.
    """
    path = storage.evaluation(architecture) / REPORT
    if not path.is_file():
        raise DataError(f"{path} is not there now: materialise evaluation for {architecture}.")
    return path


def comparison_report(storage: Storage) -> Path:
    """The page that the comparison wrote. DataError if there is none."""
    path = storage.evaluations / "comparison.html"
    if not path.is_file():
        raise DataError(f"{path} is not there now: materialise model_comparison.")
    return path


def _rows(epochs: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[list[Cell]]:
    return [[epoch[name] + 1 if name == "epoch" else epoch.get(name) for name in columns] for epoch in epochs]


def _column(name: str) -> str:
    """Of a figure of the history, such as val_pr_auc_brake_1s."""
    return name.replace("val_pr_auc_", "PR-AUC ").replace("val_loss", "loss on val").replace("epoch_seconds", "seconds")


def _current_version(storage: Storage) -> str | None:
    try:
        return str(read_manifest(storage)["fingerprint"])
    except DataError:
        return None


def _next(storage: Storage, architecture: str, folder: Path) -> list[Link]:
    links = [Link(HISTORY, f"files/{(folder / 'training_history.json').relative_to(storage.root)}")]
    if (storage.evaluation(architecture) / REPORT).is_file():
        links.append(Link("its evaluation", f"evaluation/{architecture}"))
    if (storage.evaluations / "comparison.html").is_file():
        links.append(Link("the comparison of all", "model_comparison"))
    return links


def _text(value: Any) -> Cell:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
