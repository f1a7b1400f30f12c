"""Figures of one task from labels and probabilities. Undefined figures are None, never NaN."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import metrics

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
CALIBRATION_BINS = 15
BLOCK_S = 30.0
"""Consecutive windows overlap and are nearly equal, so intervals come from resampling blocks of this length."""
RECORDINGS_TO_RESAMPLE = 8


def average_precision(labels: Labels, scores: Array) -> float | None:
    """PR-AUC as average precision: sum of precision times step in recall, ties as one step. None without positives."""
    return float(metrics.average_precision_score(labels, scores)) if labels.any() else None


def matched_precision(labels: Labels, scores: Array, group: npt.NDArray[np.int64]) -> float | None:
    """PR-AUC against matched negatives: those of each group (W,) weigh as many as its positives, at the rate of all.

    A model that only knows which groups have positives is then no better than random. Groups without positives or
    without negatives are left out. None if no group has both.
    """
    _, group = np.unique(group, return_inverse=True)
    positives, negatives = (np.bincount(group[rows], minlength=group.max(initial=0) + 1) for rows in (labels, ~labels))
    both = ((positives > 0) & (negatives > 0))[group]
    if not both.any():
        return None
    rate = (~labels[both]).sum() / labels[both].sum()
    weight = np.where(labels, 1.0, rate * (positives / np.maximum(negatives, 1))[group])[both]
    return float(metrics.average_precision_score(labels[both], scores[both], sample_weight=weight))


def roc_auc(labels: Labels, scores: Array) -> float | None:
    """Area under the ROC curve, ties counted half. None unless both classes occur."""
    return float(metrics.roc_auc_score(labels, scores)) if labels.any() and not labels.all() else None


def choose_threshold(labels: Labels, scores: Array) -> float | None:
    """The threshold with the best F1, of equal ones the highest: yes is at and above it. None without positives."""
    if not labels.any():
        return None
    precision, recall, thresholds = metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    equal = np.isclose(f1[:-1], f1[:-1].max(), rtol=1e-12, atol=0)  # the last point has no threshold
    return float(thresholds[np.flatnonzero(equal)[-1]])


def expected_calibration_error(labels: Labels, scores: Array) -> float | None:
    """Mean difference of predicted probability and observed rate over equal bins, weighted by windows (Guo 2017)."""
    if len(labels) == 0:
        return None
    predicted, observed, count = reliability(labels, scores)
    return float((np.abs(predicted - observed) * count).sum() / len(labels))


def reliability(labels: Labels, scores: Array) -> tuple[Array, Array, Array]:
    """Mean probability, rate of positives and windows (bins,) of each equal-width bin; zero where empty.

    Scikit-learn's `calibration_curve` returns neither the number of windows of a bin nor which bins are empty.
    """
    index = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    count, predicted, positives = (
        np.bincount(index, weights, CALIBRATION_BINS).astype(float) for weights in (None, scores, labels)
    )
    return predicted / np.maximum(count, 1), positives / np.maximum(count, 1), count


def binary_metrics(labels: Labels, scores: Array, threshold: float | None) -> dict[str, float | int | None]:
    """Figures of a task by their names in `TaskFigures`; those undefined are None."""
    total, positives = len(labels), int(labels.sum())
    figures: dict[str, float | int | None] = {
        "windows": total,
        "positives": positives,
        "positive_rate": _ratio(positives, total),
        "pr_auc": average_precision(labels, scores),
        "roc_auc": roc_auc(labels, scores),
        "brier": float(np.mean((scores - labels) ** 2)) if total else None,
        "calibration_error": expected_calibration_error(labels, scores),
        "threshold": threshold,
    }
    return figures if threshold is None else figures | _threshold_metrics(labels, scores >= threshold)


def _threshold_metrics(labels: Labels, yes: Labels) -> dict[str, float | int | None]:
    """Undefined figures are None; scikit-learn returns 0 with a warning."""
    tp, fp, fn, tn = (int(both.sum()) for both in (labels & yes, ~labels & yes, labels & ~yes, ~labels & ~yes))
    spread = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, spread),
        "balanced_accuracy": None if recall is None or specificity is None else (recall + specificity) / 2,
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
    }


def blocks(time_ms: npt.NDArray[np.int64], recording: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """(W,) number of the block that each window is resampled with.

    A block is a recording if there are at least `RECORDINGS_TO_RESAMPLE`, since recordings differ more than their parts
    do; otherwise `BLOCK_S` of a recording.
    """
    windows = pd.DataFrame({"recording": recording, "part": time_ms})
    windows["part"] = (windows["part"] - windows["part"].min()) // round(BLOCK_S * 1000)
    if windows["recording"].nunique() >= RECORDINGS_TO_RESAMPLE:
        windows["part"] = 0
    return np.asarray(windows.groupby(["recording", "part"]).ngroup(), np.int64)


def bootstrap_draws(block: npt.NDArray[np.int64], samples: int, seed: int) -> npt.NDArray[np.int64]:
    """(samples,blocks) how often each block is drawn when blocks are drawn with replacement (Kuensch 1989)."""
    if len(block) == 0:
        return np.zeros((samples, 0), np.int64)
    number = int(block.max()) + 1
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=samples)


def bootstrap_areas(
    labels: Labels, scores: Array, block: npt.NDArray[np.int64], draws: npt.NDArray[np.int64]
) -> tuple[Array, Array]:
    """PR-AUC and ROC-AUC (samples,) of each resample of `bootstrap_draws`; NaN if undefined. `block` (W,).

    They are also undefined if all positives lie in one block, which says nothing about the spread between blocks.
    Scikit-learn would sort the windows once per resample; here they are sorted once and weighted by their draws.
    """
    precision_area, roc_area = np.full(len(draws), np.nan), np.full(len(draws), np.nan)
    if len(np.unique(block[labels])) < 2:
        return precision_area, roc_area
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    positive, of = labels[order], block[order]
    for index, drawn in enumerate(draws):
        weight = drawn[of]
        hits = np.cumsum(weight * positive)[ends]
        seen = np.cumsum(weight)[ends]
        step = np.diff(hits, prepend=0)
        false = seen - hits
        if hits[-1]:
            precision_area[index] = (step * hits / np.maximum(seen, 1)).sum() / hits[-1]
        if hits[-1] and false[-1]:
            above = np.diff(false, prepend=0) * (hits - step / 2)
            roc_area[index] = above.sum() / (float(hits[-1]) * float(false[-1]))
    return precision_area, roc_area


def interval(values: Array, level: float = 0.95) -> tuple[float, float] | None:
    """Low and high end of the central `level` of the defined values; None if fewer than half are defined."""
    defined = values[np.isfinite(values)]
    if len(defined) < max(2, len(values) / 2):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
