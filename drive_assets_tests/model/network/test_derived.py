"""Inputs that a network derives from its window: rates of change, and vehicles followed back over the frames."""

import pytest
import torch
from torch import Tensor

from model.factory import architecture_of, create_model_variant
from model.network.architectures import ARCHITECTURES
from model.network.config import ModelConfig
from model.network.derived import (
    DISTANCE_M,
    HORIZON,
    MEMORIES_S,
    METRES,
    SPANS,
    TELEMETRY_LAST,
    TRACK_FRAME,
    TRACK_LAST,
    lead_tracks,
    slopes,
    telemetry_changes,
)

TIME = 20
SMALL = {"embedding_dim": 16, "hidden_dim": 16, "attention_num_heads": 2, "decoder_num_layers": 1}


def vehicle(distance: Tensor, side_m: float = 0.0) -> Tensor:
    """(T,6) features of a car's rear at `distance` (T,) in lengths of 1 / (bottom - horizon), `side_m` to the right."""
    bottom, width = HORIZON + 1 / distance, 0.4 / distance
    middle = 0.5 + side_m / METRES / distance
    corners = (middle - width / 2, bottom - 2 * width, middle + width / 2, bottom)
    return torch.stack((torch.full_like(distance, 0.9), *corners, 2 * width**2), dim=-1)


def test_the_slope_of_a_line_is_found_where_frames_lack_and_is_zero_with_one_frame() -> None:
    line = 3.0 * torch.arange(TIME) * 0.5
    every, some, one = torch.ones(TIME), torch.ones(TIME), torch.zeros(TIME)
    some[-2], one[-1] = 0, 1
    found = slopes(torch.stack((line, line, line)), torch.stack((every, some, one)))
    spread = [0.5, 4.375, 20.625]  # sum of squared seconds from the mean over 3, 6 and 10 frames
    assert found[0].tolist() == pytest.approx([3 * s / (s + 0.05) for s in spread])
    assert found[1, 0].item() == pytest.approx(3 * 0.5 / 0.55)
    assert found[2].tolist() == [0.0] * len(SPANS)


def test_telemetry_that_does_not_change_has_no_rates() -> None:
    telemetry = torch.full((2, TIME, 10), 0.5)
    telemetry[1, -4:, 2] = 0.0
    frames, last = telemetry_changes(telemetry)
    assert frames.shape == (2, TIME, 4) and last.shape == (2, TELEMETRY_LAST)
    assert frames[0].abs().max() == 0 and last[0, 4:].abs().max() < 1e-5
    assert last[1, -3:].tolist() == pytest.approx([1.0, 4 / TIME, 1.0])


def test_the_lead_is_followed_through_a_miss_and_past_a_nearer_car_of_the_next_lane() -> None:
    distance = torch.linspace(6, 3, TIME)
    detections = torch.stack(
        (vehicle(torch.linspace(3, 2, TIME), 3.5), vehicle(distance), vehicle(distance * 4)), dim=1
    )
    mask = torch.ones(1, TIME, 3, dtype=torch.bool)
    mask[0, -4, 1] = False
    frames, last = lead_tracks(detections[None], mask, torch.full((1, TIME), 0.7))

    own, left, right = frames.view(TIME, 3, TRACK_FRAME).unbind(1)
    assert own[:, 0].tolist() == [0.0 if frame == TIME - 4 else 1.0 for frame in range(TIME)]
    assert own[-1, 2].item() == pytest.approx(HORIZON + 1 / 3)
    assert left.abs().max() == 0 and right[:, 0].min() == 1
    growth = last.view(3, TRACK_LAST)[:, 6:9] / 3
    rate = 3 / (TIME - 1) / 0.5 / 3  # closing speed / distance at the end
    assert growth[0, 0].item() == pytest.approx(rate, rel=0.2)
    assert growth[1].abs().max() == 0


def test_relative_speed_and_acceleration_follow_from_the_distances() -> None:
    time = torch.arange(TIME) * 0.5 - (TIME - 1) * 0.5
    for speed, acceleration in ((-2.0, 0.0), (1.0, 0.0), (-1.0, -0.2)):
        metres = 30 + speed * time + acceleration * time**2 / 2
        detections = vehicle(metres / DISTANCE_M)[None, :, None]
        _, last = lead_tracks(detections, torch.ones(1, TIME, 1, dtype=torch.bool), torch.full((1, TIME), 0.7))
        own = last.view(3, TRACK_LAST)[0]
        found = own[6 + 4 * len(SPANS) :].view(len(MEMORIES_S), 4)
        assert own[4].item() * 50 == pytest.approx(30, rel=0.01)
        assert (found[:, 0] * 2).tolist() == pytest.approx([speed] * 2, abs=0.35)
        assert (found[:, 1]).tolist() == pytest.approx([acceleration] * 2, abs=0.12)


def test_the_order_of_detections_and_empty_slots_change_nothing() -> None:
    detections = torch.stack([vehicle(torch.linspace(6 + k, 3 + k, TIME), 3.0 * (k - 1)) for k in range(3)], dim=1)
    mask = torch.ones(1, TIME, 3, dtype=torch.bool)
    speed = torch.full((1, TIME), 0.7)
    plain = lead_tracks(detections[None], mask, speed)
    padded = torch.cat((detections.flip(1), torch.full((TIME, 2, 6), 0.4)), dim=1)
    other = lead_tracks(padded[None], torch.cat((mask, torch.zeros(1, TIME, 2, dtype=torch.bool)), dim=2), speed)
    assert all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))


@pytest.mark.parametrize("flags", [{"telemetry_changes": True}, {"lead_tracks": True}])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_derives_what_its_flags_say_and_stays_finite(architecture: str, flags: dict[str, bool]) -> None:
    model = create_model_variant({**architecture_of(architecture), **SMALL, **flags})
    generator = torch.Generator().manual_seed(0)
    telemetry = torch.rand(4, TIME, 10, generator=generator)
    detections = torch.rand(4, TIME, 3, 6, generator=generator)
    mask = torch.zeros(4, TIME, 3, dtype=torch.bool)
    mask[1:] = torch.rand(3, TIME, 3, generator=generator) < 0.5
    logits = model(telemetry, detections * mask[..., None], mask)
    sum(value.sum() for value in logits.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_without_flags_a_network_has_the_weights_that_it_always_had() -> None:
    model = create_model_variant({**architecture_of("simple_concat_lstm"), **SMALL})
    assert not ModelConfig().derives and not [name for name in model.state_dict() if name.startswith("derived")]
