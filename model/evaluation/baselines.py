"""Baselines that a network has to beat: trivial models of the same windows, fitted on train, scored as networks are."""

from collections.abc import Callable, Mapping
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
from model.evaluation.config import EvaluationConfig
from model.evaluation.lane import boxes_in_lane, lead_box
from model.evaluation.predictions import Predictions, last_frames
from model.evaluation.results import EVALUATION, Evaluation
from model.evaluation.scoring import evaluate_predictions

Features = npt.NDArray[np.float32]


def constant(split: Split) -> Features:
    """(W,1) no input: predicts the rate of positives in train for every window."""
    return np.zeros((len(split.window_start), 1), np.float32)


def last_state(split: Split) -> Features:
    """(W,2) whether the driver brakes and coasts at the last frame: the present action continues."""
    return split.state[last_frames(split)].astype(np.float32)


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


def evaluate_baselines(
    splits: Path, output: Path, tasks: tuple[str, ...], data_version: str, config: EvaluationConfig
) -> dict[str, Evaluation]:
    """Fit each baseline on `splits`/train.h5, score it, and write the files of an evaluation to `output`/<name>.

    Existing results of the same data, tasks and config are reused.

    Raises:
        DataError: a split is missing or of another data version.
    """
    if (done := _existing(output, tasks, data_version, config)) is not None:
        return done
    parts = {name: read_split(splits / f"{name}.h5", data_version) for name in ("train", "val", "test")}
    evaluations = {}
    for baseline, (features, model) in BASELINES.items():
        inputs = {name: features(split) for name, split in parts.items()}
        used = np.isfinite(inputs["train"]).any(axis=0)  # train may have no lead vehicle, for example
        inputs = {name: values[:, used] for name, values in inputs.items()}
        raw = {
            name: Predictions.of(parts[name], tasks, _fit_and_predict(parts["train"], inputs, name, tasks, model))
            for name in ("val", "test")
        }
        evaluations[baseline], _ = evaluate_predictions(
            raw["val"], raw["test"], config, output / baseline,
            architecture=baseline, data_version=data_version, epoch=None,
        )  # fmt: skip
    return evaluations


def _existing(
    output: Path, tasks: tuple[str, ...], data_version: str, config: EvaluationConfig
) -> dict[str, Evaluation] | None:
    try:
        found = {name: Evaluation.read(output / name / EVALUATION) for name in BASELINES}
    except DataError:
        return None
    expected = data_version, list(tasks), config
    same = all((e.data_version, e.tasks, e.evaluation_config) == expected for e in found.values())
    return found if same else None


def _fit_and_predict(
    train: Split, inputs: Mapping[str, Features], name: str, tasks: tuple[str, ...], model: Callable[[], Any]
) -> npt.NDArray[np.float64]:
    """(W,tasks) probabilities of a split; the rate of positives if train holds only one class."""
    labels = train.labels[last_frames(train)]
    columns = []
    for task in tasks:
        values = labels[:, train.label_names.index(task)]
        known = values >= 0
        if len(np.unique(values[known])) < 2:
            rate = float(values[known].mean()) if known.any() else 0.0
            columns.append(np.full(len(inputs[name]), rate))
            continue
        fitted = model().fit(inputs["train"][known], values[known] == 1)
        columns.append(fitted.predict_proba(inputs[name])[:, 1])
    return np.column_stack(columns).astype(float)
