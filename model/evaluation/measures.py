"""Measures of one task from labels and probabilities. Plain numpy; undefined figures are None, never NaN."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
CALIBRATION_BINS = 15
BLOCK_S = 30.0
"""Windows overlap, so neighbours are all but copies: intervals come from resampling blocks of this length."""


def average_precision(labels: Labels, scores: Array) -> float | None:
    """PR-AUC as average precision: sum of precision times step in recall, ties as one step. None without positives."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, float)
    positives = int(labels.sum())
    if positives == 0:
        return None
    hits, seen, _ = _steps(labels, scores, np.ones(len(labels)))
    return float((np.diff(hits, prepend=0.0) * hits / seen).sum() / positives)


def roc_auc(labels: Labels, scores: Array) -> float | None:
    """Area under the ROC curve, ties counted half. None unless both classes are there."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, float)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if positives == 0 or negatives == 0:
        return None
    hits, seen, _ = _steps(labels, scores, np.ones(len(labels)))
    true_rate = np.concatenate([[0.0], hits / positives])
    false_rate = np.concatenate([[0.0], (seen - hits) / negatives])
    return float(np.trapezoid(true_rate, false_rate))


def precision_recall_curve(labels: Labels, scores: Array) -> tuple[Array, Array, Array]:
    """Precision, recall and threshold (n,) at each distinct score, by falling threshold."""
    hits, seen, thresholds = _steps(np.asarray(labels, bool), np.asarray(scores, float), np.ones(len(labels)))
    return hits / seen, hits / max(float(hits[-1]), 1.0), thresholds


def roc_curve(labels: Labels, scores: Array) -> tuple[Array, Array]:
    """False and true positive rate (n+1,) by falling threshold, from (0, 0) on."""
    hits, seen, _ = _steps(np.asarray(labels, bool), np.asarray(scores, float), np.ones(len(labels)))
    misses = seen - hits
    return (
        np.concatenate([[0.0], misses / max(float(misses[-1]), 1.0)]),
        np.concatenate([[0.0], hits / max(float(hits[-1]), 1.0)]),
    )


def choose_threshold(labels: Labels, scores: Array) -> float | None:
    """The probability at and above which to say yes: the one with the best F1, of equals the highest.

    None without positives.
    """
    labels = np.asarray(labels, bool)
    if not labels.any():
        return None
    hits, seen, thresholds = _steps(labels, np.asarray(scores, float), np.ones(len(labels)))
    return float(thresholds[np.argmax(2 * hits / (seen + labels.sum()))])


def confusion(labels: Labels, scores: Array, threshold: float) -> dict[str, int]:
    """Counts of `tp`, `fp`, `fn` and `tn` with yes at and above `threshold`."""
    labels, yes = np.asarray(labels, bool), np.asarray(scores) >= threshold
    return {
        "tp": int((labels & yes).sum()),
        "fp": int((~labels & yes).sum()),
        "fn": int((labels & ~yes).sum()),
        "tn": int((~labels & ~yes).sum()),
    }


def expected_calibration_error(labels: Labels, scores: Array, bins: int = CALIBRATION_BINS) -> float | None:
    """Mean distance of said probability and seen rate over equal-width bins, weighted by their windows (Guo 2017)."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, float)
    if len(labels) == 0:
        return None
    said, seen, count = reliability(labels, scores, bins)
    return float((np.abs(said - seen) * count).sum() / len(labels))


def reliability(labels: Array | Labels, scores: Array, bins: int = CALIBRATION_BINS) -> tuple[Array, Array, Array]:
    """Mean probability, rate of positives and windows (bins,) of each equal-width bin; zero where empty."""
    index = np.minimum((np.asarray(scores) * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins).astype(float)
    said = np.bincount(index, weights=scores, minlength=bins) / np.maximum(count, 1)
    seen = np.bincount(index, weights=np.asarray(labels, float), minlength=bins) / np.maximum(count, 1)
    return said, seen, count


def binary_metrics(labels: Labels, scores: Array, threshold: float | None) -> dict[str, float | int | None]:
    """All figures of a task. Those that need a threshold are None without one; those undefined are None."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, float)
    total, positives = len(labels), int(labels.sum())
    figures: dict[str, float | int | None] = {
        "windows": total,
        "positives": positives,
        "positive_rate": positives / total if total else None,
        "pr_auc": average_precision(labels, scores),
        "roc_auc": roc_auc(labels, scores),
        "brier": float(np.mean((scores - labels) ** 2)) if total else None,
        "calibration_error": expected_calibration_error(labels, scores),
        "threshold": threshold,
    }
    if threshold is None:
        return figures | dict.fromkeys(
            ("precision", "recall", "f1", "mcc", "balanced_accuracy", "tp", "fp", "fn", "tn")
        )
    c = confusion(labels, scores, threshold)
    tp, fp, fn, tn = (float(c[name]) for name in ("tp", "fp", "fn", "tn"))
    spread = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return figures | {
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, spread),
        "balanced_accuracy": None if recall is None or specificity is None else (recall + specificity) / 2,
        **c,
    }


def blocks(time_ms: npt.NDArray[np.int64], recording: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """(W,) number of the block of `BLOCK_S` of one recording that each window ends in."""
    if len(time_ms) == 0:
        return np.empty(0, np.int64)
    part = (time_ms - time_ms.min()) // round(BLOCK_S * 1000)
    _, index = np.unique(recording.astype(np.int64) * (int(part.max()) + 1) + part, return_inverse=True)
    return index.astype(np.int64)


def bootstrap_draws(block: npt.NDArray[np.int64], samples: int, seed: int) -> npt.NDArray[np.int64]:
    """(samples,blocks) how often each block is drawn when blocks are drawn with replacement (Kuensch 1989)."""
    number = int(block.max(initial=-1)) + 1
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / max(number, 1)), size=samples)


def bootstrap_average_precision(
    labels: Labels, scores: Array, block: npt.NDArray[np.int64], draws: npt.NDArray[np.int64]
) -> Array:
    """(samples,) PR-AUC of each resample of `bootstrap_draws`; NaN for one without positives. `block` (W,)."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, float)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    positive, of = labels[order], block[order]
    result = np.empty(len(draws))
    for index, drawn in enumerate(draws):
        weight = drawn[of]
        hits = np.cumsum(weight * positive)[ends]
        seen = np.cumsum(weight)[ends]
        gained = np.diff(hits, prepend=0) * hits / np.maximum(seen, 1)
        result[index] = gained.sum() / hits[-1] if len(hits) and hits[-1] else np.nan
    return result


def interval(values: Array, level: float = 0.95) -> list[float] | None:
    """Low and high end of the central `level` of the defined values; None if fewer than half are defined."""
    defined = values[np.isfinite(values)]
    if len(defined) < max(2, len(values) / 2):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def _steps(labels: Labels, scores: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Weighted hits and windows at and above each distinct score, by falling score; and those scores."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    hits = np.cumsum(weights[order] * labels[order])[ends]
    return hits, np.cumsum(weights[order])[ends], scores[order][ends]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
