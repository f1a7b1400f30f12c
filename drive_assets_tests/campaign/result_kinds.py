"""Damage to what the product itself has written: what is built from it is right, or one sentence names the file.

A small graph is built once in this process. A trial damages one of its files and builds what comes next.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from drive_assets.tasks import EVALUATE, TRAIN, EvaluateJob, TrainJob
from drive_assets_tests.campaign.compare import same
from drive_assets_tests.campaign.drafts import Draft, flipped
from drive_assets_tests.campaign.trial import Trial
from model.common.errors import DataError
from model.evaluation.config import EvaluationConfig
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording
from model.training.recipes import TrainingConfig

Command = Callable[..., tuple[int, str]]
ARCHITECTURE = "simple_concat_lstm"
TRAINING = TrainingConfig(epochs=1, batch_size=64, embedding_dim=8, hidden_dim=8, attention_num_heads=2,
                          decoder_num_layers=1, device="cpu")  # fmt: skip
EVALUATION = EvaluationConfig(bootstrap_samples=5, importances=False, device="cpu")
NAMES = [f"{datetime(2023, 1, 1, 8) + timedelta(days=day):%Y-%m-%d_%H-%M-%S}" for day in range(4)]


def training(storage: Storage) -> None:
    version, output = read_manifest(storage)["fingerprint"], storage.checkpoint(ARCHITECTURE)
    TRAIN.do(TrainJob(ARCHITECTURE, storage.splits, output, TRAINING, version), _ignore)


def new_training(storage: Storage) -> None:
    shutil.rmtree(storage.checkpoint(ARCHITECTURE))
    training(storage)


def evaluation(storage: Storage) -> None:
    checkpoint, output = storage.checkpoint(ARCHITECTURE) / "best_model.pt", storage.evaluation(ARCHITECTURE)
    EVALUATE.do(EvaluateJob(ARCHITECTURE, checkpoint, storage.splits, output, EVALUATION), _ignore)


MULTIMODAL, MODEL = "datasets/multimodal", f"models/multimodal/{ARCHITECTURE}"
SPLITS = "split_manifest,h5_split"
FOLDER = f"recordings/{NAMES[1]}"
SPLIT_INPUTS = ("annotations.csv", "annotations.json", "future_labels.csv", "telemetry.csv", "roi.json")
TARGETS: list[tuple[str, str | Callable[[Storage], None], tuple[str, ...]]] = [
    *((f"{FOLDER}/{name}", SPLITS, (f"{MULTIMODAL}/train.h5",)) for name in SPLIT_INPUTS),
    (f"{FOLDER}/.source.json", "recording", (f"{FOLDER}/telemetry.csv",)),
    (f"sources/{NAMES[1]}.json", "recording", (f"{FOLDER}/telemetry.csv",)),
    (f"{MULTIMODAL}/dataset_config.json", "h5_split", (f"{MULTIMODAL}/train.h5", f"{MULTIMODAL}/test.h5")),
    (f"{MULTIMODAL}/train.h5", new_training, (f"{MODEL}/best_model.pt",)),
    (f"{MULTIMODAL}/val.h5", new_training, (f"{MODEL}/best_model.pt",)),
    (f"{MULTIMODAL}/test.h5", evaluation, (f"evaluation/{ARCHITECTURE}/metrics.json",)),
    (f"{MODEL}/best_model.pt", evaluation, (f"evaluation/{ARCHITECTURE}/metrics.json",)),
    (f"{MODEL}/best_model.pt", training, (f"{MODEL}/best_model.pt",)),
    (f"{MODEL}/training_history.json", training, (f"{MODEL}/best_model.pt", f"{MODEL}/training_history.json")),
    (f"evaluation/{ARCHITECTURE}/metrics.json", "model_comparison", ("evaluation/comparison.json",)),
]
"""A file, the assets or the function that read it, and the files that these make."""
FLIPPED = "flipped bits"
TEXT = (".csv", ".json")
"""A flipped digit in these looks like a true one: results may differ then."""


def make(storage: Storage, command: Command, given: Path, pictures: list[bytes]) -> None:
    """The graph that is damaged: four recordings, a vehicle in each frame, one network."""
    for day, name in enumerate(NAMES):
        draft = Draft(name, pictures)
        speeds = {str(60.5 + phase): str(60.5 + phase + day) for phase in range(24)}
        draft.map_column("SPEED", speeds.__getitem__)  # equal drives under other names would be one
        draft.write(given)
    _succeed(command("ingest", str(given)))
    for name in NAMES:
        own = Recording(storage.recording(name))
        times = list(own.frames())
        boxes = [np.array([[10, 110, 90 + row, 190, 0.9, 0]], np.float32) for row in range(len(times))]
        annotations = Annotations.from_frames(times, [f"{time}.jpg" for time in times], boxes)
        write_annotations(own.annotations_path, annotations)
        own.details_path.write_text(json.dumps({"class_names": ["vehicle"], "roi": [0, 100, 640, 200]}))
    _succeed(command("run", "--select", f"future_labels,{SPLITS}"))
    training(storage)
    evaluation(storage)
    _succeed(command("run", "--select", "model_comparison"))


def attempt(storage: Storage, intact: Path, number: int, rng: Random, command: Command, trial: Trial) -> Iterator[str]:
    """Damage one file and build what comes next; yields what is wrong with the outcome."""
    name, following, results = TARGETS[number % len(TARGETS)]
    shutil.rmtree(storage.root)
    shutil.copytree(intact, storage.root, symlinks=True)
    path, output = storage.root / name, ""
    how, content = _damaged(path.read_bytes(), rng)
    path.write_bytes(content)
    trial.what, trial.outcome = f"{how} in {name}, then {getattr(following, '__name__', following)}", "as undamaged"
    try:
        if isinstance(following, str):
            _, output = command("run", "--select", following)
        else:
            following(storage)
    except DataError as error:
        trial.outcome, output = "refused", str(error)
    else:
        differing = [result for result in results if not same(intact / result, storage.root / result)]
        if not differing or (how == FLIPPED and path.suffix in TEXT):
            return
        trial.outcome = f"reported: {differing} differs"
    if str(path) not in output and path.parent.name not in output:
        yield f"names no file: {output[-1000:]}"


def _damaged(content: bytes, rng: Random) -> tuple[str, bytes]:
    if rng.random() < 0.5:
        return FLIPPED, flipped(content, rng, 3)
    others = {
        "nothing": b"",
        "half": content[: rng.randrange(len(content))],
        "noise": rng.randbytes(3000),
        "NULs": bytes(len(content)),
        "null": b"null",
        "a list": b"[1, {}]",
        "an object": b'{"a": {"b": []}}',
        "a table": b"Time,a\n1,2\n",
        "nested lists": b"[" * 50_000,
    }
    return rng.choice(list(others.items()))


def _succeed(outcome: tuple[int, str]) -> None:
    if outcome[0] != 0:
        raise SystemExit(f"The graph cannot be built undamaged:\n{outcome[1]}")


def _ignore(line: Any) -> None:
    pass
