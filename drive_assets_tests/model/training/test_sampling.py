"""Which windows an epoch is made of."""

from pathlib import Path

import torch

from drive_assets_tests.model.split_files import write_split_file
from model.factory import architecture_of, create_model_variant
from model.training.epoch import _order
from model.training.loop import load_train, training_loss
from model.training.precision import choose_precision
from model.training.recipes import TrainingConfig
from model.training.step import Step

CONFIG = TrainingConfig(tasks=["brake_1s"], embedding_dim=8, hidden_dim=8, attention_num_heads=2, device="cpu")


def step_of(path: Path, config: TrainingConfig) -> Step:
    model = create_model_variant({**architecture_of("simple_concat_lstm"), **config.network})
    loss, precision = training_loss(config, config.tasks), choose_precision("fp32", torch.device("cpu"))
    return Step(model, load_train(path, config, "cpu"), loss, precision, config)


def test_balanced_epochs_have_as_many_windows_half_of_them_positive(tmp_path: Path) -> None:
    path = write_split_file(tmp_path / "train.h5", frames=2000)
    step = step_of(path, CONFIG)
    step.data.labels[500:] = 0.0
    every = _order(step, torch.Generator().manual_seed(0))
    assert every.sort().values.tolist() == list(range(len(step.data)))
    for head, loss in (("labels", "focal"), ("hazard", "bce")):
        balanced = step_of(path, CONFIG.replace(sampling="balanced", head=head, loss=loss))
        balanced.data.labels[500:] = 0.0
        first, again = (_order(balanced, torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, again) and len(first) == len(balanced.data)
        columns = [c for c, name in enumerate(balanced.data.tasks) if name == "brake_1s" or "_onset_" in name]
        assert abs((balanced.data.labels[first][:, columns] > 0).any(dim=1).double().mean().item() - 0.5) < 0.05
    balanced.data.labels[:] = 0.0
    assert _order(balanced, torch.Generator().manual_seed(1)).sort().values.tolist() == list(range(len(balanced.data)))
