"""The best model so far, kept with its weights: only one that is shown to be better takes its place."""

import shutil
from pathlib import Path

from model.common.files import atomic_path, sha256
from model.evaluation import calibration
from model.evaluation.paired import Areas
from model.evaluation.predictions import PREDICTIONS, Predictions
from model.evaluation.results import CALIBRATION, EVALUATION, Comparison, Evaluation, Interval, Result

POINTER, WEIGHTS = "best.json", "best_model.pt"


class Best(Result):
    """The content of best.json."""

    architecture: str
    data_version: str
    """Of the splits that it was trained on."""
    training_key: str
    checkpoint: str
    """SHA-256 of its weights; the first twelve digits name its folder in `best`."""

    def folder(self, output: Path) -> Path:
        return output / "best" / self.checkpoint[:12]


class Verdict(Result):
    """Whether the best of a comparison takes the incumbent's place, and why."""

    promoted: bool
    reason: str


def incumbent(output: Path) -> Best | None:
    """The best so far; None if there is none. DataError if what says so cannot be read."""
    return Best.read(output / POINTER) if (output / POINTER).is_file() else None


def judge(content: Comparison, output: Path, weights: Path, unscored: str | None = None) -> Verdict:
    """Whether a comparison's best beats the best baseline, random among them, and the incumbent on the same windows.

    Args:
        weights: the checkpoint of the comparison's best.
        unscored: why the incumbent could not be scored on these data; then it is in nobody's way.

    Raises:
        DataError: the checkpoint is not the one that was evaluated.
    """
    calibration.load(weights)
    best, holder = content.variants[0], incumbent(output)
    if content.baselines and not best.beats_baseline:
        difference = best.difference_to_baseline
        shown = _shown(difference.mean if difference else None)
        return Verdict(
            promoted=False, reason=f"{best.architecture} does not beat {content.best_baseline} (difference {shown})"
        )
    if holder is None:
        return Verdict(promoted=True, reason=f"{best.architecture} is the first to beat {content.best_baseline}")
    if holder.checkpoint == sha256(weights):
        return Verdict(promoted=False, reason=f"{best.architecture} is the best already")
    if unscored is not None:
        reason = f"{best.architecture} takes the place of {holder.architecture}, which has no figures here: {unscored}"
        return Verdict(promoted=True, reason=reason)
    ours, theirs = (
        Areas.of(Predictions.load(folder / PREDICTIONS.format("test")))
        for folder in (output / best.architecture, holder.folder(output))
    )
    difference = ours.minus(theirs)
    verb = "beats" if difference.better else "does not beat"
    reason = f"{best.architecture} {verb} {holder.architecture}, the best so far (difference {_shown(difference.mean)})"
    return Verdict(promoted=difference.better, reason=reason)


def promote(evaluation: Evaluation, output: Path, weights: Path, training_key: str) -> Best:
    """Keep a copy of the weights and what belongs to them, and point to it."""
    best = Best(
        architecture=evaluation.architecture,
        data_version=evaluation.data_version,
        training_key=training_key,
        checkpoint=sha256(weights),
    )
    if not best.folder(output).is_dir():
        with atomic_path(best.folder(output)) as temporary:
            temporary.mkdir()
            source = output / evaluation.architecture
            for path in (weights, weights.with_name(CALIBRATION), source / EVALUATION):
                shutil.copy(path, temporary / (WEIGHTS if path == weights else path.name))
            for name in ("val", "test"):
                shutil.copy(source / PREDICTIONS.format(name), temporary)
    best.write(output / POINTER)
    return best


def scored_on(best: Best, output: Path) -> str | None:
    """The data version that the incumbent was last scored on; None if that is unknown."""
    path = best.folder(output) / EVALUATION
    return Evaluation.read(path).data_version if path.is_file() else None


def _shown(interval: Interval | None) -> str:
    return "undefined" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"
