"""Inputs that a network derives from its window: rates of change, and the lead tracked back through it."""

import pytest
import torch
from torch import Tensor

from model.factory import architecture_of, create_model_variant
from model.network.architectures import ARCHITECTURES
from model.network.derived import MOTIONS, SPANS, Camera, lead_track, slopes, telemetry_changes
from model.recording.schema import telemetry_dim

TIME = 20
SMALL = {"embedding_dim": 16, "hidden_dim": 16, "attention_num_heads": 2, "decoder_num_layers": 1, "members_dim": 16}
CAMERA = Camera(horizon=0.3, distance=5.0, noise=0.001)
WIDTH = 0.4
"""Width of a vehicle / depth below the horizon."""
SPEED = torch.full((1, TIME), 25.0)


def vehicle(metres: Tensor, widths: float = 0.0, camera: Camera = CAMERA) -> Tensor:
    """(...,6) features of a car's rear at distance `metres` (...), `widths` of a car to the right."""
    depth = camera.distance / metres
    bottom, width = camera.horizon + depth, WIDTH * depth
    middle = 0.5 + widths * width
    corners = (middle - width / 2, bottom - 2 * width, middle + width / 2, bottom)
    return torch.stack((torch.full_like(metres, 0.9), *corners, 2 * width**2), dim=-1)


def seen(count: int = 1) -> Tensor:
    return torch.ones(1, TIME, count, dtype=torch.bool)


def test_the_slope_of_a_line_is_the_same_with_a_missing_frame_and_zero_with_one_frame() -> None:
    line = 3.0 * torch.arange(TIME) * 0.5
    every, some, one = torch.ones(TIME), torch.ones(TIME), torch.zeros(TIME)
    some[-2], one[-1] = 0, 1
    rates = slopes(torch.stack((line, line, line)), torch.stack((every, some, one)))
    spread = [0.5, 4.375, 20.625]  # sum of squared seconds from the mean over 3, 6 and 10 frames
    assert rates[0].tolist() == pytest.approx([3 * s / (s + 0.05) for s in spread])
    assert rates[1, 0].item() == pytest.approx(3 * 0.5 / 0.55)
    assert rates[2].tolist() == [0.0] * len(SPANS)


def test_constant_telemetry_has_no_rates_and_the_label_config_says_when_the_pedal_is_released() -> None:
    telemetry = torch.full((2, TIME, 10), 0.5)
    telemetry[1, -4:, 2] = 0.1
    released = [1.0, 4 / TIME, 1.0, 4 / TIME]
    for threshold, expected in ((7.5, [0.0, 0.0, 0.0, 1.0]), (12.0, released)):
        channels = {"SPEED": 0, "RPM": 1, "ACCELERATOR_POS_D": 2, "ENGINE_LOAD": 3}
        features = telemetry_changes(telemetry, channels, threshold)
        assert features[0, 12:-4].abs().max() < 1e-5
        assert features[1, -4:].tolist() == pytest.approx(expected)


def test_camera_and_box_jitter_are_estimated_from_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    metres = 40 + 25 * torch.sin(torch.arange(4000) / 200)
    boxes = torch.stack((vehicle(metres), vehicle(metres * 1.5, 2.0)), dim=1)
    size = boxes[..., 5].sqrt()
    boxes[..., 2] -= 0.002 * torch.randn(boxes.shape[:2], generator=generator)  # the upper edge, of a box twice as high
    camera = Camera.measure(boxes, torch.ones(4000, 2, dtype=torch.bool))
    assert camera.horizon == pytest.approx(0.3, abs=0.005)
    assert camera.distance == pytest.approx(30 * 5.0 / 40, rel=0.15)
    spread = 0.5 * 0.002 / (boxes[..., 4] - boxes[..., 2]) * size  # of half the log height, x size
    assert camera.noise == pytest.approx(spread.median().item(), rel=0.25)
    assert Camera.measure(boxes[:50], torch.ones(50, 2, dtype=torch.bool)) == Camera()


def test_the_lead_is_tracked_past_a_missed_frame_and_a_nearer_car_in_the_next_lane() -> None:
    metres = torch.linspace(40, 30, TIME)
    detections = torch.stack((vehicle(metres / 2, 2.0), vehicle(metres), vehicle(metres * 4)), dim=1)[None]
    mask = seen(3)
    mask[0, -4, 1] = False
    last = lead_track(detections, mask, SPEED, CAMERA)
    assert last[0, :4].tolist() == pytest.approx([1.0, 1.0, 19 / TIME, 0.0])
    assert last[0, 4].item() == pytest.approx(0.0, abs=0.01)  # log of 30 m / 30
    mask[0, -2:, 1] = False
    mask[0, -2:, 2] = False
    assert lead_track(detections, mask, SPEED, CAMERA)[0, :4].tolist() == pytest.approx([0.0, 1.0, 17 / TIME, -1.0])
    mask[0, -4:, 1:] = False
    assert not lead_track(detections, mask, SPEED, CAMERA)[0, :-1].any()


@pytest.mark.parametrize("camera", [CAMERA, Camera(horizon=0.45, distance=2.5, noise=0.001)])
def test_relative_speed_and_acceleration_follow_from_distances_for_any_camera(camera: Camera) -> None:
    time = torch.arange(TIME) * 0.5 - (TIME - 1) * 0.5
    for speed, acceleration in ((-2.0, 0.0), (1.0, 0.0), (-1.0, -0.2)):
        metres = 30 + speed * time + acceleration * time**2 / 2
        last = lead_track(vehicle(metres, camera=camera)[None, :, None], seen(), SPEED, camera)[0]
        motions = last[10 : 10 + 5 * len(MOTIONS)].view(len(MOTIONS), 5)
        assert (motions[-2:, 0] * 2).tolist() == pytest.approx([speed] * 2, abs=0.3)
        assert motions[-2:, 2].tolist() == pytest.approx([acceleration] * 2, abs=0.12)


def test_the_order_of_detections_and_empty_slots_change_nothing() -> None:
    detections = torch.stack([vehicle(torch.linspace(60 + k, 30 + k, TIME), 2.0 * (k - 1)) for k in range(3)], dim=1)
    plain = lead_track(detections[None], seen(3), SPEED, CAMERA)
    padded = torch.cat((detections.flip(1), torch.full((TIME, 2, 6), 0.4)), dim=1)
    other = lead_track(padded[None], torch.cat((seen(3), ~seen(2)), dim=2), SPEED, CAMERA)
    assert torch.equal(plain, other)


@pytest.mark.parametrize("inputs", [None, ["SPEED", "ACCELERATOR_POS_D"], ["ACCELERATOR_POS_D", "GEAR"]])
@pytest.mark.parametrize("flags", [{"telemetry_changes": True}, {"lead_tracks": True}])
@pytest.mark.parametrize("architecture", [ARCHITECTURES[0], ARCHITECTURES[-1]])
def test_networks_derive_the_inputs_of_their_flags_from_any_channels(
    architecture: str, flags: dict[str, bool], inputs: list[str] | None
) -> None:
    channels = {} if inputs is None else {"telemetry_inputs": inputs, "telemetry_input_dim": telemetry_dim(inputs)}
    model = create_model_variant({**architecture_of(architecture), **SMALL, **flags, **channels})
    generator = torch.Generator().manual_seed(0)
    telemetry = torch.rand(4, TIME, model.config.telemetry_input_dim, generator=generator)
    detections = torch.rand(4, TIME, 3, 6, generator=generator)
    mask = torch.zeros(4, TIME, 3, dtype=torch.bool)
    mask[1:] = torch.rand(3, TIME, 3, generator=generator) < 0.5
    logits = model(telemetry, detections * mask[..., None], mask)
    assert all(value.shape == (4, model.config.members) for value in logits.values())
    sum(value.sum() for value in logits.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
