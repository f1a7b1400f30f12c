"""All evaluated architectures side by side. The best is chosen on val; what it reaches is told on test."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from model.common.errors import DataError
from model.common.figures import png_bytes, save_png
from model.common.files import atomic_path, write_text
from model.common.pages import render
from model.evaluation.paired import Areas
from model.evaluation.plots import comparison_figure, foreseen_figure
from model.evaluation.predictions import PREDICTIONS, Predictions
from model.evaluation.results import (
    COMPARISON,
    FEW_EVENTS,
    SCHEMA_VERSION,
    SHOWN_FIGURES,
    Comparison,
    Difference,
    Evaluation,
    Interval,
    Row,
)

BASELINE_FOLDER = "baselines"
KEPT = "comparisons"
"""Holds a folder a data version."""
FIGURE_BYTES = 300_000


def compare(
    evaluations: Mapping[str, Evaluation],
    output: Path,
    baselines: Mapping[str, Evaluation] | None = None,
    missing: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare evaluations by architecture and write comparison.{csv,html,json,png}.

    Variants are ranked by mean PR-AUC over the tasks on val: choosing by test would make the best one's test figures
    too good. Differences have paired intervals: both are scored on the same resamples of the predictions that lie
    beside `output` in `<architecture>/predictions_test.npz`, of baselines in `baselines/<name>`.

    The files are kept in `comparisons/<data version>` too, so that a comparison on other data replaces none.

    Args:
        missing: architectures that could not be compared, and why.

    Raises:
        DataError: no evaluation, or evaluations of different data or tasks.
    """
    baselines = baselines or {}
    _check_comparable({**evaluations, **baselines} if evaluations else {})
    content = _content(evaluations, baselines, dict(missing or {}), output)
    rows = [*content.variants, *content.baselines]
    figure = comparison_figure(rows, content.tasks, content.best)
    shown: dict[str, Any] = {
        "content": content,
        "figure": png_bytes(figure, FIGURE_BYTES),
        "curves": png_bytes(foreseen_figure(rows, content.tasks, content.best, content.best_baseline), FIGURE_BYTES),
        "recordings": len(set(Predictions.load(output / content.best / PREDICTIONS.format("test")).recording.tolist())),
        "made": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "few_events": FEW_EVENTS,
    }
    for folder in (output / KEPT / content.data_version, output):
        save_png(figure, folder / "comparison.png")
        _write_csv(folder / "comparison.csv", content)
        # Evaluations of later data take the place of those that a kept page would link.
        page = render("model.evaluation", "comparison.html", links=folder == output, **shown)
        write_text(folder / "comparison.html", page)
        content.write(folder / COMPARISON)
    return content


def _content(
    evaluations: Mapping[str, Evaluation], baselines: Mapping[str, Evaluation], missing: dict[str, str], output: Path
) -> Comparison:
    first = next(iter(evaluations.values()))
    ranked, ranked_baselines = _ranked(evaluations), _ranked(baselines)
    by_onset = sorted(baselines, key=lambda name: (-(baselines[name].val.mean_onset_pr_auc or 0.0), name))
    areas = {name: _areas(output / name) for name in ranked}
    areas |= {name: _areas(output / BASELINE_FOLDER / name) for name in ranked_baselines}
    _check_same_windows(areas)

    def row(rank: int, evaluation: Evaluation) -> Row:
        name, is_baseline = evaluation.architecture, evaluation.epoch is None
        best = ranked[0]
        to_best = dict.fromkeys(first.tasks) if name == best else areas[name][1].minus(areas[best][1]).tasks
        judged = not is_baseline and bool(ranked_baselines)
        to_baseline = areas[name][1].minus(areas[ranked_baselines[0]][1]) if judged else None
        onset = areas[name][1].minus(areas[by_onset[0]][1]).better_onset if judged else None
        return _row(rank, evaluation, to_best, to_baseline, onset)

    return Comparison(
        schema_version=SCHEMA_VERSION,
        data_version=first.data_version,
        tasks=first.tasks,
        best=ranked[0],
        chosen_by="mean PR-AUC on val",
        missing=missing,
        variants=[row(rank, evaluations[name]) for rank, name in enumerate(ranked, 1)],
        baselines=[row(rank, baselines[name]) for rank, name in enumerate(ranked_baselines, 1)],
        best_baseline=ranked_baselines[0] if ranked_baselines else None,
        best_onset_baseline=by_onset[0] if by_onset else None,
        camera=evaluations[ranked[0]].camera,
    )


def _ranked(evaluations: Mapping[str, Evaluation]) -> list[str]:
    return sorted(evaluations, key=lambda name: (-(evaluations[name].val.mean_pr_auc or 0.0), name))


def _areas(folder: Path) -> tuple[Predictions, Areas]:
    predictions = Predictions.load(folder / PREDICTIONS.format("test"))
    return predictions, Areas.of(predictions)


def _check_same_windows(areas: Mapping[str, tuple[Predictions, Areas]]) -> None:
    first, (reference, _) = next(iter(areas.items()))
    for name, (predictions, _) in areas.items():
        if not predictions.same_windows(reference):
            raise DataError(f"{name} and {first} were evaluated on different windows: evaluate both again.")


def _check_comparable(evaluations: Mapping[str, Evaluation]) -> None:
    if not evaluations:
        raise DataError("No evaluation to compare: evaluate at least one architecture first.")
    for key in ("data_version", "tasks"):
        found = {name: str(getattr(evaluation, key)) for name, evaluation in evaluations.items()}
        if len(set(found.values())) > 1:
            listed = "; ".join(f"{name}: {value}" for name, value in sorted(found.items()))
            raise DataError(f"Evaluations differ in {key} ({listed}): train and evaluate all on the same splits.")


def _row(
    rank: int,
    evaluation: Evaluation,
    to_best: dict[str, Interval | None],
    to_baseline: Difference | None,
    beats_onset: bool | None,
) -> Row:
    return Row(
        rank=rank,
        architecture=evaluation.architecture,
        recipe=evaluation.recipe,
        val_mean_pr_auc=evaluation.val.mean_pr_auc,
        test_mean_pr_auc=evaluation.test.mean_pr_auc,
        val_mean_onset_pr_auc=evaluation.val.mean_onset_pr_auc,
        test_mean_onset_pr_auc=evaluation.test.mean_onset_pr_auc,
        test={task: evaluation.test[task] for task in evaluation.tasks},
        difference_to_best=to_best,
        difference_to_baseline=to_baseline,
        beats_baseline=to_baseline.better if to_baseline else None,
        beats_baseline_onset=beats_onset,
    )


def _write_csv(path: Path, content: Comparison) -> None:
    rows = []
    for row in (*content.variants, *content.baselines):
        cells = row.model_dump(include={"rank", "architecture", "val_mean_pr_auc", "test_mean_pr_auc"})
        for task in content.tasks:
            figures = row.test[task]
            cells |= {f"{task}_{name}": getattr(figures, name) for name in SHOWN_FIGURES}
            low, high = figures.pr_auc_interval or (None, None)
            cells |= {f"{task}_pr_auc_low": low, f"{task}_pr_auc_high": high}
            cells[f"{task}_random_pr_auc"] = figures.random_pr_auc
        rows.append(cells)
    with atomic_path(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
