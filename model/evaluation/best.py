"""The model to deploy, kept with its weights. Only a model shown to be better replaces it."""

import shutil
from pathlib import Path

from model.common.files import atomic_path, sha256
from model.evaluation import calibration
from model.evaluation.paired import Areas
from model.evaluation.predictions import PREDICTIONS, test_predictions
from model.evaluation.results import CALIBRATION, EVALUATION, FEW_EVENTS, Comparison, Evaluation, Interval, Result

POINTER, WEIGHTS = "best.json", "best_model.pt"
GAIN, GAIN_HOURS = 0.03, 7
"""Mean PR-AUC by which the recipe `best` beats the baselines, and the driving in train that this takes."""


class Best(Result):
    """The content of best.json."""

    architecture: str
    data_version: str
    """Of the splits that it was trained on"""
    training_key: str
    checkpoint: str
    """SHA-256 of its weights; the first twelve digits name its folder in `best`"""

    def folder(self, output: Path) -> Path:
        return output / "best" / self.checkpoint[:12]


class Verdict(Result):
    """Which model to deploy, and why."""

    promoted: bool
    """Whether the best of the comparison replaces the incumbent"""
    headline: str
    reason: str
    alias: str
    """One sentence on the alias `best` in MLflow's registry"""


def incumbent(output: Path) -> Best | None:
    """The best model so far; None if there is none. DataError if best.json cannot be read."""
    return Best.read(output / POINTER) if (output / POINTER).is_file() else None


def judge(content: Comparison, output: Path, weights: Path, unscored: str | None = None) -> Verdict:
    """Whether a comparison's best beats the best baseline and, on the same windows, the incumbent.

    Args:
        weights: the checkpoint of the comparison's best.
        unscored: why the incumbent cannot be scored on these data, if so: it is then replaced.

    Raises:
        DataError: the checkpoint is not the one that was evaluated.
    """
    calibration.load(weights)
    best, holder = content.variants[0], incumbent(output)
    name, to_baseline = best.architecture, best.difference_to_baseline
    promoted, reason = True, f"it is the first to beat {content.best_baseline}"
    if to_baseline is not None and not to_baseline.better:
        promoted, reason = False, _not_beaten(content)
    elif holder is not None and holder.checkpoint == sha256(weights):
        promoted, reason = False, "no other network is better on val"
    elif unscored is not None and holder is not None:
        reason = f"{holder.architecture}, deployed so far, cannot be scored on these splits: {unscored}"
    elif holder is not None:
        ours, theirs = (Areas.of(test_predictions(folder)) for folder in (output / name, holder.folder(output)))
        difference = ours.minus(theirs)
        promoted, verb = difference.better, "beats" if difference.better else "is not shown to beat"
        reason = f"{name} {verb} {holder.architecture}, deployed so far ({_shown(difference.mean)})"
    keep = f"Keep {holder.architecture} of data version {holder.data_version}" if holder else "Deploy no network"
    missing = "is not given: models:/drive-assets@best exists once a network beats the baselines"
    points = "now points to it" if promoted else "still points to it" if holder else missing
    return Verdict(
        promoted=promoted,
        headline=f"Deploy {name}" if promoted else keep,
        reason=reason,
        alias=f"The alias best in MLflow's registry {points}.",
    )


def _not_beaten(content: Comparison) -> str:
    """That the best baseline is not beaten, by which margin, and whether test is too small to tell."""
    best = content.variants[0]
    others = any(row.beats_baseline for row in content.variants)
    who = f"{best.architecture}, the first on val, is not" if others else "no network is"
    mean = best.difference_to_baseline.mean if best.difference_to_baseline else None
    rarest = min(content.tasks, key=lambda task: best.test[task].event_count)
    events = best.test[rarest].event_count
    few = f"; test has {events} events of {rarest}, {FEW_EVENTS} are needed" if events < FEW_EVENTS else ""
    needed = _needed_hours(mean, best.test[rarest].hours) if mean and mean[1] > 0 else ""
    return f"{who} shown to beat {content.best_baseline} ({best.architecture}: {_shown(mean)}){few}{needed}"


def _needed_hours(difference: Interval, hours: float) -> str:
    """How much driving shows a gain, if test has less: the interval narrows with the root of the hours in test."""
    low, high = difference
    needed = hours * ((high - low) / 2 / GAIN) ** 2
    if needed <= hours:
        return ""
    return (
        f"; a gain of {GAIN} took {GAIN_HOURS} hours of driving in train (docs/experiments.md), and shows in about "
        f"{needed:.1f} hours of test, which has {hours:.1f}"
    )


def promote(evaluation: Evaluation, output: Path, weights: Path, training_key: str) -> Best:
    """Copy the weights and the files of their evaluation to a folder of their own, and point best.json to it."""
    best = Best(
        architecture=evaluation.architecture,
        data_version=evaluation.data_version,
        training_key=training_key,
        checkpoint=sha256(weights),
    )
    if not best.folder(output).is_dir():
        source = output / evaluation.architecture
        files = [source / name for name in (EVALUATION, PREDICTIONS.format("val"), PREDICTIONS.format("test"))]
        with atomic_path(best.folder(output)) as temporary:
            temporary.mkdir()
            shutil.copy(weights, temporary / WEIGHTS)
            for path in (weights.with_name(CALIBRATION), *files):
                shutil.copy(path, temporary)
    best.write(output / POINTER)
    return best


def _shown(interval: Interval | None) -> str:
    """The interval of a difference."""
    return f"{interval[0]:+.3f} to {interval[1]:+.3f} in mean PR-AUC on test" if interval else "difference undefined"
