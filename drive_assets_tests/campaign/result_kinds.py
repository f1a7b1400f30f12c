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
from drive_assets_tests.campaign.drafts import Draft
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


def splits(storage: Storage, command: Command) -> str:
    return command("run", "--select", "split_manifest,h5_split")[1]


def files_of_splits(storage: Storage, command: Command) -> str:
    return command("run", "--select", "h5_split")[1]


def training(storage: Storage, command: Command) -> str:
    version, output = read_manifest(storage)["fingerprint"], storage.checkpoint(ARCHITECTURE)
    TRAIN.do(TrainJob(ARCHITECTURE, storage.splits, output, TRAINING, version), _quiet)
    return ""


def new_training(storage: Storage, command: Command) -> str:
    shutil.rmtree(storage.checkpoint(ARCHITECTURE))
    return training(storage, command)


def evaluation(storage: Storage, command: Command) -> str:
    checkpoint, output = storage.checkpoint(ARCHITECTURE) / "best_model.pt", storage.evaluation(ARCHITECTURE)
    EVALUATE.do(EvaluateJob(ARCHITECTURE, checkpoint, storage.splits, output, EVALUATION), _quiet)
    return ""


def comparison(storage: Storage, command: Command) -> str:
    return command("run", "--select", "model_comparison")[1]


def recording(storage: Storage, command: Command) -> str:
    return command("run", "--select", "recording")[1]


Next = Callable[[Storage, Command], str]
MULTIMODAL, MODEL = "datasets/multimodal", f"models/multimodal/{ARCHITECTURE}"
FOLDER = f"recordings/{NAMES[1]}"
TARGETS: list[tuple[str, Next, tuple[str, ...]]] = [
    (f"{FOLDER}/annotations.csv", splits, (f"{MULTIMODAL}/train.h5",)),
    (f"{FOLDER}/annotations.json", splits, (f"{MULTIMODAL}/train.h5",)),
    (f"{FOLDER}/future_labels.csv", splits, (f"{MULTIMODAL}/train.h5",)),
    (f"{FOLDER}/telemetry.csv", splits, (f"{MULTIMODAL}/train.h5",)),
    (f"{FOLDER}/roi.json", splits, (f"{MULTIMODAL}/train.h5",)),
    (f"{FOLDER}/.source.json", recording, (f"{FOLDER}/telemetry.csv",)),
    (f"sources/{NAMES[1]}.json", recording, (f"{FOLDER}/telemetry.csv",)),
    (f"{MULTIMODAL}/dataset_config.json", files_of_splits, (f"{MULTIMODAL}/train.h5", f"{MULTIMODAL}/test.h5")),
    (f"{MULTIMODAL}/train.h5", new_training, (f"{MODEL}/best_model.pt",)),
    (f"{MULTIMODAL}/val.h5", new_training, (f"{MODEL}/best_model.pt",)),
    (f"{MULTIMODAL}/test.h5", evaluation, (f"evaluation/{ARCHITECTURE}/metrics.json",)),
    (f"{MODEL}/best_model.pt", evaluation, (f"evaluation/{ARCHITECTURE}/metrics.json",)),
    (f"{MODEL}/best_model.pt", training, (f"{MODEL}/best_model.pt",)),
    (f"{MODEL}/training_history.json", training, (f"{MODEL}/best_model.pt", f"{MODEL}/training_history.json")),
    (f"evaluation/{ARCHITECTURE}/metrics.json", comparison, ("evaluation/comparison.json",)),
]
"""A file, the step that reads it, and the files of that step."""
TEXT = (".csv", ".json")
"""A flipped digit in these looks like a true one: results may differ then."""


def make(storage: Storage, command: Command, given: Path, pictures: list[bytes]) -> None:
    """The graph that is damaged: four recordings, a vehicle in each frame, one network."""
    paths = []
    for name in NAMES:
        draft = Draft(name, pictures)
        paths.append(str(draft.write(given)))
    _right(command("ingest", *paths))
    for name in NAMES:
        own = Recording(storage.recording(name))
        times = list(own.frames())
        boxes = [np.array([[10, 110, 90 + row, 190, 0.9, 0]], np.float32) for row in range(len(times))]
        annotations = Annotations.from_frames(times, [f"{time}.jpg" for time in times], boxes)
        write_annotations(own.annotations_path, annotations)
        own.details_path.write_text(json.dumps({"class_names": ["vehicle"], "roi": [0, 100, 640, 200]}))
    _right(command("run", "--select", "future_labels,split_manifest,h5_split"))
    training(storage, command)
    evaluation(storage, command)
    _right(command("run", "--select", "model_comparison"))


def attempt(storage: Storage, intact: Path, number: int, rng: Random, command: Command) -> tuple[str, str, list[str]]:
    """Damage one file; returns what was done, what came of it, and what is wrong with that."""
    name, following, results = TARGETS[number % len(TARGETS)]
    shutil.rmtree(storage.root)
    shutil.copytree(intact, storage.root, symlinks=True)
    path = storage.root / name
    how, is_flip = _damage(path, rng)
    kind = f"{how} in {name}, then {following.__name__}"
    try:
        said = following(storage, command)
    except DataError as error:
        return kind, "refused", list(_names_file(str(error), path))
    except Exception as error:
        return kind, "", [f"raises {type(error).__name__}: {error}"]
    differing = [result for result in results if not same(intact / result, storage.root / result)]
    if not differing or (is_flip and path.suffix in TEXT):
        return kind, "as undamaged", []
    return kind, "reported", [f"{differing} differs: {fault}" for fault in _names_file(said, path)]


def _names_file(said: str, path: Path) -> Iterator[str]:
    if str(path) not in said and path.parent.name not in said:
        yield f"names no file: {said[-1000:]}"


def _damage(path: Path, rng: Random) -> tuple[str, bool]:
    content = path.read_bytes()
    if rng.random() < 0.5:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        return "flipped bits", True
    how, junk = rng.choice(
        [
            ("nothing", b""),
            ("half", content[: rng.randrange(len(content))]),
            ("noise", rng.randbytes(3000)),
            ("NULs", bytes(len(content))),
            ("null", b"null"),
            ("a list", b"[1, {}]"),
            ("an object", b'{"a": {"b": []}}'),
            ("a table", b"Time,a\n1,2\n"),
            ("nested lists", b"[" * 50_000),
        ]
    )
    path.write_bytes(junk)
    return how, False


def _right(outcome: tuple[int, str]) -> None:
    if outcome[0] != 0:
        raise SystemExit(f"The graph cannot be built undamaged:\n{outcome[1]}")


def _quiet(line: Any) -> None:
    pass
