"""Hazards: label probabilities are those of the chain, and only transitions with two known ends are learnt."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from drive_assets_tests.model.split_files import rewrite, write_split_file
from model.dataset.window_data import WindowData
from model.evaluation.importance import predict
from model.network.config import HAZARDS
from model.network.hazard import label_logits, with_transitions
from model.recording.schema import BINARY_LABELS
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.loop import train
from model.training.recipes import RECIPES, TrainingConfig


def test_label_probabilities_follow_from_hazards() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = {name: 3 * torch.randn(50, generator=generator) for name in HAZARDS}
    labels = label_logits(logits)
    assert set(labels) == set(BINARY_LABELS)
    for action in ("brake", "coast"):
        p = logits[f"{action}_now"].double().sigmoid()
        for h in range(1, 6):
            onset, release = (logits[f"{action}_{kind}_{h}s"].double().sigmoid() for kind in ("onset", "release"))
            p = p * (1 - release) + (1 - p) * onset
            torch.testing.assert_close(labels[f"{action}_{h}s"].double().sigmoid(), p, atol=1e-6, rtol=1e-5)


def test_extreme_hazards_keep_logits_and_gradients_finite() -> None:
    for value in (-100.0, 100.0):
        logits = {name: torch.full((2,), value, requires_grad=True) for name in HAZARDS}
        labels = torch.stack(list(label_logits(logits).values()))
        labels.sum().backward()
        assert torch.isfinite(labels).all()
        assert all(torch.isfinite(each.grad).all() for each in logits.values() if each.grad is not None)
    certain = label_logits({name: torch.full((1,), -60.0) for name in HAZARDS})
    assert certain["brake_1s"].item() == pytest.approx(-60 + np.log(2), abs=0.01)  # from now, or begun since


def test_transitions_have_two_known_ends(tmp_path: Path) -> None:
    path = write_split_file(tmp_path / "train.h5", length=1)
    with h5py.File(path) as file:
        labels, state = file["labels"][()], file["state"][()]
    course = [0, 1, 1, -1, 0, 0]  # braking begins in the first second; what is 3 s ahead is unknown
    state[0, 0] = course[0]
    labels[0, [BINARY_LABELS.index(f"brake_{h}s") for h in range(1, 6)]] = course[1:]
    rewrite(path, labels=labels, state=state)
    data = with_transitions(WindowData.load(path, tasks=BINARY_LABELS))
    known = {name: label for name, label, seen in zip(HAZARDS, data.labels[0], data.label_mask[0], strict=True) if seen}
    brake = {name: value.item() for name, value in known.items() if name.startswith("brake")}
    assert brake == {"brake_now": 0, "brake_onset_1s": 1, "brake_release_2s": 0, "brake_onset_5s": 0}
    assert not data.going_on[0, HAZARDS.index("brake_onset_5s")]


def test_a_network_learns_hazards_and_predicts_labels(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "val")):
        write_split_file(tmp_path / f"{name}.h5", seed=seed)
    sizes = {"embedding_dim": 8, "hidden_dim": 8, "attention_num_heads": 2, "members": 2, "members_dim": 8}
    config = RECIPES["best"].replace(**sizes, head="hazard", tasks=["coast_2s"], epochs=3, batch_size=32, device="cpu")
    config = config.replace(auxiliary_weight=0.0, learning_rate=0.02)
    result = train("simple_concat_lstm", tmp_path, tmp_path / "out", config)
    assert max(epoch["val_pr_auc_coast_2s"] or 0 for epoch in result.history) > 0.8
    model, content = load_checkpoint(result.best_model)
    assert content["model_config"]["prediction_tasks"] == ["coast_2s"]
    assert predict(model, load_split(tmp_path / "val.h5", config, "cpu"), 64).shape[1] == 1


def test_a_hazard_has_the_largest_weight_of_the_labels_that_depend_on_it() -> None:
    config = TrainingConfig(loss="bce", head="hazard", tasks=["brake_2s"], auxiliary_weight=0.1)
    weights = config.weights
    assert (
        weights["brake_now"] == weights["brake_onset_1s"] == weights["brake_release_2s"] == weights["brake_2s"] == 0.95
    )
    assert weights["brake_onset_3s"] == weights["coast_now"] == weights["brake_1s"] == 0.1
    with pytest.raises(ValueError, match="expected bce with head hazard"):
        TrainingConfig(head="hazard")
