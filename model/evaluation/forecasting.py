"""What a network foresees in one recording: probabilities, and alarms and onsets as the evaluation counts them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.files import atomic_path, sha256
from model.dataset.split_file import Split
from model.dataset.windows import Frames, WindowConfig, join_recording
from model.evaluation.best import POINTER, WEIGHTS, incumbent
from model.evaluation.config import EvaluationConfig
from model.evaluation.events import Alarm, Drives
from model.evaluation.forecast import (
    ALARM,
    ALARMS,
    FALSE,
    FORECAST,
    FOUND,
    MISSED,
    PREDICTIONS,
    REASON,
    UNKNOWN,
    Forecast,
    Moment,
)
from model.evaluation.predictions import Predictions
from model.evaluation.predictor import Predictor
from model.evaluation.results import COMPARISON, EVALUATION, AlarmThreshold, Comparison, Evaluation
from model.recording.folder import Recording
from model.recording.labels import not_driven
from model.recording.schema import TASKS, TIME, WINDOW_FRAMES
from model.recording.times import nearest_rows, separated_times

BATCH = 512


def choose_network(evaluations: Path, checkpoints: Path, architecture: str = "") -> tuple[Path, Path, str]:
    """The weights of a network, the folder of its evaluation, and why it was chosen.

    Args:
        architecture: empty: the network with the alias `best`; where none has it, the first of the comparison.

    Raises:
        DataError: there is no comparison yet, or one of the files cannot be read.
    """
    if architecture:
        return checkpoints / architecture / WEIGHTS, evaluations / architecture, f"{architecture} was asked for."
    if (holder := incumbent(evaluations)) is not None:
        folder = holder.folder(evaluations)
        return folder / WEIGHTS, folder, f"{holder.architecture} has the alias best."
    if not (evaluations / COMPARISON).is_file():
        raise DataError(
            f"No network has the alias best ({evaluations / POINTER} is missing): train, evaluate and compare networks "
            "first, or name an evaluated one with --architecture (architecture in the launchpad)."
        )
    first = Comparison.read(evaluations / COMPARISON).best
    reason = "No network has the alias best, as none is shown to beat the baselines: "
    reason += f"{first} is the first of the comparison."
    return checkpoints / first / WEIGHTS, evaluations / first, reason


def write_forecast(
    recording: Path,
    network: tuple[Path, Path, str],
    budget: float,
    split: str = "",
    lengths: Mapping[str, int] = MappingProxyType({}),
) -> Forecast:
    """Write predictions.csv and predictions.json beside the annotations of a recording.

    Args:
        network: as `choose_network` returns it.
        lengths: frames of a window by data version; WINDOW_FRAMES for others.

    Raises:
        DataError: the network was not evaluated, keeps no such budget, or needs inputs that the recording lacks.
    """
    weights, evaluation_folder, chosen = network
    predictor, own = Predictor(weights), Recording(recording)
    architecture, data_version = predictor.content["architecture"], predictor.content["data_version"]
    length = lengths.get(data_version, WINDOW_FRAMES)
    if predictor.calibrator is None:
        raise DataError(f"{weights} has no calibration and no thresholds: materialise evaluation for {architecture}.")
    evaluation = Evaluation.read(evaluation_folder / EVALUATION)
    thresholds = {task: _threshold(evaluation, task, budget) for task in predictor.config.tasks}
    telemetry, _ = own.telemetry()
    predictions = predict_recording(own, predictor, length, telemetry)
    times = separated_times(telemetry)
    spans = list(find_moments(predictions, thresholds, evaluation.evaluation_config))
    places = nearest_rows(times, np.array([(span.start, span.end) for span in spans], np.int64).reshape(-1, 2))
    moments = [
        Moment(**span.about, row=row, end=end, time=telemetry[TIME].iloc[row])
        for span, (row, end) in zip(spans, places.tolist(), strict=True)
    ]
    table = _table(own, telemetry, predictions, moments, length)
    with atomic_path(recording / PREDICTIONS) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.4f")
    result = Forecast(
        architecture=architecture,
        data_version=data_version,
        checkpoint=sha256(weights),
        chosen=chosen,
        split=split,
        budget=budget,
        thresholds=thresholds,
        rows=len(table),
        predicted=len(predictions.time_ms),
        moments=sorted(moments, key=lambda moment: (moment.row, moment.task)),
    )
    result.write(recording / FORECAST)
    return result


def predict_recording(
    own: Recording, predictor: Predictor, length: int = WINDOW_FRAMES, telemetry: pd.DataFrame | None = None
) -> Predictions:
    """Calibrated probabilities of each row of an annotated recording with `length` frames up to it; it needs no labels.

    Raises:
        DataError: it is not annotated, or lacks what the network needs.
    """
    if telemetry is None:
        telemetry, _ = own.telemetry()
    content = predictor.content
    inputs, classes = tuple(content["inputs"]), tuple(content["class_names"])
    if missing := [name for name in inputs if name not in telemetry]:
        raise DataError(
            f"{own.telemetry_path} has no column {', '.join(missing)}, which {content['architecture']} was trained "
            f"with: name a network that was trained on {', '.join(name for name in inputs if name in telemetry)} alone."
        )
    config = WindowConfig(length=length, stride=1, required_labels=[], inputs=list(inputs))
    labels = own.label_config().replace(coast_threshold=content["model_config"]["coast_threshold"])
    arrays = join_recording(own, config, telemetry, labels)
    if arrays.traits.class_names != classes:
        raise DataError(
            f"{own.annotations_path} has the classes {', '.join(arrays.traits.class_names)}, and "
            f"{content['architecture']} was trained with {', '.join(classes)}: annotate with the detector of its data."
        )
    frames = {name: getattr(arrays, name) for name in Frames.__dataclass_fields__}
    split = Split(
        **frames,
        recording=np.zeros(len(arrays.time_ms), np.int16),
        region=np.array([arrays.region], np.int32),
        recordings=(own.name,),
        feature_names=inputs,
        label_names=TASKS,
        class_names=classes,
        coast_threshold=labels.coast_threshold,
        window=config,
        fingerprint="",
    )
    tasks = tuple(predictor.config.tasks)
    parts = [np.empty((0, len(tasks)))]
    for start in range(0, len(split.window_start), BATCH):
        rows = split.window_start[start : start + BATCH, None] + np.arange(length)
        windows = {name: getattr(split, name)[rows] for name in ("telemetry", "detections", "detection_mask")}
        found = predictor.predict({**windows, "region": np.repeat(split.region, len(rows), axis=0)})
        parts.append(np.column_stack([found[task] for task in tasks]))
    return Predictions.of(split, tasks, np.concatenate(parts))


class Span(NamedTuple):
    """An onset or an alarm in ms of `Predictions.time_ms`."""

    start: int
    end: int
    about: dict[str, Any]
    """The other fields of its `Moment`"""


def find_moments(
    predictions: Predictions, thresholds: Mapping[str, AlarmThreshold], config: EvaluationConfig
) -> Iterator[Span]:
    """The onsets and alarms of one recording.

    Onsets are found, alarms counted and called false in the windows whose label is known, as in the evaluation. Other
    alarms, such as those in the last seconds of a drive, have an unknown outcome.
    """
    for column, task in enumerate(predictions.tasks):
        drives, on = Drives.of(predictions.task(column)), thresholds[task].on
        alarms, leads = drives.alarms(on, config)
        for onset, lead in zip(drives.onset_ms.tolist(), leads.tolist(), strict=True):
            before = slice(*np.searchsorted(drives.t, (onset - drives.span_ms, onset)))
            highest = float(drives.windows.probabilities[before].max(initial=0.0))
            found = {"kind": MISSED} if np.isnan(lead) else {"kind": FOUND, "lead_s": lead}
            yield Span(onset, onset, {"task": task, "probability": highest, **found})
        every = replace(predictions, known=np.ones_like(predictions.known)).task(column)
        rings, _ = Drives.of(replace(every, labels=np.zeros_like(every.labels))).alarms(on, config)
        kinds = [(alarm, FALSE if alarm.false else ALARM) for alarm in alarms]
        kinds += [(ring, UNKNOWN) for ring in rings if not any(_overlap(ring, alarm) for alarm in alarms)]
        for alarm, kind in kinds:
            about = {"task": task, "kind": kind, "probability": alarm.probability}
            yield Span(alarm.start_ms, alarm.end_ms, about)


def _overlap(one: Alarm, other: Alarm) -> bool:
    return one.start_ms <= other.end_ms and other.start_ms <= one.end_ms


def _threshold(evaluation: Evaluation, task: str, budget: float) -> AlarmThreshold:
    thresholds = {alarm.threshold.budget: alarm.threshold for alarm in evaluation.test[task].alarms}
    if budget not in thresholds:
        known = ", ".join(f"{each:g}" for each in thresholds)
        raise DataError(
            f"No threshold was chosen for {budget:g} false alarms per hour: choose {known}, or evaluate with this "
            "budget in false_alarms_per_hour."
        )
    return thresholds[budget]


def _table(
    own: Recording, telemetry: pd.DataFrame, predictions: Predictions, moments: Sequence[Moment], length: int
) -> pd.DataFrame:
    """predictions.csv: a row per valid row of the telemetry."""
    rows = np.searchsorted(separated_times(telemetry), predictions.time_ms)
    values = np.full((len(telemetry), len(predictions.tasks)), np.nan)
    values[rows] = predictions.probabilities
    is_predicted = np.isin(np.arange(len(telemetry)), rows)
    ringing = _ringing(moments, is_predicted)
    reason = np.full(len(telemetry), f"fewer than {length} frames up to it without a gap", object)
    for text, away in not_driven(telemetry, own.label_config().coast_threshold).items():
        reason[away] = text
    reason[~np.isin(telemetry[TIME], own.annotations().time)] = "its frame is not annotated"
    reason[is_predicted] = ""
    columns = {TIME: telemetry[TIME], **dict(zip(predictions.tasks, values.T, strict=True))}
    return pd.DataFrame({**columns, ALARMS: ringing, REASON: reason})


def _ringing(moments: Sequence[Moment], is_predicted: npt.NDArray[np.bool_]) -> list[str]:
    """The tasks whose alarm rings at each row."""
    tasks: list[set[str]] = [set() for _ in is_predicted]
    for moment in moments:
        if moment.kind not in (MISSED, FOUND):
            for row in range(moment.row, moment.end + 1):
                tasks[row].add(moment.task)
    return [" ".join(sorted(names)) if known else "" for names, known in zip(tasks, is_predicted, strict=True)]
