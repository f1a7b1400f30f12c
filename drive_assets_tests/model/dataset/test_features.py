"""What the networks take, number by number."""

import pytest
import torch

from model.common.errors import DataError
from model.dataset.features import detection_features, telemetry_features
from model.recording.schema import CHANNELS, FEATURES, telemetry_dim

REGION = torch.tensor([1920, 575])
SIDES = ("vehicle.left", "vehicle.front", "vehicle.right")


def test_the_usual_channels_are_five_and_ten_features() -> None:
    assert FEATURES == ("SPEED", "RPM", "ACCELERATOR_POS_D", "ENGINE_LOAD", "GEAR")
    assert [telemetry_dim(FEATURES, gear) for gear in ("onehot", "continuous")] == [10, 5]
    scaling = {name: CHANNELS[name].scaling for name in FEATURES[:4]}
    assert list(scaling.values()) == [(0, 150), (650, 4500), (0, 100), (0, 100)]


def test_telemetry_is_scaled_clamped_and_its_gear_one_hot() -> None:
    raw = torch.tensor(
        [[75.0, 2575.0, 25.0, 50.0, 3.0], [-1.0, 600.0, 101.0, 0.0, 0.0], [200.0, 4500.0, 0.0, 99.0, 9.0]]
    )
    expected = torch.tensor(
        [
            [0.5, 0.5, 0.25, 0.5, 0, 0, 0, 1, 0, 0],
            [0.0, 0.0, 1.0, 0.0, 1, 0, 0, 0, 0, 0],
            [1.0, 1.0, 0.0, 0.99, 0, 0, 0, 0, 0, 1],
        ]
    )
    torch.testing.assert_close(telemetry_features(raw), expected)
    assert telemetry_features(raw[None, None]).shape == (1, 1, 3, 10)


def test_gear_as_one_number_and_features_of_the_channels_that_are_there() -> None:
    raw = torch.tensor([[150.0, 650.0, 0.0, 0.0, 2.0]])
    torch.testing.assert_close(telemetry_features(raw, "continuous"), torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.4]]))
    two = telemetry_features(torch.tensor([[75.0, 25.0]]), inputs=("SPEED", "ACCELERATOR_POS_D"))
    torch.testing.assert_close(two, torch.tensor([[0.5, 0.25]]))
    with pytest.raises(DataError, match="Gear coding 'none': expected one of onehot, continuous"):
        telemetry_features(raw, "none")


def test_detections_become_shares_of_the_crop_and_zero_outside_the_mask() -> None:
    raw = torch.tensor([[2.0, 0.9, 480.0, 115.0, 960.0, 230.0, 55200.0], [1.0, 0.5, -3.0, 0.0, 2000.0, 600.0, 9e9]])
    raw = raw[[0, 1, 0]]
    mask = torch.tensor([True, True, False])
    expected = torch.tensor([[0.9, 0.25, 0.2, 0.5, 0.4, 0.05], [0.5, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(detection_features(raw, mask, REGION, SIDES), expected)

    classes = torch.tensor([[0.0, 0, 1], [0, 1, 0], [0, 0, 0]])
    with_classes = detection_features(raw, mask, REGION, SIDES, one_hot=True)
    torch.testing.assert_close(with_classes, torch.cat((expected, classes), dim=1))

    with_people = detection_features(raw, mask, REGION, ("person", "trafficcone", "vehicle.car"))
    torch.testing.assert_close(with_people, torch.cat((expected, torch.tensor([[1.0], [0], [0]])), dim=1))


def test_classes_outside_the_mask_are_not_looked_at() -> None:
    raw = torch.full((1, 7), -1.0)
    assert not detection_features(raw, torch.tensor([False]), REGION, SIDES, one_hot=True).any()
