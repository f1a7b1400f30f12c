"""Every network has the outputs and gradients of its plain formulation, with both layouts of detections."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drive_assets_tests.model.network.plain import PlainModel
from model.factory import architecture_of, create_model_variant
from model.network.architectures import ARCHITECTURES
from model.network.attention import Dropout
from model.network.sets import ObjectSets

SIZES = {"embedding_dim": 32, "hidden_dim": 32, "attention_num_heads": 4, "decoder_num_layers": 2, "dropout_prob": 0.0}


def windows(counts: str) -> tuple[Tensor, Tensor, Tensor]:
    """Five windows of 7 frames with none to 6 detections in 6 slots, in any of them; or none at all."""
    generator = torch.Generator().manual_seed(3)
    telemetry = torch.rand(5, 7, 10, generator=generator)
    mask = torch.rand(5, 7, 6, generator=generator) < torch.rand(5, 7, 1, generator=generator)
    mask[0], mask[1, -1], mask[2, 0] = False, False, True
    if counts == "none":
        mask[:] = False
    return telemetry, torch.rand(5, 7, 6, 6, generator=generator) * mask[..., None], mask


def outputs_and_gradients(model: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    outputs = torch.stack(list(model(*inputs).values()))
    outputs.square().sum().backward()
    return outputs.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}  # type: ignore[misc]


@pytest.mark.parametrize("all_slots", [False, True])
@pytest.mark.parametrize("counts", ["any", "none"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_gradients_are_those_of_the_plain_formulation(
    architecture: str, counts: str, all_slots: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    of: Any = ObjectSets.of
    monkeypatch.setattr(ObjectSets, "of", lambda mask: of(mask, all_slots))
    torch.manual_seed(0)
    model = create_model_variant({**architecture_of(architecture), **SIZES})
    expected, wanted = outputs_and_gradients(PlainModel(model), windows(counts))
    outputs, gradients = outputs_and_gradients(model, windows(counts))

    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        plain = wanted[f"model.{name}"]
        torch.testing.assert_close(gradient, plain, rtol=1e-5, atol=1e-5 * max(1.0, plain.abs().max().item()), msg=name)


def test_sets_of_equal_size_are_grouped_and_restored_in_order() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False], [False, True, False], [True, False, True]])
    values = torch.arange(12.0).view(4, 3, 1)
    sets = ObjectSets.of(mask)

    assert list(sets.groups) == [(1, 0), (1, 1), (2, 2)]
    objects = sets.pack(values)
    assert objects[:, 0].tolist() == [7, 0, 2, 9, 11]
    assert [part.shape for part in sets.split(objects)] == [(1, 0, 1), (1, 1, 1), (2, 2, 1)]
    assert sets.mean(objects)[:, 0].tolist() == [1, 0, 7, 10]
    frames = torch.arange(4.0)
    assert [part.tolist() for part in sets.split_frames(frames)] == [[1], [2], [0, 3]]
    assert torch.equal(sets.join_frames(sets.split_frames(frames)), frames)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.15)
    x = torch.ones(500, 401, requires_grad=True)
    dropped = dropout(x)
    dropped.sum().backward()

    assert (dropped == 0).float().mean().item() == pytest.approx(0.15, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.005)
    assert x.grad is not None and torch.equal(x.grad, dropped.detach())
    assert not torch.equal(dropout(x), dropped)
    assert dropout.eval()(x) is x
