"""Training with inputs derived once for all epochs: a checkpoint answers as the network in training did."""

from pathlib import Path

import torch

from drive_assets_tests.model.split_files import write_split_file
from model.evaluation.importance import predict
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.loop import train
from model.training.recipes import RECIPES

CONFIG = RECIPES["best"].replace(
    epochs=2,
    batch_size=64,
    embedding_dim=8,
    hidden_dim=8,
    attention_num_heads=2,
    members=2,
    members_dim=8,
    device="cpu",
)


def test_a_checkpoint_derives_by_what_was_measured_on_train(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "val")):
        write_split_file(tmp_path / f"{name}.h5", seed=seed)
    result = train("simple_concat_lstm", tmp_path, tmp_path / "output", CONFIG)
    model, content = load_checkpoint(result.best_model)
    assert content["model_config"]["telemetry_inputs"] and model.derived is not None and model.members is not None
    assert (model.members.deviation != 1).any()
    val = load_split(tmp_path / "val.h5", CONFIG, "cpu")
    kept = val.deriving(model.derived, 50)
    assert kept.derived is not None and kept.derived.shape == (len(val), model.derived.dim)
    answers = torch.cat([model(*batch[:3], batch.derived)["brake_1s"].sigmoid() for batch in kept.batches(64)])
    assert torch.allclose(answers.double(), torch.from_numpy(predict(model, val, 64)[:, 0]), atol=1e-6)
