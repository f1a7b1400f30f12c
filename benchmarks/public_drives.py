"""Scores the recipe `best` on recorded drives of any kind that can be imported, against baselines.

    python benchmarks/public_drives.py ~/L2D --kind l2d --weights yolo12n.pt

Imports the drives, annotates and labels them, builds the data set, trains, evaluates, and prints a table in Markdown
for docs/experiments.md: PR-AUC on test over all windows and at onsets, with 95 % intervals. Results are kept in
`--data`: a later call makes only what is missing. It needs three drives, as the splits share none, and hours of driving
for intervals that tell a network from a baseline. `--weights` is a detector of vehicles, such as Ultralytics' own.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from model.dataset.assignment import SPLITS
from model.evaluation.results import COMPARISON, FEW_EVENTS, Comparison, Interval, Row
from model.imports.kinds import KINDS
from model.network.architectures import ARCHITECTURES
from model.recording.folder import Recording
from model.recording.schema import DEFAULT_TASKS, TASKS

ASSETS = "annotations,future_labels,split_manifest,h5_split,checkpoint,evaluation,model_comparison"


def main() -> None:
    options = _options()
    os.environ["DRIVE_ASSETS_DATA"] = str(options.data.resolve())
    os.environ["DAGSTER_HOME"] = str(options.data.resolve() / "dagster")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    storage = Storage.from_environment()
    mapping = ["--mapping", str(options.mapping)] if options.mapping else []
    _command("import", options.kind, str(options.folder), *mapping)  # what is refused is reported, the rest is used
    recordings = [Recording(path) for path in storage.recordings.glob("[0-9]*")]
    if len(recordings) < len(SPLITS):
        sys.exit(f"{len(recordings)} drives are too few: expected {len(SPLITS)} or more, as the splits share none.")
    training: dict[str, Any] = {"recipe": "best", "tasks": options.tasks}
    if options.epochs:
        training["epochs"] = options.epochs
    config = options.data / "config.yaml"
    config.write_text(yaml.safe_dump({"split_manifest": {"window": {"stride": 1}}, "checkpoint": training}))
    weights = ["--weights", str(options.weights)]
    run = ["run", "--lacking", "--select", ASSETS, "--architectures", *options.architectures, "--config", str(config)]
    if _command(*run, *weights):
        sys.exit("Some steps failed, for the reasons above: there is no table.")
    print("\n".join(table(storage, Comparison.read(storage.evaluations / COMPARISON), recordings, options.kind)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the drives, or a folder of them")
    parser.add_argument("--kind", choices=list(KINDS), required=True)
    parser.add_argument("--mapping", type=Path, help="of kind video; default mapping.yaml beside each video")
    parser.add_argument("--weights", type=Path, required=True, help="weights file of a YOLO detector")
    parser.add_argument("--data", type=Path, default=Path("build/public_drives"), help="folder that keeps the results")
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=["simple_concat_transformer"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(DEFAULT_TASKS))
    parser.add_argument("--epochs", type=int, help="maximum number of epochs, instead of the recipe's")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    return options


def _command(*arguments: str) -> int:
    """The exit status of a `drive-assets` command."""
    return subprocess.run([sys.executable, "-m", "drive_assets.cli", *arguments], check=False).returncode


def table(storage: Storage, compared: Comparison, recordings: list[Recording], kind: str) -> list[str]:
    """Lines of Markdown: what the drives are, and the figures of networks and baselines."""
    splits = read_manifest(storage)["splits"]
    sizes = ", ".join(
        f"{len(part['recordings'])} in {name} ({part['windows']:,} windows)" for name, part in splits.items()
    )
    origins = [recording.imported for recording in recordings]
    sources = sorted({" ".join(filter(None, (each["attribution"], each["licence"]))) for each in origins} - {""})
    drivetrains = sorted({recording.drivetrain for recording in recordings})
    figures = compared.variants[0].test
    events = {task: figures[task].event_count for task in compared.tasks}
    few = [task for task, count in events.items() if count < FEW_EVENTS]
    rows = sorted(compared.baselines + compared.variants, key=lambda row: row.test_mean_pr_auc or 0.0)
    lines = [
        "",
        f"{len(recordings)} drives of kind {kind} ({', '.join(drivetrains)}): {sizes}. Test has "
        f"{figures[compared.tasks[0]].hours:.1f} hours, with "
        f"{', '.join(f'{count} onsets of {task}' for task, count in events.items())}.",
        *(f"Source: {source}." for source in sources),
        *([f"**Too few onsets in test to tell models apart: {', '.join(few)}.**"] if few else []),
        "",
        "| PR-AUC on test | " + " | ".join(compared.tasks) + " |",
        "|---" * (len(compared.tasks) + 1) + "|",
        _line("random", [_figure(figures[task].positive_rate, None) for task in compared.tasks]),
    ]
    for onset in (False, True):
        if onset:
            lines.append(
                _line("onset: random", [_figure(figures[t].onset.positive_rate, None) for t in compared.tasks])
            )
        for row in (row for row in rows if row.architecture != "random"):
            lines.append(_line(f"{'onset: ' * onset}{_name(row)}", _figures(row, compared.tasks, onset)))
        best = next(row for row in compared.variants if row.architecture == compared.best)
        if (difference := best.difference_to_baseline) is not None:
            by_task = difference.onset_tasks if onset else difference.tasks
            cells = [_interval(by_task[task], "+") for task in compared.tasks]
            lines.append(_line(f"{'onset: ' * onset}{best.architecture} minus the best baseline, paired", cells))
    return [*lines, "", f"Data version {compared.data_version}. Camera: {compared.camera or 'not measured'}"]


def _figures(row: Row, tasks: list[str], onset: bool) -> list[str]:
    figures = [row.test[task].onset if onset else row.test[task] for task in tasks]
    return [_figure(each.pr_auc, each.pr_auc_interval) for each in figures]


def _name(row: Row) -> str:
    return f"{row.architecture}, `{row.recipe}`" if row.recipe else row.architecture.replace("_", " ")


def _line(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _figure(value: float | None, interval: Interval | None) -> str:
    return "undefined" if value is None else f"{value:.3f} {_interval(interval) if interval else ''}".rstrip()


def _interval(interval: Interval | None, sign: str = "") -> str:
    return "undefined" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"


if __name__ == "__main__":
    main()
