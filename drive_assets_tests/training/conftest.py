"""Shared by tests of trainings: splits, and options of a small network."""

import json
from pathlib import Path

import pytest

from drive_assets_tests.model.split_files import write_split_file

SMALL = {
    "epochs": 2,
    "batch_size": 32,
    "warmup_epochs": 0,
    "learning_rate": 0.001,
    "device": "cpu",
    "embedding_dim": 16,
    "hidden_dim": 16,
    "attention_num_heads": 4,
    "decoder_num_layers": 1,
}


@pytest.fixture
def splits(data_root: Path) -> Path:
    """Splits with their manifest, as h5_split writes them."""
    folder = data_root / "datasets" / "multimodal"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "val", "test")):
        write_split_file(folder / f"{name}.h5", frames=60, seed=seed, version="v1")
    parts = {name: {"windows": 41} for name in ("train", "val", "test")}
    (folder / "dataset_config.json").write_text(json.dumps({"fingerprint": "v1", "splits": parts}))
    return folder
