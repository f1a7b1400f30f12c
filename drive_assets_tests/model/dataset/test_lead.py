"""The own lane and the vehicle classes: the same for networks and baselines."""

from pathlib import Path

import numpy as np
import pytest
import torch

from drive_assets_tests.model.split_files import rewrite, write_split_file
from model.dataset.lead import are_vehicles, in_own_lane
from model.dataset.split_file import read_split
from model.dataset.window_data import WindowData
from model.evaluation.lane import lead_box
from model.network.config import ModelConfig
from model.network.derived import DerivedInputs

BOTTOM = 7
"""Of the features of a lead track, its bottom edge."""


def test_the_own_lane_ends_where_a_vehicle_of_the_next_one_begins() -> None:
    middle, width = (
        torch.tensor([0.5, 0.56, 0.57, 0.515, 0.525, 0.512]),
        torch.tensor([0.1, 0.1, 0.1, 0.02, 0.02, 0.01]),
    )
    expected = [True, True, False, True, False, False]
    assert in_own_lane(middle, width).tolist() == in_own_lane(middle.numpy(), width.numpy()).tolist() == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["vehicle"], [True]),
        (["vehicle.left", "vehicle.front"], [True, True]),
        (["person", "vehicle.car", "trafficcone"], [False, True, False]),
        (["person", "truck", "Van"], [False, True, True]),
        (["heavy"], [True]),
    ],
)
def test_vehicles_are_known_by_their_class_names(names: list[str], expected: list[bool]) -> None:
    assert are_vehicles(names) == expected


def test_a_nearer_pedestrian_is_not_the_lead_of_baselines_or_networks(tmp_path: Path) -> None:
    boxes, mask = np.zeros((20, 12, 7), np.float32), np.zeros((20, 12), bool)
    boxes[:, 0] = [0, 0.9, 950, 100, 970, 500, 20 * 400]
    boxes[:, 1] = [1, 0.9, 900, 300, 1020, 400, 120 * 100]
    mask[:, :2] = True
    path = write_split_file(tmp_path / "train.h5", frames=20, class_names=["person", "vehicle.car", "trafficcone"])
    rewrite(path, detections=boxes, detection_mask=mask)
    _, bottom = lead_box(read_split(path))
    assert bottom.tolist() == pytest.approx([400 / 575] * 20)

    batch = next(WindowData.load(path).batches(1))
    derived = DerivedInputs(ModelConfig(lead_tracks=True, vehicle_flag=True))(*batch[:3])
    assert derived[0, BOTTOM].item() == pytest.approx(400 / 575)
