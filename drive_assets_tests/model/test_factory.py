"""The twelve networks: finite for empty frames, blind to the order of detections, strict configs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model.common.errors import DataError
from model.factory import MultimodalModel, architecture_of, create_model_variant
from model.network.architectures import ARCHITECTURES
from model.network.decoders import PRIOR
from model.training.loss import UnifiedFocalLoss

SMALL = {"embedding_dim": 16, "hidden_dim": 32, "attention_num_heads": 4, "decoder_num_layers": 2}


def variant(architecture: str, **more: Any) -> MultimodalModel:
    torch.manual_seed(0)
    return create_model_variant({**architecture_of(architecture), **SMALL, **more})


def windows(batch: int = 6, empty: str = "some", time: int = 20, objects: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Random inputs. With `empty` "some", all frames of a window and the last of another have no detection; or all."""
    generator = torch.Generator().manual_seed(1)
    telemetry = torch.rand(batch, time, 10, generator=generator)
    count = torch.randint(0, objects + 1, (batch, time, 1), generator=generator)
    mask = torch.arange(objects) < count
    mask[0] = False
    mask[1, -1] = False
    if empty == "all":
        mask[:] = False
    return telemetry, torch.rand(batch, time, objects, 6, generator=generator) * mask[..., None], mask


@pytest.mark.parametrize("empty", ["some", "all"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_empty_frames_give_finite_outputs_losses_and_gradients(
    architecture: str, precision: torch.dtype, empty: str
) -> None:
    model = variant(architecture).train()
    loss = UnifiedFocalLoss(model.config.prediction_tasks)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
        logits = model(*windows(empty=empty))
    labels = torch.tensor([[1.0, 0, 1, 0]] * 3 + [[0, 1.0, 0, 1]] * 3)
    value = loss(logits, labels, torch.ones(6, 4, dtype=torch.bool))
    value.backward()

    assert list(logits) == ["brake_1s", "brake_2s", "coast_1s", "coast_2s"]
    assert all(output.shape == (6,) and torch.isfinite(output).all() for output in logits.values())
    assert torch.isfinite(value)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_order_of_detections_empty_slots_and_other_windows_change_nothing(architecture: str) -> None:
    model = variant(architecture).eval()
    telemetry, detections, mask = windows()
    mask[..., 7:] = False
    detections = detections * mask[..., None]
    order = torch.rand(mask.shape, generator=torch.Generator().manual_seed(2)).argsort(dim=-1)
    shuffled = detections.gather(2, order[..., None].expand_as(detections))
    garbage = torch.where(mask[..., None], detections, 7.0)

    with torch.no_grad():
        expected = model(telemetry, detections, mask)
        for others, rows in (
            ((telemetry, shuffled, mask.gather(2, order)), slice(None)),
            ((telemetry, garbage, mask), slice(None)),
            ((telemetry, detections[:, :, :7], mask[..., :7]), slice(None)),
            ((telemetry[3:4], detections[3:4], mask[3:4]), slice(3, 4)),
        ):
            for task, output in model(*others).items():
                torch.testing.assert_close(output, expected[task][rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_modality_and_frame_has_a_gradient(architecture: str) -> None:
    model = variant(architecture).eval()
    telemetry, detections, mask = windows()
    telemetry.requires_grad_()
    detections.requires_grad_()

    sum(output.sum() for output in model(telemetry, detections, mask).values()).backward()

    assert telemetry.grad is not None and (telemetry.grad.abs().sum(dim=-1) > 0).all()
    assert detections.grad is not None
    assert torch.equal(detections.grad.abs().sum(dim=-1) > 0, mask)


def test_an_untrained_network_predicts_rare_positives() -> None:
    with torch.no_grad():
        logits = variant("attention_query_transformer").eval()(*windows())
    for output in logits.values():
        assert output.sigmoid().mean().item() == pytest.approx(PRIOR, abs=0.05)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"encoder": "simple"}, "encoder is unknown: expected one of .*encoder_type, fusion_type"),
        ({"encoder_type": "deep"}, "encoder_type 'deep': expected 'simple' or 'attention'"),
        ({"fusion_type": "sum"}, "fusion_type 'sum': expected 'concat', 'cross_attention' or 'query'"),
        ({"decoder_type": "gru"}, "decoder_type 'gru': expected 'lstm' or 'transformer'"),
        ({"prediction_tasks": ["brake_9s"]}, "prediction_tasks .*expected distinct labels of brake_1s"),
        ({"prediction_tasks": "brake_1s"}, "expected a valid list"),
        ({"prediction_tasks": ["brake_1s", "brake_1s"]}, "expected distinct labels"),
        ({"embedding_dim": 63}, "embedding_dim 63: expected an even multiple of 8"),
        ({"hidden_dim": 100}, "hidden_dim 100: expected a multiple of 8"),
        ({"decoder_num_layers": 2.5}, "decoder_num_layers 2.5: expected a valid integer"),
        ({"telemetry_changes": True, "telemetry_input_dim": 9}, "telemetry_input_dim 9: expected 5 or 10 for SPEED"),
        ({"dropout_prob": 1.0}, "dropout_prob 1.0: expected less than 1"),
    ],
)
def test_a_wrong_config_says_what_is_allowed(config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        create_model_variant(config)


def test_an_unknown_architecture_names_the_twelve() -> None:
    with pytest.raises(DataError, match=r"'simple_sum_lstm'.*attention_cross_attention_transformer"):
        architecture_of("simple_sum_lstm")
    assert architecture_of("attention_cross_attention_lstm") == {
        "encoder_type": "attention",
        "fusion_type": "cross_attention",
        "decoder_type": "lstm",
    }


def test_a_window_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(DataError, match="Window of 513 frames: expected at most 512"):
        variant("simple_concat_lstm")(*windows(batch=2, time=513))
