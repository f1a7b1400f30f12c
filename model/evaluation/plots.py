"""Figures that users look at. Every function returns a matplotlib Figure; nothing touches global state."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from model.common.figures import COLOURS, legend, new_figure
from model.evaluation.measures import confusion, reliability
from model.evaluation.predictions import Predictions
from model.evaluation.results import CurvePoint, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def evaluation_figures(
    predictions: Predictions, thresholds: Mapping[str, float | None], title: str
) -> dict[str, "Figure"]:
    """The plots of one evaluation by file stem."""
    return {
        "pr_curves": pr_curves(predictions, title),
        "roc_curves": roc_curves(predictions, title),
        "reliability": reliability_diagram(predictions, title),
        "score_distributions": score_distributions(predictions, thresholds, title),
        "confusion": confusion_matrices(predictions, thresholds, title),
        "timeline": prediction_timeline(predictions, thresholds, title),
    }


def pr_curves(predictions: Predictions, title: str) -> "Figure":
    """Precision over recall of each task, dashed what chance reaches."""
    figure, (axes,) = new_figure(1, f"{title}: precision and recall on test")
    for column, task in enumerate(predictions.tasks):
        labels, scores, *_ = predictions.task(column)
        if labels.any():
            precision, recall, _ = precision_recall_curve(labels, scores)
            axes.step(recall, precision, where="post", color=COLOURS[column], label=task)
            axes.axhline(labels.mean(), color=COLOURS[column], linestyle=":", linewidth=1)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    legend(axes, "dotted: random")
    return figure


def roc_curves(predictions: Predictions, title: str) -> "Figure":
    """True over false positive rate of each task."""
    figure, (axes,) = new_figure(1, f"{title}: ROC on test")
    for column, task in enumerate(predictions.tasks):
        labels, scores, *_ = predictions.task(column)
        if labels.any() and not labels.all():
            axes.plot(*roc_curve(labels, scores)[:2], color=COLOURS[column], label=task)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))
    legend(axes, None)
    return figure


def reliability_diagram(predictions: Predictions, title: str) -> "Figure":
    """Observed rate over predicted probability; a point's size tells how many windows it stands for."""
    figure, (axes,) = new_figure(1, f"{title}: calibration on test")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    for column, task in enumerate(predictions.tasks):
        labels, scores, *_ = predictions.task(column)
        if len(labels):
            predicted, observed, count = reliability(labels.astype(float), scores)
            used = count > 0
            sizes = 12 + 150 * np.sqrt(count[used] / count.sum())
            axes.plot(predicted[used], observed[used], color=COLOURS[column], linewidth=1, label=task)
            axes.scatter(predicted[used], observed[used], s=sizes, color=COLOURS[column], alpha=0.6)
    axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(0, 1), ylim=(0, 1))
    legend(axes, None)
    return figure


def score_distributions(predictions: Predictions, thresholds: Mapping[str, float | None], title: str) -> "Figure":
    """Histogram of probabilities of windows with and without the event, a panel a task."""
    figure, every = new_figure(len(predictions.tasks), f"{title}: scores on test")
    bins = np.linspace(0, 1, 41).tolist()
    for column, (axes, task) in enumerate(zip(every, predictions.tasks, strict=False)):
        labels, scores, *_ = predictions.task(column)
        axes.hist(scores[~labels], bins, color=COLOURS[0], alpha=0.6, label="no")
        axes.hist(scores[labels], bins, color=COLOURS[1], alpha=0.7, label="yes")
        if (threshold := thresholds[task]) is not None:
            axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label="threshold")
        axes.set(title=task, xlabel="probability", ylabel="windows", yscale="symlog")
        legend(axes, None)
    return figure


def confusion_matrices(predictions: Predictions, thresholds: Mapping[str, float | None], title: str) -> "Figure":
    """Counts of right and wrong at the threshold chosen on val, a panel a task."""
    figure, every = new_figure(len(predictions.tasks), f"{title}: confusion on test")
    for column, (axes, task) in enumerate(zip(every, predictions.tasks, strict=False)):
        threshold = thresholds[task]
        axes.set_title(task)
        if threshold is None:
            axes.text(0.5, 0.5, "no positive on val:\nno threshold", ha="center", va="center")
            axes.set_axis_off()
            continue
        labels, scores, *_ = predictions.task(column)
        c = confusion(labels, scores, threshold)
        counts = np.array([[c["tn"], c["fp"]], [c["fn"], c["tp"]]])
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, col), value in np.ndenumerate(counts):
            ink = "white" if share[row, col] > 0.6 else "black"
            axes.text(col, row, f"{value:,}\n{share[row, col]:.1%}", ha="center", va="center", color=ink)
        axes.set(xticks=(0, 1), xticklabels=("no", "yes"), yticks=(0, 1), yticklabels=("no", "yes"))
        axes.set(xlabel=f"predicted (at {threshold:.2f})", ylabel="observed")
    return figure


def prediction_timeline(predictions: Predictions, thresholds: Mapping[str, float | None], title: str) -> "Figure":
    """Probabilities over time in the recording with most events, shaded where the event was observed."""
    per_recording = [
        int(predictions.labels[predictions.recording == number].sum()) for number in range(len(predictions.recordings))
    ]
    chosen = int(np.argmax(per_recording))
    name = predictions.recordings[chosen]
    figure, every = new_figure(len(predictions.tasks), f"{title}: {name}", columns=1, height=1.7)
    for column, (axes, task) in enumerate(zip(every, predictions.tasks, strict=False)):
        rows = (predictions.recording == chosen) & predictions.known[:, column]
        seconds = (predictions.time_ms[rows] - predictions.time_ms[predictions.recording == chosen].min()) / 1000
        observed = predictions.labels[rows, column]
        axes.fill_between(
            seconds, 0, 1, where=observed, color=COLOURS[1], alpha=0.3, step="mid", linewidth=0, label="observed"
        )
        axes.plot(seconds, predictions.probabilities[rows, column], color=COLOURS[0], linewidth=1, label="predicted")
        if (threshold := thresholds[task]) is not None:
            axes.axhline(threshold, color="black", linestyle="--", linewidth=0.8, label="threshold")
        axes.set(ylabel=task, ylim=(0, 1))
    every[0].legend(fontsize=7, ncols=3, loc="upper right")
    every[len(predictions.tasks) - 1].set_xlabel("seconds")
    return figure


def alarm_curves(curves: Mapping[str, Sequence[CurvePoint]], title: str) -> "Figure":
    """Share of events foreseen against false alarms an hour, a line a task."""
    figure, (axes,) = new_figure(1, f"{title}: events foreseen on test")
    for index, (task, points) in enumerate(curves.items()):
        if points:
            rates, foreseen = zip(*((point.false_alarms_per_hour, point.foreseen) for point in points), strict=True)
            axes.plot(rates, foreseen, color=COLOURS[index], marker=".", markersize=3, linewidth=1, label=task)
    axes.set(xlabel="false alarms an hour", ylabel="share of events foreseen", ylim=(0, 1.02))
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=-0.1)
    legend(axes, None)
    return figure


def comparison_figure(rows: Sequence[Row], tasks: Sequence[str], best: str) -> "Figure":
    """PR-AUC on test of every variant with its interval, a panel a task, dotted what chance reaches."""
    height = 0.9 + 0.27 * len(rows)
    figure, every = new_figure(len(tasks), "Test PR-AUC by architecture", columns=len(tasks), height=height, width=2.6)
    place = np.arange(len(rows))[::-1]
    for axes, task in zip(every, tasks, strict=False):
        for y, row in zip(place, rows, strict=True):
            colour, figures = COLOURS[1] if row.architecture == best else COLOURS[0], row.test[task]
            if figures.pr_auc_interval is not None:
                axes.plot(figures.pr_auc_interval, [y, y], color=colour, linewidth=1.5, alpha=0.6)
            if figures.pr_auc is not None:
                axes.plot(figures.pr_auc, y, "o", color=colour, markersize=5)
        random = rows[0].test[task].random_pr_auc
        if random is not None:
            axes.axvline(random, color="grey", linestyle=":", linewidth=1)
        axes.set(title=task, xlim=(0, 1), yticks=place, ylim=(-0.7, len(rows) - 0.3))
        axes.set_yticklabels([row.architecture for row in rows] if axes is every[0] else [], fontsize=8)
        axes.grid(axis="x", alpha=0.3)
    return figure


def foreseen_figure(rows: Sequence[Row], tasks: Sequence[str], best: str, best_baseline: str | None) -> "Figure":
    """Share of events foreseen on test over false alarms an hour, a panel a task; the best and the best baseline stand
    out."""
    title = "Events foreseen on test, by false alarms an hour"
    figure, every = new_figure(len(tasks), title, columns=len(tasks), height=3.0, width=2.6)
    for axes, task in zip(every, tasks, strict=False):
        for row in sorted(rows, key=lambda row: row.architecture in (best, best_baseline)):  # on top of the others
            if points := row.test[task].alarm_curve:
                rates, foreseen = zip(*((p.false_alarms_per_hour, p.foreseen) for p in points), strict=True)
                chosen = {best: COLOURS[1], best_baseline: COLOURS[0]}.get(row.architecture)
                if chosen:
                    axes.plot(rates, foreseen, color=chosen, linewidth=1.8, label=row.architecture)
                else:
                    axes.plot(rates, foreseen, color="#bbbbbb", linewidth=0.8)
        axes.set(title=task, xlabel="false alarms an hour", ylim=(0, 1.02))
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=-0.1)
    every[0].set_ylabel("share of events foreseen")
    legend(every[0], None)
    return figure
