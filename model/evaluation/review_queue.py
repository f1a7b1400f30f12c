"""The worst misses and false alarms, and doubtful labels, of train and val, for people to look at; never of test.

Predictions are out of sample: each recording of train is predicted by a model that was trained on the others.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import GroupKFold

from model.common.errors import DataError
from model.common.files import atomic_path, write_json
from model.common.progress import Log
from model.dataset.review import CLIPS, COLUMNS, KINDS, QUEUE, Weights, moment_text
from model.dataset.split_file import Split, choose_windows, read_split
from model.evaluation.baselines import fitted_baseline
from model.evaluation.config import BOOSTING, EvaluationConfig, ReviewQueueConfig
from model.evaluation.events import Drives, runs
from model.evaluation.examples import examples_of, located
from model.evaluation.importance import predict
from model.evaluation.lane import lead_box
from model.evaluation.predictions import Predictions, last_frames
from model.evaluation.results import AlarmThreshold
from model.evaluation.scoring import choose_thresholds
from model.network.architectures import ARCHITECTURES
from model.recording.folder import Recording
from model.recording.schema import ACTIONS, DEFAULT_TASKS, HORIZONS_S, STATES
from model.recording.times import MAX_STEP_MS
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.loop import train
from model.training.precision import choose_device
from model.training.recipes import TrainingConfig

NO_REASON = "none found"
BEFORE_MS, AFTER_MS = 10_000, 5_000
"""What a clip shows around the moment, and where a reason is looked for."""
FRAMES_MS = (-4000, -2000, -1000, 0, 1000)
SAME_MS = 3_000
"""Items of one action and kind so close together are one."""
MOVING_KMH = 10.0
FROZEN = 8
"""Frames in which no channel changes while the car moves"""
Predict = Callable[[Path], npt.NDArray[np.float64]]
"""Path of a split file -> probabilities (W,tasks)"""


def learn(predictor: str, folder: Path, tasks: tuple[str, ...], recipe: TrainingConfig | None, version: str) -> Predict:
    """Train on `folder`/train.h5, a network with `folder`/val.h5 for its best epoch."""
    if recipe is None:
        return _of_splits(fitted_baseline("boosting_lead_box", read_split(folder / "train.h5"), tasks))
    return of_checkpoint(train(predictor, folder, folder / "model", recipe, version).best_model, recipe)


def of_checkpoint(path: Path, recipe: TrainingConfig) -> Predict:
    """A trained network."""
    model, device = load_checkpoint(path)[0], choose_device(recipe.device)
    model.to(device)
    return lambda split: predict(model, load_split(split, recipe, device), 1024)


def _of_splits(predict_split: Callable[[Split], npt.NDArray[np.float64]]) -> Predict:
    return lambda path: predict_split(read_split(path))


def recipe_of(predictor: str, checkpoint: Path, version: str) -> TrainingConfig | None:
    """The recipe of a published checkpoint; None for boosting. DataError if it was trained on other data."""
    if predictor == BOOSTING:
        return None
    if predictor not in ARCHITECTURES:
        raise DataError(f"predictor {predictor!r}: expected {BOOSTING} or one of {', '.join(ARCHITECTURES)}.")
    _, content = load_checkpoint(checkpoint, predictor)
    if content["data_version"] != version:
        raise DataError(
            f"{checkpoint} was trained on data version {content['data_version']}, the splits have {version}: train "
            f"{predictor} again, or use predictor {BOOSTING}."
        )
    return TrainingConfig(**content["training_config"])


def write_queue(
    splits: Path, output: Path, work: Path, config: ReviewQueueConfig, version: str, checkpoint: Path, recordings: Path,
    log: Log = print,
) -> pd.DataFrame:  # fmt: skip
    """Write queue.csv, a row a moment, and clips.json, what a page shows around each, into `output`.

    Args:
        work: a folder for the splits and trainings of the folds.
        checkpoint: of `config.predictor`, if that is an architecture: it predicts val.

    Raises:
        DataError: splits are missing or of another `version`, or the checkpoint is not of these splits.
    """
    recipe = recipe_of(config.predictor, checkpoint, version)
    tasks = DEFAULT_TASKS if recipe is None else tuple(recipe.tasks)
    parts = {name: read_split(splits / f"{name}.h5", version) for name in ("train", "val")}
    probabilities = _out_of_sample(parts["train"], splits, work, config, recipe, version, recordings, log)
    if recipe is None:
        on_val = fitted_baseline("boosting_lead_box", parts["train"], tasks)(parts["val"])
    else:
        on_val = of_checkpoint(checkpoint, recipe)(splits / "val.h5")
    found, windows = [], {}
    for name, values in {"train": probabilities, "val": on_val}.items():
        if values is None:
            continue
        windows[name] = Predictions.of(parts[name], tasks, values)
        found += [{**item, "split": name} for item in _items(parts[name], windows[name], config)]
    chosen = _worst(pd.DataFrame(found, columns=[*COLUMNS, "at_ms", "frame"]), config.items)
    items: list[dict[str, Any]] = chosen.to_dict("records")  # type: ignore[assignment]  # names are texts
    clips = [_clip(item, parts[item["split"]], windows[item["split"]], recordings) for item in items]
    situations = {name: _situations(part) for name, part in parts.items()}
    with atomic_path(output / QUEUE) as temporary:
        chosen[list(COLUMNS)].round(4).to_csv(temporary, index=False, lineterminator="\n")
    how = {"predictor": config.predictor, "folds": config.folds, "false_alarms_per_hour": config.false_alarms_per_hour}
    write_json(output / CLIPS, {"data_version": version, **how, "situations": situations, "clips": clips})
    return chosen


def _out_of_sample(
    split: Split, splits: Path, work: Path, config: ReviewQueueConfig, recipe: TrainingConfig | None, version: str,
    recordings: Path, log: Log,
) -> npt.NDArray[np.float64] | None:  # fmt: skip
    """(W,tasks) probabilities of train, each by a model of other drives; None if there are none."""
    drives = [str(Recording(recordings / name).imported.get("drive") or name) for name in split.recordings]
    group = np.array(drives)[split.recording[last_frames(split)]]
    tasks = DEFAULT_TASKS if recipe is None else tuple(recipe.tasks)
    folds = min(config.folds, len(np.unique(group)))
    if folds < 2:
        log("Train has a single drive, which no model of other drives can predict: only val is in the queue")
        return None
    weights = window_weights(split)
    result = np.zeros((len(group), len(tasks)))
    for number, (others, held) in enumerate(GroupKFold(folds).split(group, groups=group), 1):
        folder, fold_version = work / f"fold_{number}", f"{version}-{number}-of-{folds}"
        held_out, chosen = folder / "held" / "train.h5", np.isin(np.arange(len(group)), others)
        choose_windows(splits / "train.h5", folder / "train.h5", weights * chosen, fold_version)
        choose_windows(splits / "train.h5", held_out, (~chosen).astype(np.float32), fold_version)
        choose_windows(
            splits / "val.h5", folder / "val.h5", window_weights(read_split(splits / "val.h5")), fold_version
        )
        result[held] = learn(config.predictor, folder, tasks, recipe, fold_version)(held_out)
        shutil.rmtree(folder)
        log(f"Fold {number} of {folds}: {len(held):,} windows predicted")
    return result


def window_weights(split: Split) -> Weights:
    """(W,) weights of the windows of a split."""
    return np.ones(len(split.window_start), np.float32) if split.window_weight is None else split.window_weight


def _items(split: Split, predictions: Predictions, config: ReviewQueueConfig) -> Iterator[dict[str, Any]]:
    """All misses, false alarms and doubtful labels of a split, each with its score and reason."""
    scoring = EvaluationConfig(false_alarms_per_hour=[config.false_alarms_per_hour])
    clues = Clues(split)
    for column, task in enumerate(predictions.tasks):
        drives = Drives.of(predictions.task(column))
        # The one with the best F1 too: a short split keeps no budget, and would have no false alarms.
        usable = [each for each in choose_thresholds(drives.windows, scoring) if each.on is not None]
        threshold = min(usable, key=lambda each: each.on or 1.0, default=AlarmThreshold(budget=None, on=None, off=None))
        on, moments = threshold.on or 1.0, list[tuple[int, dict[str, Any]]]()
        for moment, example in examples_of(drives, threshold, scoring):
            p = example["probability"]
            score = 1 - p / on if example["kind"] == KINDS[0] else (p - on) / max(1 - on, 1e-9)
            moments.append((moment, {"kind": example["kind"], "probability": p, "score": score}))
        moments += _doubtful(drives, split, clues)
        for moment, item in sorted(moments, key=itemgetter(0)):
            if item["kind"] in KINDS:
                place = located(split, *drives.place(moment))
                action = task.split("_")[0]
                reason = clues.reason(place["frame"], action)
                item |= {"task": task, "threshold": on, "time": moment_text(place["time_ms"]), "reason": reason}
                yield {**item, **{key: place[key] for key in ("recording", "at_ms", "frame")}}


def _doubtful(drives: Drives, split: Split, clues: "Clues") -> Iterator[tuple[int, dict[str, Any]]]:
    """Runs of windows whose label contradicts the deceleration; the score is how far the prediction is off."""
    windows = drives.windows
    frame = {(number, at): row for row, (number, at) in enumerate(zip(split.recording, split.time_ms, strict=True))}
    last = np.array([frame[key] for key in zip(windows.recording, windows.time_ms, strict=True)], int)
    doubtful = clues.contradicts(windows.tasks[0])[last]
    for first, end in runs(doubtful, drives.t, drives.merge_ms):
        rows = np.flatnonzero((drives.t >= first) & (drives.t <= end) & doubtful)
        off = np.abs(windows.labels[rows] - windows.probabilities[rows])
        worst = rows[off.argmax()]
        p = float(windows.probabilities[worst])
        yield int(drives.t[worst]), {"kind": KINDS[2], "probability": p, "score": float(off.max())}


class Clues:
    """What in a split may explain an error. Each is a hint for people, not a finding."""

    def __init__(self, split: Split) -> None:
        self.split, self.lead = split, np.isfinite(lead_box(split)[0])
        self.speed = split.channel("SPEED")

    def contradicts(self, task: str) -> npt.NDArray[np.bool_]:
        """(F,) frames of a moving car whose label says braking while it does not slow, nor a second later; or a pressed
        accelerator without the brake while it slows, and a second later."""
        action, horizon = task.split("_")
        names = [f"slow_{min(int(horizon[:-1]) + later, max(HORIZONS_S))}s" for later in (0, 1)]
        if not {*names} <= {*self.split.label_names}:
            return np.zeros(len(self.split.labels), bool)
        brake, coast, slow, later = (
            self.split.labels[:, self.split.label_names.index(name)]
            for name in (f"brake_{horizon}", f"coast_{horizon}", *names)
        )
        if action == "brake":
            wrong = (brake == 1) & (slow == 0) & (later == 0)
        else:
            wrong = (coast == 0) & (brake == 0) & (slow == 1) & (later == 1)
        return np.asarray(wrong & ~(self.speed < MOVING_KMH))

    def reason(self, frame: int, action: str) -> str:
        """The first clue around a frame."""
        split = self.split
        since = split.time_ms - split.time_ms[frame]
        near = (split.recording == split.recording[frame]) & (since >= -BEFORE_MS) & (since <= AFTER_MS)
        rows = np.flatnonzero(near)
        before = self.lead[rows[rows <= frame]]
        unknown = np.all([split.labels[rows, split.label_names.index(f"{name}_1s")] < 0 for name in ACTIONS], axis=0)
        steps, still = np.diff(split.time_ms[rows]), np.all(np.diff(split.telemetry[rows], axis=0) == 0, axis=1)
        still &= self.speed[rows[1:]] > MOVING_KMH
        longest = max((sum(1 for _ in run) for is_still, run in itertools.groupby(still) if is_still), default=0)
        clues = {
            "label contradicts deceleration": self.contradicts(f"{action}_1s")[rows].any(),
            "lead lost by the detector": before[:-4].sum() >= 3 and not before[-4:].all(),
            "driver assistance": (unknown[:-4] & (steps[: len(unknown) - 4] <= MAX_STEP_MS)).sum() >= 3,
            "sensor": (steps > MAX_STEP_MS).any() or longest >= FROZEN,
        }
        return next((text for text, holds in clues.items() if holds), NO_REASON)


def _worst(found: pd.DataFrame, most: int) -> pd.DataFrame:
    """The worst of each kind in turn; of those of one action at about one moment, the worst."""
    found = found.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
    taken: dict[tuple[str, ...], list[int]] = {}
    is_first = []
    columns = (found[name].tolist() for name in ("recording", "kind", "task", "at_ms"))
    for recording, kind, task, at_ms in zip(*columns, strict=True):
        times = taken.setdefault((recording, kind, task.split("_")[0]), [])
        is_first.append(all(abs(at_ms - time) > SAME_MS for time in times))
        times.append(at_ms)
    found = found[np.array(is_first, bool)]
    place = found.groupby("kind").cumcount()
    return found.loc[place.sort_values(kind="stable").index[:most]].sort_values("score", ascending=False, kind="stable")


def _clip(item: dict[str, Any], split: Split, predictions: Predictions, recordings: Path) -> dict[str, Any]:
    """What a page shows around a moment; curves as seconds and shares of their ranges."""
    task, at_ms, number = item["task"], item["at_ms"], split.recording[item["frame"]]

    def curve(of: Split | Predictions, values: npt.NDArray[Any], own: npt.NDArray[Any]) -> list[list[float]]:
        since = of.time_ms - at_ms
        near = (own == number) & (since >= -BEFORE_MS) & (since <= AFTER_MS)
        shown = np.column_stack([since[near] / 1000, values[near]]).round(3)
        return [row for row in shown.tolist() if np.isfinite(row).all()]

    channels = {"speed": split.channel("SPEED") / 150, "pedal": split.channel("ACCELERATOR_POS_D") / 100}
    channels["action"] = split.state[:, STATES.index(task.split("_")[0])] == 1
    predicted = predictions.probabilities[:, predictions.tasks.index(task)]
    rows = np.flatnonzero(split.recording == number)
    shown = [rows[np.abs(split.time_ms[rows] - at_ms - each).argmin()] for each in FRAMES_MS]
    names = _frame_names(recordings / item["recording"])
    return {
        **{name: item[name] for name in COLUMNS},
        **{name: curve(split, values, split.recording) for name, values in channels.items()},
        "predicted": curve(predictions, predicted, predictions.recording),
        "frames": list(dict.fromkeys(names[at] for row in shown if (at := int(split.clock_ms[row])) in names)),
    }


@cache
def _frame_names(folder: Path) -> dict[int, str]:
    """The names of a recording's frames by their time; none if the recording was removed."""
    recording = Recording(folder)
    if not recording.telemetry_path.is_file():
        return {}
    telemetry, frames = recording.telemetry()[0], recording.frames()
    times = zip(telemetry["t"].tolist(), telemetry["Time"].tolist(), strict=True)
    return {at: frames[time].name for at, time in times if time in frames}


def _situations(split: Split) -> dict[str, float]:
    """Shares of the windows that end in frequent situations."""
    last = last_frames(split)
    stands = np.abs(split.channel("SPEED")[last]) < 1
    return {
        "standing": float(stands.mean()),
        "empty road": float((~split.detection_mask[last].any(axis=1)).mean()),
    }
