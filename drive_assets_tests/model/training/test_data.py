"""The windows of an epoch, and the network that fits a split."""

from pathlib import Path

import torch

from drive_assets_tests.model.split_files import write_split_file
from model.training.data import epoch_order, load_split, load_train, model_config
from model.training.recipes import TrainingConfig

CONFIG = TrainingConfig(tasks=["brake_1s"], device="cpu")


def test_balanced_epochs_have_as_many_windows_half_of_them_positive(tmp_path: Path) -> None:
    path = write_split_file(tmp_path / "train.h5", frames=2000)
    for head, loss in (("labels", "focal"), ("hazard", "bce")):
        balanced = CONFIG.replace(sampling="balanced", head=head, loss=loss)
        data = load_train(path, balanced, "cpu", "v1")
        data.labels[500:] = 0.0
        every = list(range(len(data)))
        assert epoch_order(data, CONFIG, 0).sort().values.tolist() == every
        order, same = (epoch_order(data, balanced, 1) for _ in range(2))
        assert torch.equal(order, same) and len(order) == len(data)
        columns = [column for column, name in enumerate(data.tasks) if name == "brake_1s" or "_onset_" in name]
        assert abs((data.labels[order][:, columns] > 0).any(dim=1).double().mean().item() - 0.5) < 0.05
        data.labels[:] = 0.0
        assert epoch_order(data, balanced, 1).sort().values.tolist() == every


def test_a_network_takes_threshold_and_classes_from_the_split(tmp_path: Path) -> None:
    path = write_split_file(tmp_path / "train.h5", class_names=["person", "vehicle.car", "bus"], coast_threshold=12.0)
    config = model_config("simple_concat_lstm", CONFIG, load_split(path, CONFIG, "cpu"))
    assert (config["coast_threshold"], config["vehicle_flag"], config["detection_input_dim_per_box"]) == (12.0, True, 7)
