"""Figures of an evaluation and of a comparison, as matplotlib Figures; nothing touches global state."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_curve, roc_curve

from model.common.figures import COLOURS, legend, new_figure
from model.evaluation.measures import reliability
from model.evaluation.predictions import Predictions
from model.evaluation.results import CurvePoint, Row, SplitFigures, TaskFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def evaluation_figures(predictions: Predictions, figures: SplitFigures, title: str) -> dict[str, "Figure"]:
    """The plots of one evaluation by file stem."""
    plots = {}
    for stem, (what, draw, is_shared) in PLOTS.items():
        plots[stem], panels = new_figure(1 if is_shared else len(predictions.tasks), f"{title}: {what} on test")
        for column, task in enumerate(predictions.tasks):
            axes = panels[0 if is_shared else column]
            draw(axes, task, predictions.task(column), figures[task], COLOURS[column])
    return {**plots, "timeline": prediction_timeline(predictions, figures, title)}


def _pr_curve(axes: "Axes", task: str, windows: Predictions, figures: TaskFigures, colour: str) -> None:
    if windows.labels.any():
        precision, recall, _ = precision_recall_curve(windows.labels, windows.probabilities)
        axes.step(recall, precision, where="post", color=colour, label=task)
        axes.axhline(windows.labels.mean(), color=colour, linestyle=":", linewidth=1)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    legend(axes, "dotted: random")


def _roc_curve(axes: "Axes", task: str, windows: Predictions, figures: TaskFigures, colour: str) -> None:
    if windows.labels.any() and not windows.labels.all():
        axes.plot(*roc_curve(windows.labels, windows.probabilities)[:2], color=colour, label=task)
    axes.axline((0, 0), slope=1, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))
    legend(axes, None)


def _reliability(axes: "Axes", task: str, windows: Predictions, figures: TaskFigures, colour: str) -> None:
    """The larger a point, the more windows it stands for."""
    bins = np.array(reliability(windows.labels, windows.probabilities))
    predicted, observed, count = bins[:, bins[2] > 0]
    if len(count):
        axes.plot(predicted, observed, color=colour, linewidth=1, label=task)
        axes.scatter(predicted, observed, s=12 + 150 * np.sqrt(count / count.sum()), color=colour, alpha=0.6)
    axes.axline((0, 0), slope=1, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(0, 1), ylim=(0, 1))
    legend(axes, None)


def _scores(axes: "Axes", task: str, windows: Predictions, figures: TaskFigures, colour: str) -> None:
    bins = np.linspace(0, 1, 41).tolist()
    axes.hist(windows.probabilities[~windows.labels], bins, color=COLOURS[0], alpha=0.6, label="no")
    axes.hist(windows.probabilities[windows.labels], bins, color=COLOURS[1], alpha=0.7, label="yes")
    if figures.threshold is not None:
        axes.axvline(figures.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    axes.set(title=task, xlabel="probability", ylabel="windows", yscale="symlog")
    legend(axes, None)


def _confusion(axes: "Axes", task: str, windows: Predictions, figures: TaskFigures, colour: str) -> None:
    axes.set_title(task)
    if figures.threshold is None:
        axes.text(0.5, 0.5, "no positive on val:\nno threshold", ha="center", va="center")
        axes.set_axis_off()
        return
    counts = np.array([[figures.tn, figures.fp], [figures.fn, figures.tp]], int)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(counts):
        ink = "white" if share[row, column] > 0.6 else "black"
        axes.text(column, row, f"{value:,}\n{share[row, column]:.1%}", ha="center", va="center", color=ink)
    axes.set(xticks=(0, 1), xticklabels=("no", "yes"), yticks=(0, 1), yticklabels=("no", "yes"))
    axes.set(xlabel=f"predicted (at {figures.threshold:.2f})", ylabel="observed")


def _alarm_curve(axes: "Axes", task: str, windows: Predictions, figures: TaskFigures, colour: str) -> None:
    _plot_curve(axes, figures.alarm_curve, color=colour, marker=".", markersize=3, linewidth=1, label=task)
    _label_curves(axes)
    legend(axes, None)


PLOTS = {
    "pr_curves": ("precision and recall", _pr_curve, True),
    "roc_curves": ("ROC", _roc_curve, True),
    "reliability": ("calibration", _reliability, True),
    "score_distributions": ("scores", _scores, False),
    "confusion": ("confusion", _confusion, False),
    "alarm_curves": ("events foreseen", _alarm_curve, True),
}
"""By file stem: what is shown, the function that draws a task, and whether tasks share one panel."""


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
    axes.autoscale(axis="x")
    axes.set_xlim(left=-0.1)
