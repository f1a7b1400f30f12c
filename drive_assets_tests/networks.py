"""A data root with a trained and evaluated network, from small recordings in seconds."""

import json
from pathlib import Path

from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from model.dataset.split_file import write_split
from model.dataset.windows import WindowConfig
from model.evaluation.config import EvaluationConfig
from model.evaluation.evaluate import evaluate_checkpoint
from model.recording.folder import Recording
from model.training.loop import train
from model.training.recipes import TrainingConfig

ARCHITECTURE = "simple_concat_lstm"
NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 5)]
"""The first three are train, val and test; the last is in no data set."""
TRAINING = TrainingConfig(
    epochs=12, batch_size=32, embedding_dim=16, hidden_dim=16, attention_num_heads=4, decoder_num_layers=1,
    learning_rate=0.01, warmup_epochs=0,
)  # fmt: skip
EVALUATION = EvaluationConfig(bootstrap_samples=20, false_alarms_per_hour=[3, 60], importances=False)


def write_network(root: Path, rows: int = 240) -> Storage:
    """Four annotated and labelled recordings, the splits of three, and a network that has learnt a little."""
    storage = Storage(data_root=str(root), inbox_root=str(root / "inbox"))
    for seed, name in enumerate(NAMES):
        labelled_drive(storage.recording(name), rows, seed)
    splits = dict(zip(("train", "val", "test"), NAMES, strict=False))
    for split, name in splits.items():
        write_split(storage.split(split), [storage.recording(name)], WindowConfig(stride=1), "v1")
    parts = {split: {"recordings": [name]} for split, name in splits.items()}
    storage.manifest.write_text(
        json.dumps({"fingerprint": "v1", "splits": parts, "window": {"length": 20}, "skipped": {}})
    )
    trained = train(ARCHITECTURE, storage.splits, storage.checkpoint(ARCHITECTURE), TRAINING, "v1")
    evaluate_checkpoint(trained.best_model, storage.splits, storage.evaluation(ARCHITECTURE), EVALUATION)
    return storage


def bare_drive(folder: Path, rows: int = 60) -> Recording:
    """A recording that is neither annotated nor labelled."""
    return Recording(write_drive(folder, rows, seed=9))
