"""What a person reads of an evaluation: plots, the list of events, and one page that holds everything."""

from datetime import datetime
from pathlib import Path

from model.common.figures import png_bytes, save_png
from model.common.files import write_text
from model.common.pages import render
from model.dataset.split_file import Split
from model.evaluation.examples import find_examples, pictures, write_events
from model.evaluation.plots import alarm_curves, evaluation_figures
from model.evaluation.predictions import Predictions
from model.evaluation.results import EVALUATION, EVENTS, FEW_EVENTS, REPORT, Evaluation

PLOT_BYTES, EXAMPLE_BYTES = 150_000, 250_000


def write_report(
    evaluation: Evaluation, test: Predictions, split: Split, output: Path, recordings: Path | None
) -> None:
    """Write the plots, events.csv and report.html of calibrated predictions on test into `output`.

    Args:
        recordings: folder of the recordings, for frames of the worst; without it boxes alone are drawn.
    """
    thresholds = {task: evaluation.test[task].threshold for task in evaluation.tasks}
    figures = evaluation_figures(test, thresholds, evaluation.architecture)
    figures["alarm_curves"] = alarm_curves(
        {task: evaluation.test[task].alarm_curve for task in evaluation.tasks}, evaluation.architecture
    )
    for stem, figure in figures.items():
        save_png(figure, output / f"{stem}.png")
    examples = find_examples(test, evaluation.test, evaluation.evaluation_config)
    write_events(output / EVENTS, examples, split)
    worst = {
        kind: [png_bytes(figure, EXAMPLE_BYTES) for figure in shown]
        for kind, shown in pictures(examples, test, split, recordings).items()
    }
    plots = {stem: png_bytes(figure, PLOT_BYTES) for stem, figure in figures.items()}
    page = render(
        "model.evaluation",
        "report.html",
        evaluation=evaluation,
        plots=plots,
        worst=worst,
        recordings=len(set(test.recording.tolist())),
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
        few_events=FEW_EVENTS,
        files=(EVENTS, EVALUATION),
    )
    write_text(output / REPORT, page)
