"""Predictions to figures: the same for networks and for baselines. Thresholds come from val, nothing from test."""

from collections.abc import Mapping

from model.evaluation.config import EvaluationConfig
from model.evaluation.events import event_figures
from model.evaluation.measures import (
    average_precision,
    binary_metrics,
    blocks,
    bootstrap_areas,
    bootstrap_draws,
    choose_threshold,
    interval,
    roc_auc,
)
from model.evaluation.predictions import Predictions, TaskWindows
from model.evaluation.results import OnsetFigures, SplitFigures, TaskFigures


def choose_thresholds(val: Predictions) -> dict[str, float | None]:
    """The threshold of each task with the best F1 on val; None where val holds no positive."""
    every = (val.task(column) for column in range(len(val.tasks)))
    return {task: choose_threshold(w.labels, w.probabilities) for task, w in zip(val.tasks, every, strict=True)}


def score(predictions: Predictions, thresholds: Mapping[str, float | None], config: EvaluationConfig) -> SplitFigures:
    """All figures of a split at thresholds chosen on val."""
    tasks = {
        task: task_figures(predictions.task(column), thresholds[task], config)
        for column, task in enumerate(predictions.tasks)
    }
    return SplitFigures.of(tasks)


def task_figures(windows: TaskWindows, threshold: float | None, config: EvaluationConfig) -> TaskFigures:
    """Figures of one task's windows."""
    labels, scores = windows.labels, windows.probabilities
    figures = binary_metrics(labels, scores, threshold)
    block = blocks(windows.time_ms, windows.recording)
    draws = bootstrap_draws(block, config.bootstrap_samples, config.seed)
    events = None
    if threshold is not None:
        where = windows.time_ms, windows.recording, windows.horizon_s
        events = event_figures(labels, scores, threshold, *where)
    return TaskFigures(
        **figures,
        pr_auc_interval=interval(bootstrap_areas(labels, scores, block, draws)[0], config.confidence_level),
        random_pr_auc=figures["positive_rate"],
        events=events,
        onset=onset_figures(windows, config),
    )


def onset_figures(windows: TaskWindows, config: EvaluationConfig) -> OnsetFigures:
    """Figures over the windows at whose last frame the action is not going on; an area without interval is None."""
    onset = ~windows.going_on
    labels, scores = windows.labels[onset], windows.probabilities[onset]
    block = blocks(windows.time_ms[onset], windows.recording[onset])
    areas = bootstrap_areas(labels, scores, block, bootstrap_draws(block, config.bootstrap_samples, config.seed))
    precision, roc = (interval(values, config.confidence_level) for values in areas)
    return OnsetFigures(
        windows=len(labels),
        positives=int(labels.sum()),
        positive_rate=float(labels.mean()) if len(labels) else None,
        pr_auc=average_precision(labels, scores) if precision else None,
        pr_auc_interval=precision,
        roc_auc=roc_auc(labels, scores) if roc else None,
        roc_auc_interval=roc,
    )
