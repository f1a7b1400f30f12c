"""All evaluated architectures and the baselines, ranked; and the page, table and pictures of the ranking.

The best is chosen on val; its figures are reported on test.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from model.common.errors import DataError
from model.common.figures import png_bytes
from model.common.files import atomic_path, write_bytes, write_text
from model.common.pages import render
from model.evaluation.best import Verdict
from model.evaluation.paired import Areas
from model.evaluation.plots import comparison_figure, foreseen_figure
from model.evaluation.predictions import test_predictions
from model.evaluation.results import (
    COMPARISON,
    FEW_EVENTS,
    REVIEW_GAIN,
    SCHEMA_VERSION,
    SHOWN_FIGURES,
    Comparison,
    Evaluation,
    ReviewGain,
    Row,
)

BASELINE_FOLDER = "baselines"
BY_DATA_VERSION = "comparisons"
"""Contains one folder per data version."""
FIGURE_BYTES = 300_000


def rank(
    evaluations: Mapping[str, Evaluation],
    baselines: Mapping[str, Evaluation],
    missing: Mapping[str, str],
    output: Path,
    network_ms: Mapping[str, float] = MappingProxyType({}),
) -> Comparison:
    """Rank evaluations and baselines by mean PR-AUC over the tasks on val: on test, the best would look too good.

    Differences have paired intervals: both models are scored on the same resamples of the predictions in
    `output`/<architecture>/predictions_test.npz, of baselines in `output`/baselines/<name>.

    Args:
        missing: architectures that cannot be compared, with the reason.
        network_ms: times of a window in bundles for the car, by architecture.

    Raises:
        DataError: there is no evaluation, or they are of different data, tasks or windows.
    """
    if not evaluations:
        raise DataError("No evaluation to compare: evaluate at least one architecture first.")
    of = {name: (each.data_version, *each.tasks) for name, each in {**evaluations, **baselines}.items()}
    if len(set(of.values())) > 1:
        listed = "; ".join(f"{name}: {', '.join(values)}" for name, values in sorted(of.items()))
        raise DataError(f"Evaluations differ in data version or tasks ({listed}): train and evaluate all on the same.")
    ranked, ranked_baselines = _ranked(evaluations), _ranked(baselines)
    best, best_baseline = ranked[0], next(iter(ranked_baselines), None)
    by_onset = min(baselines, key=lambda name: (-(baselines[name].val.mean_onset_pr_auc or 0.0), name), default=None)
    folders = {name: output / name for name in ranked}
    folders |= {name: output / BASELINE_FOLDER / name for name in ranked_baselines}
    predictions = {name: test_predictions(folder) for name, folder in folders.items()}
    for name, windows in predictions.items():
        if not windows.same_windows(predictions[best]):
            raise DataError(f"{name} and {best} were evaluated on different windows: evaluate both again.")
    areas = {name: Areas.of(windows) for name, windows in predictions.items()}

    def row(place: int, evaluation: Evaluation) -> Row:
        name, tasks = evaluation.architecture, evaluation.tasks
        to_baseline = onset_to_baseline = None
        if name in evaluations and best_baseline is not None and by_onset is not None:
            to_baseline = areas[name].minus(areas[best_baseline])
            onset_to_baseline = areas[name].minus(areas[by_onset])
        return Row(
            rank=place,
            architecture=name,
            recipe=evaluation.recipe,
            val_mean_pr_auc=evaluation.val.mean_pr_auc,
            test_mean_pr_auc=evaluation.test.mean_pr_auc,
            val_mean_onset_pr_auc=evaluation.val.mean_onset_pr_auc,
            test_mean_onset_pr_auc=evaluation.test.mean_onset_pr_auc,
            test={task: evaluation.test[task] for task in tasks},
            difference_to_best=dict.fromkeys(tasks) if name == best else areas[name].minus(areas[best]).tasks,
            difference_to_baseline=to_baseline,
            beats_baseline=to_baseline.better if to_baseline else None,
            beats_baseline_onset=onset_to_baseline.better_onset if onset_to_baseline else None,
            network_ms=network_ms.get(name),
        )

    return Comparison(
        schema_version=SCHEMA_VERSION,
        data_version=evaluations[best].data_version,
        tasks=evaluations[best].tasks,
        best=best,
        chosen_by="mean PR-AUC on val",
        missing=dict(missing),
        variants=[row(place, evaluations[name]) for place, name in enumerate(ranked, 1)],
        baselines=[row(place, baselines[name]) for place, name in enumerate(ranked_baselines, 1)],
        best_baseline=best_baseline,
        best_onset_baseline=by_onset,
        camera=evaluations[best].camera,
    )


def write_comparison(content: Comparison, verdict: Verdict, output: Path, notes: Sequence[str] = ()) -> None:
    """Write comparison.{html,csv,json,png} to `output` and to `output`/comparisons/<data version>.

    The second copy stays when the data change.

    Args:
        notes: warnings that the page shows below the verdict.
    """
    rows = [*content.variants, *content.baselines]
    figure = png_bytes(comparison_figure(rows, content.tasks, content.best), FIGURE_BYTES)
    curves = foreseen_figure(rows, content.tasks, content.best, content.best_baseline)
    shown: dict[str, Any] = {
        "content": content,
        "verdict": verdict,
        "notes": notes,
        "figure": figure,
        "curves": png_bytes(curves, FIGURE_BYTES),
        "recordings": len(set(test_predictions(output / content.best).recording.tolist())),
        "created": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "few_events": FEW_EVENTS,
        "gain": _gain(output / REVIEW_GAIN, content.data_version),
    }
    for folder in (output / BY_DATA_VERSION / content.data_version, output):
        write_bytes(folder / "comparison.png", figure)
        with atomic_path(folder / "comparison.csv") as temporary:
            _table(content).to_csv(temporary, index=False, lineterminator="\n")
        # Later evaluations replace those that the copy would link to.
        page = render("model.evaluation", "comparison.html", links=folder == output, **shown)
        write_text(folder / "comparison.html", page)
        content.write(folder / COMPARISON)


def _gain(path: Path, version: str) -> ReviewGain | None:
    """What a review gains, if that was measured on these data."""
    if not path.is_file():
        return None
    gain = ReviewGain.read(path)
    return gain if gain.changed and gain.data_version == version else None


def _ranked(evaluations: Mapping[str, Evaluation]) -> list[str]:
    return sorted(evaluations, key=lambda name: (-(evaluations[name].val.mean_pr_auc or 0.0), name))


def _table(content: Comparison) -> pd.DataFrame:
    """One row per model, for the CSV file."""
    rows = []
    for row in (*content.variants, *content.baselines):
        cells = row.model_dump(include={"rank", "architecture", "val_mean_pr_auc", "test_mean_pr_auc", "network_ms"})
        for task in content.tasks:
            figures = row.test[task]
            cells |= {f"{task}_{name}": getattr(figures, name) for name in SHOWN_FIGURES}
            low, high = figures.pr_auc_interval or (None, None)
            cells |= {f"{task}_pr_auc_low": low, f"{task}_pr_auc_high": high}
            cells[f"{task}_random_pr_auc"] = figures.random_pr_auc
            cells[f"{task}_onset_matched_pr_auc"] = figures.onset.matched_pr_auc
        rows.append(cells)
    return pd.DataFrame(rows)
