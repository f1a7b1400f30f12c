"""Figures from predictions: the same for networks and baselines. Thresholds come from val, nothing from test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation import alarms, calibration, measures
from model.evaluation.calibration import Calibrator
from model.evaluation.config import EvaluationConfig
from model.evaluation.events import Drives
from model.evaluation.predictions import PREDICTIONS, Predictions
from model.evaluation.results import (
    EVALUATION,
    SCHEMA_VERSION,
    AlarmThreshold,
    Evaluation,
    Interval,
    OnsetFigures,
    Slice,
    SplitFigures,
    TaskFigures,
)

SPEEDS = {"0 to 50 km/h": (0, 50), "50 to 100 km/h": (50, 100), "100 km/h and above": (100, np.inf)}
BOXES_IN_LANE = ("no box in the lane", "one box in the lane", "more boxes in the lane")


def evaluate_predictions(
    raw_val: Predictions,
    raw_test: Predictions,
    config: EvaluationConfig,
    output: Path,
    checkpoint: str = "",
    **details: Any,
) -> tuple[Evaluation, Calibrator]:
    """Calibrate and choose thresholds on val, score, and write metrics.json and predictions_{val,test}.npz.

    Args:
        checkpoint: SHA-256 of the checkpoint that predicted.
        details: the other fields of the `Evaluation`, such as `architecture` and `data_version`.
    """
    calibrator = calibration.fit(raw_val, config.calibration, checkpoint)
    val, test = calibrator.apply(raw_val), calibrator.apply(raw_test)
    thresholds = {task: choose_thresholds(val.task(column), config) for column, task in enumerate(val.tasks)}
    evaluation = Evaluation(
        schema_version=SCHEMA_VERSION,
        evaluation_config=config,
        tasks=list(val.tasks),
        val=score(val, raw_val, thresholds, config),
        test=score(test, raw_test, thresholds, config),
        **details,
    )
    val.save(output / PREDICTIONS.format("val"))
    test.save(output / PREDICTIONS.format("test"))
    evaluation.write(output / EVALUATION)
    return evaluation, calibrator


def choose_thresholds(windows: Predictions, config: EvaluationConfig) -> list[AlarmThreshold]:
    """The thresholds of a task: with the best F1, None if there is no positive, and one per budget of false alarms."""
    on = measures.choose_threshold(windows.labels, windows.probabilities)
    best_f1 = AlarmThreshold(budget=None, on=on, off=None if on is None else on * config.alarm_off_share)
    return [best_f1, *alarms.choose_thresholds(Drives.of(windows), config)]


def score(
    predictions: Predictions,
    raw: Predictions,
    thresholds: Mapping[str, Sequence[AlarmThreshold]],
    config: EvaluationConfig,
) -> SplitFigures:
    """All figures of a split at the thresholds of each task; `raw` are the predictions before calibration."""
    tasks = {}
    for column, task in enumerate(predictions.tasks):
        windows, before = predictions.task(column), raw.task(column).probabilities
        best_f1, *budgets = thresholds[task]
        figures = measures.binary_metrics(windows.labels, windows.probabilities, best_f1.on)
        drives = Drives.of(windows)
        tasks[task] = TaskFigures(
            **figures,
            uncalibrated_error=measures.expected_calibration_error(windows.labels, before),
            pr_auc_interval=_intervals(windows, config)[0],
            random_pr_auc=figures["positive_rate"],
            events=None if best_f1.on is None else alarms.alarm_figures(drives, best_f1, config),
            onset=_onset_figures(windows, config),
            alarms=[alarms.alarm_figures(drives, threshold, config) for threshold in budgets],
            alarm_curve=alarms.alarm_curve(drives, config),
            slices=_slices(windows, config),
        )
    return SplitFigures.of(tasks)


def _slices(windows: Predictions, config: EvaluationConfig) -> list[Slice]:
    """Onset figures by speed, by boxes in the own lane, and by recording; with fewer resamples."""
    few = config.replace(bootstrap_samples=max(2, config.bootstrap_samples // 5))
    speed, boxes = windows.speed, windows.lane_boxes.clip(max=2)
    parts = [("speed", name, (speed >= low) & (speed < high)) for name, (low, high) in SPEEDS.items()]
    parts += [("traffic", name, boxes == number) for number, name in enumerate(BOXES_IN_LANE)]
    parts += [("recording", name, windows.recording == number) for number, name in enumerate(windows.recordings)]
    return [
        Slice(by=by, part=part, onset=_onset_figures(windows.chosen(rows), few))
        for by, part, rows in parts
        if rows.any()
    ]


def _onset_figures(windows: Predictions, config: EvaluationConfig) -> OnsetFigures:
    """Figures over the windows at whose last frame the action is not under way; an area without interval is None."""
    onset = windows.chosen(~windows.going_on)
    labels, scores = onset.labels, onset.probabilities
    precision, roc = _intervals(onset, config)
    return OnsetFigures(
        windows=len(labels),
        positives=int(labels.sum()),
        positive_rate=float(labels.mean()) if len(labels) else None,
        pr_auc=measures.average_precision(labels, scores) if precision else None,
        pr_auc_interval=precision,
        roc_auc=measures.roc_auc(labels, scores) if roc else None,
        roc_auc_interval=roc,
        matched_pr_auc=None if onset.scene is None else measures.matched_precision(labels, scores, onset.scene),
    )


def _intervals(windows: Predictions, config: EvaluationConfig) -> list[Interval | None]:
    """Of PR-AUC and of ROC-AUC."""
    block = measures.blocks(windows.time_ms, windows.recording)
    draws = measures.bootstrap_draws(block, config.bootstrap_samples, config.seed)
    areas = measures.bootstrap_areas(windows.labels, windows.probabilities, block, draws)
    return [measures.interval(values, config.confidence_level) for values in areas]
