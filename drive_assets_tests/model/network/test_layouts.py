"""Layouts and own kernels change no result: sets without empty slots, attention and decoders on a CPU, dropout."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import TransformerEncoderLayer
from torch.nn.functional import scaled_dot_product_attention

from model.factory import MultimodalModel, architecture_of, create_model_variant
from model.network import attention
from model.network.architectures import ARCHITECTURES
from model.network.attention import Dropout
from model.network.config import ModelConfig
from model.network.decoders import LstmDecoder, TransformerDecoder
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


def outputs_and_gradients(model: MultimodalModel, counts: str) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    outputs = torch.stack(list(model(*windows(counts)).values()))
    outputs.square().sum().backward()
    return outputs.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}  # type: ignore[misc]


def torchs_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)


@pytest.mark.parametrize("counts", ["any", "none"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_gradients_are_those_with_all_slots_and_torchs_attention(
    architecture: str, counts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = create_model_variant({**architecture_of(architecture), **SIZES})
    outputs, gradients = outputs_and_gradients(model, counts)
    of: Any = ObjectSets.of
    monkeypatch.setattr(ObjectSets, "of", lambda mask: of(mask, all_slots=True))
    monkeypatch.setattr(attention, "_attend_on_cpu", torchs_attention)
    expected, wanted = outputs_and_gradients(model, counts)

    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        plain = wanted[name]
        torch.testing.assert_close(gradient, plain, rtol=1e-5, atol=1e-5 * max(1.0, plain.abs().max().item()), msg=name)


def test_decoders_return_the_last_state_of_torchs_layers() -> None:
    fused, config = torch.rand(5, 7, 32), ModelConfig(**SIZES)
    lstm, transformer = LstmDecoder(config), TransformerDecoder(config)
    torch.testing.assert_close(lstm(fused), lstm.lstm(fused)[0][:, -1])
    x = transformer.widen(fused)
    for layer in transformer.layers.layers:
        x = TransformerEncoderLayer.forward(layer, x)  # type: ignore[arg-type]
    torch.testing.assert_close(transformer(fused), transformer.layers.norm(x)[:, -1])  # type: ignore[misc]


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
