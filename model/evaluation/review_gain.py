"""Whether the review of train helps: the same training on train as it was, as reviewed, and changed at random.

The arms share val, test, recipe and seeds. The random arm gives the weights of the review to windows drawn at random:
what it gains or loses is what fewer windows do. Test is never filtered.
"""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.common.progress import Log
from model.dataset.review import REVIEWED, Review, Weights
from model.dataset.split_file import choose_windows, read_split, write_split
from model.dataset.windows import WindowConfig, join_recording
from model.evaluation import alarms
from model.evaluation.config import EvaluationConfig, ReviewGainConfig
from model.evaluation.events import Drives
from model.evaluation.measures import blocks, bootstrap_draws, interval
from model.evaluation.paired import Areas
from model.evaluation.predictions import Predictions
from model.evaluation.results import ARMS, ArmFigures, Interval, ReviewGain
from model.evaluation.review_queue import learn, recipe_of
from model.recording.folder import Recording
from model.recording.schema import DEFAULT_TASKS

SAMPLES = 500
Array = npt.NDArray[np.float64]


def prove(
    splits: Path, recordings: Path, members: list[str], review: Review, work: Path, config: ReviewGainConfig,
    version: str, checkpoint: Path, log: Log = print,
) -> ReviewGain:  # fmt: skip
    """Train the three arms with each seed, and compare them on test; nothing is trained if no tag changes train.

    Args:
        members: the recordings of train.
        review: as the manifest of the splits records it.
        work: a folder for the splits and trainings of the arms.
        checkpoint: of `config.predictor`, if that is an architecture, for its recipe.

    Raises:
        DataError: the splits are of another `version`, or recordings are gone.
    """
    recipe = recipe_of(config.predictor, checkpoint, version)
    tasks = DEFAULT_TASKS if recipe is None else tuple(recipe.tasks)
    test, window = read_split(splits / "test.h5", version), read_split(splits / "train.h5", version).window
    weights = _weights(recordings, members, review, window)
    if (weights == 1).all():
        return ReviewGain(data_version=version, **config.model_dump(), changed=0, arms={}, foreseen={}, onset_pr_auc={})
    untouched = Review(review.config, ())
    write_split(work / "train.h5", [recordings / name for name in members], window, version, untouched)
    predicted: dict[str, list[Predictions]] = {arm: [] for arm in ARMS}
    for seed in range(config.seeds):
        shuffled = np.random.default_rng(seed).permutation(weights)
        for arm, of_arm in zip(ARMS, (np.ones_like(weights), weights, shuffled), strict=True):
            folder, arm_version = work / f"{arm}_{seed}", f"{version}-{arm}-{seed}"
            choose_windows(work / "train.h5", folder / "train.h5", of_arm, arm_version)
            for name in ("val", "test"):
                part = read_split(splits / f"{name}.h5")
                ones = np.ones(len(part.window_start), np.float32) if part.window_weight is None else part.window_weight
                choose_windows(splits / f"{name}.h5", folder / f"{name}.h5", ones, arm_version)
            own = None if recipe is None else recipe.replace(seed=recipe.seed + seed)
            values = learn(config.predictor, folder, tasks, own, arm_version)(folder / "test.h5")
            predicted[arm].append(Predictions.of(test, tasks, values))
            shutil.rmtree(folder)
            log(f"Seed {seed + 1} of {config.seeds}, {arm}: trained on {int((of_arm > 0).sum()):,} windows")
    return _compared(predicted, weights, config, version)


def _weights(recordings: Path, members: list[str], review: Review, window: WindowConfig) -> Weights:
    """The weight by tags of each window of train that thinning leaves."""
    every = []
    for name in members:
        arrays = join_recording(Recording(recordings / name), window)
        both, _ = review.weights(name, REVIEWED[0], arrays, window.length)
        thinned, _ = Review(review.config).weights(name, REVIEWED[0], arrays, window.length)
        every.append(both[thinned > 0])
    return np.concatenate(every)


def _compared(
    predicted: dict[str, list[Predictions]], weights: Weights, config: ReviewGainConfig, version: str
) -> ReviewGain:
    first = predicted[ARMS[0]][0]
    block = blocks(first.time_ms, first.recording)
    draws = bootstrap_draws(block, SAMPLES, seed=0)
    foreseen = {arm: [_foreseen(each, block, config) for each in predicted[arm]] for arm in ARMS}
    areas = {arm: [Areas.of(each, SAMPLES).onset for each in predicted[arm]] for arm in ARMS}
    shares = {arm: np.mean([_share(hits, events, draws) for hits, events in foreseen[arm]], axis=0) for arm in ARMS}
    onset = {arm: np.nanmean(np.stack(areas[arm]), axis=(0, 1)) for arm in ARMS}
    once = np.ones((1, draws.shape[1]), np.int64)
    arms = {
        arm: ArmFigures(
            windows=int(len(weights) if arm == ARMS[0] else (weights > 0).sum()),
            foreseen=float(np.mean([_share(hits, events, once)[0] for hits, events in foreseen[arm]])),
            onset_pr_auc=float(np.nanmean(onset[arm])) if np.isfinite(onset[arm]).any() else None,
        )
        for arm in ARMS
    }

    def to(other: str, of: dict[str, Array]) -> Interval | None:
        return interval(of["reviewed"] - of[other])

    return ReviewGain(
        data_version=version,
        predictor=config.predictor,
        seeds=config.seeds,
        false_alarms_per_hour=config.false_alarms_per_hour,
        changed=int((weights != 1).sum()),
        arms=arms,
        foreseen={other: to(other, shares) for other in (ARMS[0], ARMS[2])},
        onset_pr_auc={other: to(other, onset) for other in (ARMS[0], ARMS[2])},
    )


def _foreseen(predictions: Predictions, block: npt.NDArray[np.int64], config: ReviewGainConfig) -> tuple[Array, Array]:
    """(blocks,) onsets of all tasks that are foreseen, and onsets, at the budget of false alarms on test itself, so
    that each arm rings as often."""
    scoring = EvaluationConfig(false_alarms_per_hour=[config.false_alarms_per_hour])
    hits, events = np.zeros(block.max() + 1), np.zeros(block.max() + 1)
    for column in range(len(predictions.tasks)):
        own = block[predictions.known[:, column]]
        drives = Drives.of(predictions.task(column))
        (threshold,) = alarms.choose_thresholds(drives, scoring)
        _, lead = drives.alarms(threshold.on, scoring)
        place = own[np.searchsorted(drives.t, drives.onset_ms, "right") - 1]
        np.add.at(events, place, 1)
        np.add.at(hits, place[np.isfinite(lead)], 1)
    return hits, events


def _share(hits: Array, events: Array, draws: npt.NDArray[np.int64]) -> Array:
    """(samples,) share of the onsets that are foreseen; NaN for a resample without onsets."""
    total = draws @ events
    return np.divide(draws @ hits, total, out=np.full(len(draws), np.nan), where=total > 0)
