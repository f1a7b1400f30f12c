"""The human-readable parts of an evaluation: plots, the list of events, and one page that contains everything."""

from datetime import datetime
from pathlib import Path

from model.common.figures import png_bytes
from model.common.files import write_bytes, write_text
from model.common.pages import render
from model.dataset.split_file import Split
from model.evaluation.examples import KINDS, find_examples, picture, worst, write_events
from model.evaluation.plots import evaluation_figures
from model.evaluation.predictions import Predictions
from model.evaluation.results import EVALUATION, EVENTS, FEW_EVENTS, REPORT, Evaluation

PLOT_BYTES, EXAMPLE_BYTES = 150_000, 250_000


def write_report(
    evaluation: Evaluation, test: Predictions, split: Split, output: Path, recordings: Path | None
) -> None:
    """Write the plots, events.csv and report.html of calibrated predictions on test into `output`.

    Args:
        recordings: folder of the recordings, for the frames of the worst examples; without it only boxes are drawn.
    """
    figures = evaluation_figures(test, evaluation.test, evaluation.architecture)
    plots = {stem: png_bytes(figure, PLOT_BYTES) for stem, figure in figures.items()}
    for stem, content in plots.items():
        write_bytes(output / f"{stem}.png", content)
    examples = find_examples(test, evaluation.test, split, evaluation.evaluation_config)
    write_events(output / EVENTS, examples)
    pictures = {
        kind: [
            png_bytes(picture(example, test, split, recordings), EXAMPLE_BYTES)
            for example in worst(examples, kind).itertuples()
        ]
        for kind in KINDS
    }
    page = render(
        "model.evaluation",
        "report.html",
        evaluation=evaluation,
        plots=plots,
        worst=pictures,
        recordings=len(set(test.recording.tolist())),
        created=datetime.now().strftime("%Y-%m-%d %H:%M"),
        few_events=FEW_EVENTS,
        files=(EVENTS, EVALUATION),
    )
    write_text(output / REPORT, page)
