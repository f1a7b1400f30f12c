"""Scores recipes on simulated drives without images, against baselines and a ceiling from the simulation's true state.

    python benchmarks/quality.py --cache build/quality --recipe best --architectures simple_concat_lstm

Prints PR-AUC on test for each task, over all windows and at onsets (windows in which the action is not under way), with
95 % intervals from resampled blocks, and the expected calibration error. For each network it prints, with intervals of
paired resamples, the difference to the better baseline, and that difference as a share of the distance from the
baseline to the ceiling. Each row is written to quality.json at once, with the means on val, by which to choose. Drives
are seeded, take a minute of one core each, and are kept in the cache. On a GPU: `--device cuda`.
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from simulated_drives import STATE, make_drives, make_splits, true_state

from model.common.files import write_json
from model.dataset.split_file import Split, read_split
from model.dataset.window_data import WindowData
from model.evaluation.baselines import BASELINES, last_frame
from model.evaluation.evaluate import predict
from model.evaluation.measures import (
    average_precision,
    blocks,
    bootstrap_areas,
    bootstrap_draws,
    expected_calibration_error,
    interval,
)
from model.evaluation.predictions import last_frames
from model.network.architectures import ARCHITECTURES
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.loop import train
from model.training.precision import choose_device
from model.training.recipes import RECIPES

RESAMPLES = 200
CHANGE_FRAMES = 2
Scores = npt.NDArray[np.float64]


def main() -> None:
    options = _options()
    of = f"{options.seed}" if options.box_jitter == 1 else f"{options.seed}-{options.box_jitter:g}"
    drives = make_drives(
        options.cache / f"drives-{of}", options.drives, options.seed, options.workers, options.box_jitter
    )
    splits = make_splits(options.cache / f"splits-{of}-{options.drives}", drives)
    files = {name: read_split(splits / f"{name}.h5") for name in ("train", "val", "test")}
    data = {name: WindowData.load(splits / f"{name}.h5") for name in files}
    print("; ".join(f"{name}: {len(d)} windows, positives {_rates(d)}" for name, d in data.items()), flush=True)
    judge = Judge(
        {name: (data[name], files[name]) for name in ("val", "test")}, options.results or options.cache / "quality.json"
    )
    baselines = []
    for name in ("boosting_last_frame", "boosting_lead_box"):
        features, trees = BASELINES[name]
        baselines.append(boosting({n: features(f) for n, f in files.items()}, data, trees))
        judge.report(name, baselines[-1])
    states = {name: np.hstack((last_frame(file), _state(drives, file))) for name, file in files.items()}
    ceiling = boosting(states, data, BASELINES["boosting_lead_box"][1])
    judge.report("ceiling", ceiling)
    for recipe, changes, architecture in product(options.recipe, options.options, options.architectures):
        start = time.perf_counter()
        config = RECIPES[recipe].replace(**changes, device=str(choose_device(options.device)))
        config = config.replace(epochs=options.epochs or config.epochs)
        folder = options.cache / "checkpoints" / of / recipe / architecture
        # A checkpoint of the same recipe may be of other code.
        result = train(architecture, splits, folder, config, force=True)
        model, _ = load_checkpoint(result.best_model)
        model.to(config.device)
        scores = {n: predict(model, load_split(splits / f"{n}.h5", config, config.device), 2048) for n in judge.of}
        minutes = (time.perf_counter() - start) / 60
        epochs = f"epoch {result.best_epoch + 1} of {len(result.history)}"
        with_options = [json.dumps(changes)] if changes else []
        judge.report(f"{architecture} ({', '.join([recipe, *with_options, epochs, f'{minutes:.1f} min'])})", scores)
        judge.compare(scores["test"], [each["test"] for each in baselines], ceiling["test"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps drives, splits and checkpoints")
    parser.add_argument("--drives", type=int, default=24, help="30 minutes each; a sixth is val, a sixth is test")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--box-jitter", type=float, default=1.0, help="factor on the jitter of the detector's boxes")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate")
    parser.add_argument("--recipe", nargs="*", choices=sorted(RECIPES), default=["reference", "best"])
    parser.add_argument("--architectures", nargs="*", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--epochs", type=int, help="maximum number of epochs, instead of the recipe's")
    parser.add_argument(
        "--options",
        type=json.loads,
        nargs="*",
        default=[{}],
        help="""options of the recipes, once per JSON object, such as {"head": "hazard"}""",
    )
    parser.add_argument("--results", type=Path, help="file of the rows; by default quality.json in the cache")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


class Judge:
    """Scores probabilities (W,tasks) of the windows of splits, and writes the figures to the file `rows`."""

    def __init__(self, splits: dict[str, tuple[WindowData, Split]], rows: Path) -> None:
        self.of = {name: Windows(*split) for name, split in splits.items()}
        self.rows: dict[str, Any] = {}
        self.path = rows

    def report(self, name: str, scores: dict[str, Scores]) -> None:
        """Print PR-AUC on test with its interval, over all windows and at onsets, and the calibration error."""
        print(name)
        row: dict[str, Any] = {}
        test = self.of["test"]
        for column, task in enumerate(test.tasks):
            areas = {kind: test.areas(scores["test"], column, kind) for kind in test.windows}
            error = expected_calibration_error(test.labels[:, column], scores["test"][:, column])
            figures = "  ".join(f"{kind} {_shown(*area)}" for kind, area in areas.items())
            print(f"    {task} {figures}  calibration error {error:.3f}", flush=True)
            found = {kind: _kept(*area) for kind, area in areas.items()}
            row[task] = {**found, "calibration_error": error}
        row["val"] = {kind: self.of["val"].mean(scores["val"], kind) for kind in test.windows}
        print(f"    mean on val: {'  '.join(f'{kind} {value:.4f}' for kind, value in row['val'].items())}", flush=True)
        self.rows[name] = row
        write_json(self.path, self.rows)

    def compare(self, scores: Scores, baselines: list[Scores], ceiling: Scores) -> None:
        """Print the difference to the better baseline on test, and its share of the distance to the ceiling.

        Both are added to the row that was reported last.
        """
        test, row = self.of["test"], self.rows[list(self.rows)[-1]]
        for column, task in enumerate(test.tasks):
            shown = []
            for kind in test.windows:
                value, draws = test.areas(scores, column, kind)
                low, low_draws = max((test.areas(each, column, kind) for each in baselines), key=lambda area: area[0])
                high, high_draws = test.areas(ceiling, column, kind)
                better = value - low, draws - low_draws
                way = better[0] / (high - low), better[1] / (high_draws - low_draws)
                shown.append(f"{kind} {_shown(*better, '+')}, way {_shown(*way, '+')}")
                row[task] |= {f"{kind}_better": _kept(*better), f"{kind}_way": _kept(*way)}
            print(f"    {task} against the better baseline: {';  '.join(shown)}", flush=True)
        write_json(self.path, self.rows)


class Windows:
    """The labels and blocks by which probabilities (W,tasks) of the windows of a split are scored."""

    def __init__(self, data: WindowData, file: Split) -> None:
        last = last_frames(file)
        self.tasks, self.labels = data.tasks, data.labels.numpy() > 0.5
        going_on = data.going_on.numpy()
        self.windows = {"all": np.ones_like(going_on), "onset": ~going_on}
        self.block = blocks(file.time_ms[last], file.recording[last])
        self.draws = bootstrap_draws(self.block, RESAMPLES, 0)

    def areas(self, scores: Scores, column: int, kind: str) -> tuple[float, Scores]:
        """PR-AUC of a task over "all" windows or at "onset", and of each resample; NaN if undefined."""
        use = self.windows[kind][:, column]
        labels, values = self.labels[use, column], scores[use, column]
        value = average_precision(labels, values)
        return np.nan if value is None else value, bootstrap_areas(labels, values, self.block[use], self.draws)[0]

    def mean(self, scores: Scores, kind: str) -> float:
        """Mean PR-AUC over the tasks; zero for a task without positives."""
        use = self.windows[kind]
        areas = [average_precision(self.labels[use[:, c], c], scores[use[:, c], c]) for c in range(len(self.tasks))]
        return float(np.mean([0.0 if area is None else area for area in areas]))


def _kept(value: float, draws: Scores) -> list[float] | None:
    bounds = interval(draws)
    return [float(value), *bounds] if np.isfinite(value) and bounds is not None else None


def _shown(value: float, draws: Scores, sign: str = "") -> str:
    kept = _kept(value, draws)
    return "undefined" if kept is None else f"{kept[0]:{sign}.3f} [{kept[1]:{sign}.3f}, {kept[2]:{sign}.3f}]"


def boosting(
    features: dict[str, npt.NDArray[np.float32]], data: dict[str, WindowData], trees: Callable[[], Any]
) -> dict[str, Scores]:
    """Probabilities (W,tasks) on val and test of one model per task, fitted on train."""
    columns: dict[str, list[Scores]] = {"val": [], "test": []}
    for column in range(len(data["train"].tasks)):
        model = trees().fit(features["train"], data["train"].labels[:, column].numpy())
        for name, found in columns.items():
            found.append(model.predict_proba(features[name])[:, 1])
    return {name: np.column_stack(found) for name, found in columns.items()}


def _state(drives: list[Path], file: Split) -> npt.NDArray[np.float32]:
    """(W,8) speed, gap, lead's speed and closing rate as the simulation knows them, and their changes over a second."""
    columns = [STATE.index(name) for name in ("speed", "gap", "lead_speed", "closing")]
    last = last_frames(file)
    now, before = (true_state(drives, file.time_ms[last - back])[:, columns] for back in (0, CHANGE_FRAMES))
    return np.hstack((now, now - before))


def _rates(data: WindowData) -> str:
    return " ".join(
        f"{task} {rate:.3f}" for task, rate in zip(data.tasks, data.labels.mean(dim=0).tolist(), strict=True)
    )


if __name__ == "__main__":
    main()
