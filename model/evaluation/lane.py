"""Vehicles in the own lane, and the lead vehicle among them."""

import numpy as np
import numpy.typing as npt

from model.dataset.lead import are_vehicles, in_own_lane
from model.dataset.split_file import Split

GROWTH_FRAMES = 4
SPEED_EDGES, SIZE_EDGES, GROWTH_EDGES = (10.0, 50.0, 100.0), (0.002, 0.01), (-0.1, 0.1)
"""km/h; shares of the region's area; logarithms of growth: receding, steady, closing"""


def boxes_in_lane(split: Split) -> npt.NDArray[np.bool_]:
    """(F,N) which detections are vehicles in the own lane."""
    width = _region(split)[:, :1]
    x1, x2 = split.detections[..., 2] / width, split.detections[..., 4] / width
    vehicle = np.array(are_vehicles(split.class_names))[split.detections[..., 0].astype(int)]
    return np.asarray(split.detection_mask & vehicle & in_own_lane((x1 + x2) / 2, x2 - x1))


def lead_box(split: Split) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Share of the region's area and bottom edge (share of its height) of each frame's lead vehicle; NaN without one.

    The lead is the box in the lane whose bottom edge is lowest: the nearest.
    """
    region = _region(split)
    bottom = np.where(boxes_in_lane(split), split.detections[..., 5] / region[:, 1:], -1.0)
    nearest = bottom.argmax(axis=1)[:, None]
    area = np.take_along_axis(split.detections[..., 6], nearest, 1)[:, 0] / region.prod(axis=1)
    edge = np.take_along_axis(bottom, nearest, 1)[:, 0]
    none = edge < 0
    return np.where(none, np.nan, area).astype(np.float32), np.where(none, np.nan, edge).astype(np.float32)


def scenes(split: Split, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) the kind of scene at frames: bins of speed, size of the lead vehicle and how it grew over two seconds.

    The size stands for the distance. In the first two seconds of a recording the growth is unknown.
    """
    area = lead_box(split)[0]
    before = np.maximum(rows - GROWTH_FRAMES, 0)
    same = split.recording[before] == split.recording[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = np.where(same, np.log(area[rows] / area[before]), np.nan)
    speed = np.digitize(np.nan_to_num(split.channel("SPEED")[rows]), SPEED_EDGES)
    size = np.where(np.isnan(area[rows]), 0, 1 + np.digitize(area[rows], SIZE_EDGES))
    closing = np.where(np.isnan(growth), 0, 1 + np.digitize(growth, GROWTH_EDGES))
    return np.asarray((speed * 8 + size) * 8 + closing, np.int64)


def _region(split: Split) -> npt.NDArray[np.float32]:
    """(F,2) width and height of the region of interest of each frame's recording, px."""
    return split.region[split.recording].astype(np.float32)
