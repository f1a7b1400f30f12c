"""Judges recipes on simulated drives without images, against baselines and the ceiling of the simulation's true state.

    python benchmarks/quality.py --cache build/quality --drives 24 --recipe best --architectures simple_concat_lstm

Prints PR-AUC on test for each task, over all windows and over onsets (windows in which the action does not go on yet),
with 95 % intervals by resampling blocks of a minute, and the expected calibration error. Drives are seeded, take about
a minute of one core each, and are kept in the cache.
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
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate")
    parser.add_argument("--recipe", nargs="*", choices=sorted(RECIPES), default=["reference", "best"])
    parser.add_argument("--architectures", nargs="*", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--epochs", type=int, help="most epochs, instead of the recipe's")
    options = parser.parse_args()
    drives = make_drives(options.cache / f"drives-{options.seed}", options.drives, options.seed, options.workers)
    splits = make_splits(options.cache / f"splits-{options.seed}-{options.drives}", drives)
    files = {name: read_split(splits / f"{name}.h5") for name in ("train", "test")}
    data = {name: WindowData.load(splits / f"{name}.h5") for name in files}
    print("; ".join(f"{name}: {len(d)} windows, positives {_rates(d)}" for name, d in data.items()), flush=True)
    for name in ("boosting_last_frame", "boosting_lead_box"):
        features, trees = BASELINES[name]
        report(name, data["test"], files["test"], boosting({n: features(f) for n, f in files.items()}, data, trees))
    states = {name: np.hstack((last_frame(file), _state(drives, file))) for name, file in files.items()}
    report("ceiling", data["test"], files["test"], boosting(states, data, BASELINES["boosting_lead_box"][1]))
    for recipe in options.recipe:
        config = RECIPES[recipe]
        if options.epochs:
            config = config.replace(epochs=options.epochs)
        for architecture in options.architectures:
            start = time.perf_counter()
            result = train(architecture, splits, options.cache / "checkpoints" / recipe / architecture, config)
            model, _ = load_checkpoint(result.best_model)
            test = load_split(splits / "test.h5", config, "cpu")
            took = f"{recipe}, {len(result.history)} epochs, {(time.perf_counter() - start) / 60:.0f} min"
            report(f"{architecture} ({took})", test, files["test"], predict(model, test, 2048))


def report(name: str, data: WindowData, file: Split, scores: Scores) -> None:
    """Print a row: scores (W,tasks) are probabilities of the windows of `data`, which `file` holds."""
    last = last_frames(file)
    block = blocks(file.time_ms[last], file.recording[last])
    draws = bootstrap_draws(block, RESAMPLES, 0)
    labels, going_on = data.labels.numpy() > 0.5, data.going_on.numpy()
    print(name)
    for column, task in enumerate(data.tasks):
        figures = []
        for use in (np.ones(len(labels), bool), ~going_on[:, column]):
            y, p = labels[use, column], scores[use, column]
            bounds = interval(bootstrap_areas(y, p, block[use], draws)[0])
            value = average_precision(y, p)
            figures.append(
                "undefined" if value is None or bounds is None else f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"
            )
        error = expected_calibration_error(labels[:, column], scores[:, column])
        print(f"    {task} {figures[0]}  onset only {figures[1]}  calibration error {error:.3f}", flush=True)


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
