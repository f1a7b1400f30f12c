"""Baselines that a network has to beat: trivial models of the same windows, fitted on train, scored as networks are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model.common.errors import DataError
from model.dataset.lead import LAGS
from model.dataset.split_file import Split, read_split
from model.evaluation.lane import boxes_in_lane, lead_box
from model.evaluation.predictions import Predictions, last_frames
from model.evaluation.results import EVALUATION, Evaluation
from model.evaluation.scoring import evaluate_predictions
from model.recording.schema import ACTIONS

Features = npt.NDArray[np.float32]


def constant(split: Split) -> Features:
    """(W,1) no input: predicts the rate of positives in train for every window."""
    return np.zeros((len(split.window_start), 1), np.float32)


def last_state(split: Split) -> Features:
    """(W,2) whether the driver brakes and coasts at the last frame: the present action continues."""
    return split.state[last_frames(split), : len(ACTIONS)].astype(np.float32)


def speed_and_pedal(split: Split) -> Features:
    """(W,2) speed and accelerator position of the last frame."""
    last = last_frames(split)
    columns = [split.channel(name)[last] for name in ("SPEED", "ACCELERATOR_POS_D")]
    return np.nan_to_num(np.column_stack(columns))


def last_frame(split: Split) -> Features:
    """(W,·) every channel of the last frame, and its differences to earlier ones."""
    return _with_differences(split, split.telemetry)


def last_frame_with_lead_box(split: Split) -> Features:
    """(W,·) as `last_frame`, with the lead's log area and its growth, its bottom edge, and the number of boxes."""
    area, edge = lead_box(split)
    log_area = np.log(np.maximum(area, 1e-6))
    counts = np.column_stack([split.detection_mask.sum(axis=1), boxes_in_lane(split).sum(axis=1)])
    last = last_frames(split)
    boxes = np.column_stack([edge, counts]).astype(np.float32)[last]
    return np.hstack([last_frame(split), _with_differences(split, log_area[:, None]), boxes])


def _with_differences(split: Split, values: Features) -> Features:
    last = last_frames(split)
    lags = [lag for lag in LAGS if lag < split.window.length]
    return np.hstack([values[last], *(values[last] - values[last - lag] for lag in lags)])


def _line() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _trees() -> Any:
    return HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.06, max_leaf_nodes=15, min_samples_leaf=40, l2_regularization=1.0, random_state=0
    )


BASELINES: Mapping[str, tuple[Callable[[Split], Features], Callable[[], Any]]] = {
    "random": (constant, _line),
    "last_state": (last_state, _line),
    "logistic_speed_pedal": (speed_and_pedal, _line),
    "boosting_last_frame": (last_frame, _trees),
    "boosting_lead_box": (last_frame_with_lead_box, _trees),
}
"""Features and model by name."""


def evaluate_baselines(splits: Path, output: Path, like: Evaluation) -> dict[str, Evaluation]:
    """Fit each baseline on `splits`/train.h5, score it, and write the files of an evaluation to `output`/<name>.

    Existing results of the same data version, tasks and config are reused.

    Args:
        like: of a network: baselines are scored on the same data version, with the same tasks and config.

    Raises:
        DataError: a split is missing or of another data version.
    """
    if (done := _existing(output, like)) is not None:
        return done
    parts = {name: read_split(splits / f"{name}.h5", like.data_version) for name in ("train", "val", "test")}
    tasks = tuple(like.tasks)
    evaluations = {}
    for baseline in BASELINES:
        predict = fitted_baseline(baseline, parts["train"], tasks)
        raw = {name: Predictions.of(parts[name], tasks, predict(parts[name])) for name in ("val", "test")}
        evaluations[baseline], _ = evaluate_predictions(
            raw["val"], raw["test"], like.evaluation_config, output / baseline,
            architecture=baseline, data_version=like.data_version, epoch=None,
        )  # fmt: skip
    return evaluations


def fitted_baseline(baseline: str, train: Split, tasks: Sequence[str]) -> Callable[[Split], npt.NDArray[np.float64]]:
    """Predicts probabilities (W,tasks) of the windows of a split, by a baseline that is fitted on train."""
    features, model = BASELINES[baseline]
    inputs = features(train)
    used = np.isfinite(inputs).any(axis=0)  # train may have no lead vehicle, for example
    fitted = [_fit(train, inputs[:, used], task, model) for task in tasks]

    def predict(split: Split) -> npt.NDArray[np.float64]:
        values = features(split)[:, used]
        return np.column_stack([each(values) for each in fitted]).astype(float)

    return predict


def _existing(output: Path, like: Evaluation) -> dict[str, Evaluation] | None:
    try:
        found = {name: Evaluation.read(output / name / EVALUATION) for name in BASELINES}
    except DataError:
        return None
    same = ("data_version", "tasks", "evaluation_config")
    return found if all(getattr(each, of) == getattr(like, of) for each in found.values() for of in same) else None


def _fit(train: Split, inputs: Features, task: str, model: Callable[[], Any]) -> Callable[[Features], Any]:
    """Predicts probabilities (W,) from features; the rate of positives if train holds only one class."""
    values = train.labels[last_frames(train), train.label_names.index(task)]
    known = values >= 0
    if len(np.unique(values[known])) < 2:
        rate = float(values[known].mean()) if known.any() else 0.0
        return lambda features: np.full(len(features), rate)
    fitted = model()
    weights = {}
    if train.window_weight is not None:
        steps = [f"{name}__" for name in getattr(fitted, "named_steps", {})]
        weights[f"{steps[-1] if steps else ''}sample_weight"] = train.window_weight[known]
    fitted.fit(inputs[known], values[known] == 1, **weights)
    return lambda features: fitted.predict_proba(features)[:, 1]
