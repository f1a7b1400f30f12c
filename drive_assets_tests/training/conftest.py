"""Shared by tests of trainings: splits, and options of a small network."""

from pathlib import Path

import pytest

from drive_assets_tests.model.split_files import write_splits

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
    return write_splits(data_root)
