"""Judges recipes on simulated drives without images, against baselines and the ceiling of the simulation's true state.

    python benchmarks/quality.py --cache build/quality --recipe best --architectures simple_concat_lstm

Prints PR-AUC on test for each task, over all windows and over onsets (windows in which the action does not go on yet),
with 95 % intervals by resampling blocks of a minute, and the expected calibration error. Below each network stands,
with the interval of paired resamples, how much better it is than the better of the baselines, and which share that is
of the way from there to the ceiling. Drives are seeded, take a minute of one core each, and are kept in the cache.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from simulated_drives import STATE, make_drives, make_splits, true_state

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
from model.training.loop import load_checkpoint, load_split, train
from model.training.recipes import RECIPES

RESAMPLES = 200
CHANGE_FRAMES = 2
Scores = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps drives, splits and checkpoints")
    parser.add_argument("--drives", type=int, default=24, help="30 minutes each; a sixth is val, a sixth is test")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tremble", type=float, default=1.0, help="factor on what the detector's boxes tremble")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate")
    parser.add_argument("--recipe", nargs="*", choices=sorted(RECIPES), default=["reference", "best"])
    parser.add_argument("--architectures", nargs="*", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--epochs", type=int, help="most epochs, instead of the recipe's")
    options = parser.parse_args()
    of = f"{options.seed}" if options.tremble == 1 else f"{options.seed}-{options.tremble:g}"
    drives = make_drives(options.cache / f"drives-{of}", options.drives, options.seed, options.workers, options.tremble)
    splits = make_splits(options.cache / f"splits-{of}-{options.drives}", drives)
    files = {name: read_split(splits / f"{name}.h5") for name in ("train", "test")}
    data = {name: WindowData.load(splits / f"{name}.h5") for name in files}
    print("; ".join(f"{name}: {len(d)} windows, positives {_rates(d)}" for name, d in data.items()), flush=True)
    judge = Judge(data["test"], files["test"])
    baselines = []
    for name in ("boosting_last_frame", "boosting_lead_box"):
        features, trees = BASELINES[name]
        baselines.append(boosting({n: features(f) for n, f in files.items()}, data, trees))
        judge.report(name, baselines[-1])
    states = {name: np.hstack((last_frame(file), _state(drives, file))) for name, file in files.items()}
    ceiling = boosting(states, data, BASELINES["boosting_lead_box"][1])
    judge.report("ceiling", ceiling)
    for recipe in options.recipe:
        config = RECIPES[recipe]
        if options.epochs:
            config = config.replace(epochs=options.epochs)
        for architecture in options.architectures:
            start = time.perf_counter()
            folder = options.cache / "checkpoints" / of / recipe / architecture
            # Anew: a checkpoint of the same recipe may be of other code.
            result = train(architecture, splits, folder, config, anew=True)
            model, _ = load_checkpoint(result.best_model)
            took = f"{recipe}, {len(result.history)} epochs, {(time.perf_counter() - start) / 60:.0f} min"
            scores = predict(model, load_split(splits / "test.h5", config, "cpu"), 2048)
            judge.report(f"{architecture} ({took})", scores)
            judge.compare(scores, baselines, ceiling)


class Judge:
    """Scores probabilities (W,tasks) of the windows of a split, `data`, which `file` holds."""

    def __init__(self, data: WindowData, file: Split) -> None:
        last = last_frames(file)
        self.tasks, self.labels = data.tasks, data.labels.numpy() > 0.5
        going_on = data.going_on.numpy()
        self.windows = {"all": np.ones_like(going_on), "onset": ~going_on}
        self.block = blocks(file.time_ms[last], file.recording[last])
        self.draws = bootstrap_draws(self.block, RESAMPLES, 0)

    def report(self, name: str, scores: Scores) -> None:
        """Print PR-AUC of each task with its interval, of all windows and of onsets, and the calibration error."""
        print(name)
        for column, task in enumerate(self.tasks):
            figures = [f"{kind} {_shown(*self.areas(scores, column, kind))}" for kind in self.windows]
            error = expected_calibration_error(self.labels[:, column], scores[:, column])
            print(f"    {task} {'  '.join(figures)}  calibration error {error:.3f}", flush=True)

    def compare(self, scores: Scores, baselines: list[Scores], ceiling: Scores) -> None:
        """Print how much better than the better baseline, and the share of the way from that to the ceiling."""
        for column, task in enumerate(self.tasks):
            shown = []
            for kind in self.windows:
                value, draws = self.areas(scores, column, kind)
                low, low_draws = max((self.areas(each, column, kind) for each in baselines), key=lambda area: area[0])
                high, high_draws = self.areas(ceiling, column, kind)
                way = (value - low) / (high - low), (draws - low_draws) / (high_draws - low_draws)
                shown.append(f"{kind} {_shown(value - low, draws - low_draws, '+')}, way {_shown(*way, '+')}")
            print(f"    {task} against the better baseline: {';  '.join(shown)}", flush=True)

    def areas(self, scores: Scores, column: int, kind: str) -> tuple[float, Scores]:
        """PR-AUC of a task over "all" windows or at "onset", NaN where undefined, and of each resample."""
        use = self.windows[kind][:, column]
        labels, values = self.labels[use, column], scores[use, column]
        value = average_precision(labels, values)
        return np.nan if value is None else value, bootstrap_areas(labels, values, self.block[use], self.draws)[0]


def _shown(value: float, draws: Scores, sign: str = "") -> str:
    bounds = interval(draws)
    if not np.isfinite(value) or bounds is None:
        return "undefined"
    return f"{value:{sign}.3f} [{bounds[0]:{sign}.3f}, {bounds[1]:{sign}.3f}]"


def boosting(
    features: dict[str, npt.NDArray[np.float32]], data: dict[str, WindowData], trees: Callable[[], Any]
) -> Scores:
    """Probabilities (W,tasks) on test of one model a task, fitted on train."""
    columns = []
    for column in range(len(data["train"].tasks)):
        model = trees().fit(features["train"], data["train"].labels[:, column].numpy())
        columns.append(model.predict_proba(features["test"])[:, 1])
    return np.column_stack(columns)


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
