"""All evaluated architectures side by side. The best is chosen on val; what it reaches is told on test."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from model.common.errors import DataError
from model.common.figures import png_bytes, save_png
from model.common.files import atomic_path, write_text
from model.evaluation.measures import blocks, bootstrap_areas, bootstrap_draws, interval
from model.evaluation.pages import render
from model.evaluation.plots import comparison_figure
from model.evaluation.predictions import Predictions
from model.evaluation.results import COMPARISON, SCHEMA_VERSION, Comparison, Evaluation, Interval, Row

CSV_FIGURES = ("pr_auc", "roc_auc", "f1", "mcc", "balanced_accuracy", "brier", "calibration_error")
SAMPLES = 500


def compare(evaluations: Mapping[str, Evaluation], output: Path) -> Comparison:
    """Compare evaluations by architecture and write comparison.{csv,html,json,png}.

    Variants are ranked by mean PR-AUC over the tasks on val: choosing by test would make the best one's test figures
    too good. The difference of each to the best has a paired interval: both are scored on the same resampled blocks of
    the predictions that lie beside `output` in `<architecture>/predictions_test.npz`.

    Raises:
        DataError: no evaluation, or evaluations of different data or tasks.
    """
    _check_comparable(evaluations)
    first = next(iter(evaluations.values()))
    ranked = sorted(evaluations, key=lambda name: (-(evaluations[name].val.mean_pr_auc or 0.0), name))
    best = ranked[0]
    content = Comparison(
        schema_version=SCHEMA_VERSION,
        data_version=first.data_version,
        tasks=first.tasks,
        best=best,
        chosen_by="mean PR-AUC on val",
        variants=[
            _row(rank, evaluations[name], paired_differences(output, name, best, first.tasks))
            for rank, name in enumerate(ranked, 1)
        ],
    )
    figure = comparison_figure(content.variants, content.tasks, best)
    save_png(figure, output / "comparison.png")
    _write_csv(output / "comparison.csv", content)
    write_text(
        output / "comparison.html", render("comparison.html", content=content, figure=png_bytes(figure, 300_000))
    )
    content.write(output / COMPARISON)
    return content


def _check_comparable(evaluations: Mapping[str, Evaluation]) -> None:
    if not evaluations:
        raise DataError("No evaluation to compare: evaluate at least one architecture first.")
    for key in ("data_version", "tasks"):
        found = {name: str(getattr(evaluation, key)) for name, evaluation in evaluations.items()}
        if len(set(found.values())) > 1:
            listed = "; ".join(f"{name}: {value}" for name, value in sorted(found.items()))
            raise DataError(f"Evaluations differ in {key} ({listed}): train and evaluate all on the same splits.")


def _row(rank: int, evaluation: Evaluation, differences: dict[str, Interval | None]) -> Row:
    return Row(
        rank=rank,
        architecture=evaluation.architecture,
        val_mean_pr_auc=evaluation.val.mean_pr_auc,
        test_mean_pr_auc=evaluation.test.mean_pr_auc,
        val_mean_onset_pr_auc=evaluation.val.mean_onset_pr_auc,
        test_mean_onset_pr_auc=evaluation.test.mean_onset_pr_auc,
        test={task: evaluation.test[task] for task in evaluation.tasks},
        difference_to_best=differences,
    )


def paired_differences(output: Path, name: str, other: str, tasks: Sequence[str]) -> dict[str, Interval | None]:
    """Intervals of the difference in PR-AUC to another variant, by task; None where undefined."""
    paths = [output / variant / "predictions_test.npz" for variant in (name, other)]
    if name == other or not all(path.is_file() for path in paths):
        return dict.fromkeys(tasks)
    own, theirs = (Predictions.load(path) for path in paths)
    if not own.same_windows(theirs):
        raise DataError(f"{paths[0]} and {paths[1]} hold different windows: evaluate both again.")
    block = blocks(own.time_ms, own.recording)
    draws = bootstrap_draws(block, SAMPLES, seed=0)
    result: dict[str, Interval | None] = {}
    for column, task in enumerate(tasks):
        known = own.known[:, column]
        labels = own.labels[known, column]
        areas = [bootstrap_areas(labels, p.probabilities[known, column], block[known], draws)[0] for p in (own, theirs)]
        result[task] = interval(areas[0] - areas[1])
    return result


def _write_csv(path: Path, content: Comparison) -> None:
    rows = []
    for row in content.variants:
        cells = row.model_dump(include={"rank", "architecture", "val_mean_pr_auc", "test_mean_pr_auc"})
        for task in content.tasks:
            figures = row.test[task]
            cells |= {f"{task}_{name}": getattr(figures, name) for name in CSV_FIGURES}
            low, high = figures.pr_auc_interval or (None, None)
            cells |= {f"{task}_pr_auc_low": low, f"{task}_pr_auc_high": high}
            cells[f"{task}_random_pr_auc"] = figures.random_pr_auc
        rows.append(cells)
    with atomic_path(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
