"""Figures of an evaluation and of a comparison, as matplotlib Figures; nothing touches global state."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_curve, roc_curve

from model.common.figures import COLOURS, legend, new_figure
from model.evaluation.measures import reliability
from model.evaluation.predictions import Predictions
from model.evaluation.results import CurvePoint, Row, SplitFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tasks = Mapping[str, Predictions]


def evaluation_figures(predictions: Predictions, figures: SplitFigures, title: str) -> dict[str, "Figure"]:
    """The plots of one evaluation by file stem."""
    tasks = {task: predictions.task(column) for column, task in enumerate(predictions.tasks)}
    return {
        "pr_curves": pr_curves(tasks, title),
        "roc_curves": roc_curves(tasks, title),
        "reliability": reliability_diagram(tasks, title),
        "score_distributions": score_distributions(tasks, figures, title),
        "confusion": confusion_matrices(tasks, figures, title),
        "timeline": prediction_timeline(predictions, figures, title),
        "alarm_curves": alarm_curves(tasks, figures, title),
    }


def pr_curves(tasks: Tasks, title: str) -> "Figure":
    """Precision over recall of each task; dotted: chance."""
    figure, (axes,) = new_figure(1, f"{title}: precision and recall on test")
    for (task, windows), colour in zip(tasks.items(), COLOURS, strict=False):
        if windows.labels.any():
            precision, recall, _ = precision_recall_curve(windows.labels, windows.probabilities)
            axes.step(recall, precision, where="post", color=colour, label=task)
            axes.axhline(windows.labels.mean(), color=colour, linestyle=":", linewidth=1)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    legend(axes, "dotted: random")
    return figure


def roc_curves(tasks: Tasks, title: str) -> "Figure":
    """True over false positive rate of each task."""
    figure, (axes,) = new_figure(1, f"{title}: ROC on test")
    for (task, windows), colour in zip(tasks.items(), COLOURS, strict=False):
        if windows.labels.any() and not windows.labels.all():
            axes.plot(*roc_curve(windows.labels, windows.probabilities)[:2], color=colour, label=task)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))
    legend(axes, None)
    return figure


def reliability_diagram(tasks: Tasks, title: str) -> "Figure":
    """Observed rate over predicted probability; the larger a point, the more windows it stands for."""
    figure, (axes,) = new_figure(1, f"{title}: calibration on test")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    for (task, windows), colour in zip(tasks.items(), COLOURS, strict=False):
        bins = np.array(reliability(windows.labels, windows.probabilities))
        predicted, observed, count = bins[:, bins[2] > 0]
        if len(count):
            axes.plot(predicted, observed, color=colour, linewidth=1, label=task)
            axes.scatter(predicted, observed, s=12 + 150 * np.sqrt(count / count.sum()), color=colour, alpha=0.6)
    axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(0, 1), ylim=(0, 1))
    legend(axes, None)
    return figure


def score_distributions(tasks: Tasks, figures: SplitFigures, title: str) -> "Figure":
    """Histogram of probabilities of windows with and without the event, one panel per task."""
    figure, every = new_figure(len(tasks), f"{title}: scores on test")
    bins = np.linspace(0, 1, 41).tolist()
    for axes, (task, windows) in zip(every, tasks.items(), strict=False):
        axes.hist(windows.probabilities[~windows.labels], bins, color=COLOURS[0], alpha=0.6, label="no")
        axes.hist(windows.probabilities[windows.labels], bins, color=COLOURS[1], alpha=0.7, label="yes")
        if (threshold := figures[task].threshold) is not None:
            axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label="threshold")
        axes.set(title=task, xlabel="probability", ylabel="windows", yscale="symlog")
        legend(axes, None)
    return figure


def confusion_matrices(tasks: Tasks, figures: SplitFigures, title: str) -> "Figure":
    """Right and wrong predictions at the threshold chosen on val, one panel per task."""
    figure, every = new_figure(len(tasks), f"{title}: confusion on test")
    for axes, task in zip(every, tasks, strict=False):
        at = figures[task]
        axes.set_title(task)
        if at.threshold is None:
            axes.text(0.5, 0.5, "no positive on val:\nno threshold", ha="center", va="center")
            axes.set_axis_off()
            continue
        counts = np.array([[at.tn, at.fp], [at.fn, at.tp]], int)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(counts):
            ink = "white" if share[row, column] > 0.6 else "black"
            text = f"{value:,}\n{share[row, column]:.1%}"
            axes.text(column, row, text, ha="center", va="center", color=ink)
        axes.set(xticks=(0, 1), xticklabels=("no", "yes"), yticks=(0, 1), yticklabels=("no", "yes"))
        axes.set(xlabel=f"predicted (at {at.threshold:.2f})", ylabel="observed")
    return figure


def prediction_timeline(predictions: Predictions, figures: SplitFigures, title: str) -> "Figure":
    """Probabilities over time in the recording with most events; shaded: the event was observed."""
    counts = np.bincount(predictions.recording, predictions.labels.sum(axis=1), len(predictions.recordings))
    chosen = predictions.recording == counts.argmax()
    name = predictions.recordings[counts.argmax()]
    figure, every = new_figure(len(predictions.tasks), f"{title}: {name}", columns=1, height=1.7)
    for column, (axes, task) in enumerate(zip(every, predictions.tasks, strict=False)):
        rows = chosen & predictions.known[:, column]
        seconds = (predictions.time_ms[rows] - predictions.time_ms[chosen].min()) / 1000
        shade(axes, seconds, predictions.labels[rows, column], alpha=0.3)
        axes.plot(seconds, predictions.probabilities[rows, column], color=COLOURS[0], linewidth=1, label="predicted")
        if (threshold := figures[task].threshold) is not None:
            axes.axhline(threshold, color="black", linestyle="--", linewidth=0.8, label="threshold")
        axes.set(ylabel=task, ylim=(0, 1))
    every[0].legend(fontsize=7, ncols=3, loc="upper right")
    every[len(predictions.tasks) - 1].set_xlabel("seconds")
    return figure


def shade(axes: "Axes", seconds: npt.NDArray[np.float64], observed: npt.NDArray[np.bool_], alpha: float) -> None:
    """Mark the times at which an action was observed."""
    axes.fill_between(
        seconds, 0, 1, where=observed, color=COLOURS[1], alpha=alpha, step="mid", linewidth=0, label="observed"
    )


def alarm_curves(tasks: Tasks, figures: SplitFigures, title: str) -> "Figure":
    """Share of events foreseen over false alarms per hour, one line per task."""
    figure, (axes,) = new_figure(1, f"{title}: events foreseen on test")
    for task, colour in zip(tasks, COLOURS, strict=False):
        _plot_curve(axes, figures[task].alarm_curve, color=colour, marker=".", markersize=3, linewidth=1, label=task)
    _label_curves(axes)
    legend(axes, None)
    return figure


def comparison_figure(rows: Sequence[Row], tasks: Sequence[str], best: str) -> "Figure":
    """PR-AUC on test of every model with its interval, one panel per task; dotted: chance."""
    height = 0.9 + 0.27 * len(rows)
    figure, every = new_figure(len(tasks), "Test PR-AUC by architecture", columns=len(tasks), height=height, width=2.6)
    places = np.arange(len(rows))[::-1]
    colours = [COLOURS[1] if row.architecture == best else COLOURS[0] for row in rows]
    for axes, task in zip(every, tasks, strict=False):
        figures = [row.test[task] for row in rows]
        lows, highs = np.array([of.pr_auc_interval or (None, None) for of in figures], float).T
        axes.hlines(places, lows, highs, colors=colours, linewidth=1.5, alpha=0.6)
        axes.scatter(np.array([of.pr_auc for of in figures], float), places, s=25, c=colours)
        if figures[0].random_pr_auc is not None:
            axes.axvline(figures[0].random_pr_auc, color="grey", linestyle=":", linewidth=1)
        axes.set(title=task, xlim=(0, 1), yticks=places, ylim=(-0.7, len(rows) - 0.3))
        axes.set_yticklabels([row.architecture for row in rows] if axes is every[0] else [], fontsize=8)
        axes.grid(axis="x", alpha=0.3)
    return figure


def foreseen_figure(rows: Sequence[Row], tasks: Sequence[str], best: str, best_baseline: str | None) -> "Figure":
    """Share of events foreseen on test over false alarms per hour, one panel per task.

    The best network and the best baseline are highlighted.
    """
    title = "Events foreseen on test, by false alarms per hour"
    highlighted = {best: COLOURS[1], best_baseline: COLOURS[0]}
    figure, every = new_figure(len(tasks), title, columns=len(tasks), height=3.0, width=2.6)
    for axes, task in zip(every, tasks, strict=False):
        for row in sorted(rows, key=lambda row: row.architecture in highlighted):  # on top of the others
            if colour := highlighted.get(row.architecture):
                style = {"color": colour, "linewidth": 1.8, "label": row.architecture}
            else:
                style = {"color": "#bbbbbb", "linewidth": 0.8}
            _plot_curve(axes, row.test[task].alarm_curve, **style)
        axes.set_title(task)
        _label_curves(axes)
    legend(every[0], None)
    return figure


def _plot_curve(axes: "Axes", points: Sequence[CurvePoint], **style: Any) -> None:
    axes.plot([p.false_alarms_per_hour for p in points], [p.foreseen for p in points], **style)


def _label_curves(axes: "Axes") -> None:
    axes.set(xlabel="false alarms per hour", ylabel="share of events foreseen", ylim=(0, 1.02))
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=-0.1)
