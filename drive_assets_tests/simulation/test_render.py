"""Frames: boxes are where the vehicles were drawn, near hides far, and brake lamps are lit."""

import numpy as np
import pytest

from drive_assets.simulation.camera import RECORDER
from drive_assets.simulation.demand import VEHICLE_TYPES
from drive_assets.simulation.render import CAMERA_SETBACK_M, Renderer
from drive_assets.simulation.road import Road
from drive_assets.simulation.traffic import Snapshot

ROAD = Road(weaves=((3000.0, 3600.0),), starts={})
EGO_X, EGO_Y = 1000.0, -5.6
KINDS = [kind.name for kind in VEHICLE_TYPES]


def renderer(seed: int = 4) -> Renderer:
    return Renderer(RECORDER, ROAD, seed, noise=0.0)


def vehicles(*placed: tuple[str, float, float, bool]) -> Snapshot:
    """Vehicles of (kind, metres from the camera to the rear, metres left of the ego, braking)."""
    kind = np.array([KINDS.index(name) for name, *_ in placed], np.int64)
    lengths = np.array([VEHICLE_TYPES[each].length for each in kind])
    ahead, left = (np.array([one[column] for one in placed], float) for column in (1, 2))
    return Snapshot(
        number=np.arange(len(placed)) + 5,
        kind=kind,
        x=EGO_X - CAMERA_SETBACK_M + ahead + lengths,
        y=EGO_Y + left,
        braking=np.array([one[3] for one in placed], bool),
        speed=np.full(len(placed), 25.0),
    )


NOBODY = vehicles()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("ahead", "left"), [(15.0, 0.0), (25.0, 3.75), (12.0, -3.75), (60.0, 0.0)])
def test_the_box_holds_what_the_vehicle_changes_in_the_picture(kind: str, ahead: float, left: float) -> None:
    drawing = renderer()
    image, [seen] = drawing.frame(EGO_X, EGO_Y, vehicles((kind, ahead, left, False)), (1,))
    empty, _ = drawing.frame(EGO_X, EGO_Y, NOBODY, (1,))
    changed = (np.abs(image.astype(int) - empty).max(axis=2) > 25) & (np.arange(1080)[:, None] < drawing.camera.bonnet)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    x1, y1, x2, y2 = seen.whole
    # The shadow on the road reaches beyond the box; mirrors stick out a little.
    reach = 0.45 * drawing.camera.focal / ahead + 2
    assert abs(rows[0] - y1) <= 0.12 * (y2 - y1) + 2 and abs(rows[-1] - y2) <= reach
    assert x1 - reach <= columns[0] and columns[-1] <= x2 + reach
    assert seen.visible == 1.0 and changed[y1:y2, x1:x2].mean() > 0.5
    assert seen.rear is not None and seen.rear[0] >= x1 and seen.rear[2] <= x2


def test_sizes_follow_perspective() -> None:
    drawing = renderer()
    _, seen = drawing.frame(EGO_X, EGO_Y, vehicles(("hatch", 20, 0, False), ("hatch", 80, 3.75, False)), (1,))
    widths = [one.rear[2] - one.rear[0] for one in seen if one.rear]
    assert [one.number for one in seen] == [5, 6]
    assert widths[0] == pytest.approx(1.78 * drawing.camera.focal / 20, abs=3)
    assert widths[1] == pytest.approx(1.78 * drawing.camera.focal / 80, abs=3)


def test_a_vehicle_to_the_left_shows_its_right_flank_and_the_reverse() -> None:
    _, seen = renderer().frame(EGO_X, EGO_Y, vehicles(("truck", 20, 3.75, False), ("truck", 21, -3.75, False)), (1,))
    (left, right) = seen
    assert left.rear and right.rear
    assert left.whole[2] - left.rear[2] > 10 and abs(left.whole[0] - left.rear[0]) <= 1
    assert right.rear[0] - right.whole[0] > 10 and abs(right.whole[2] - right.rear[2]) <= 1


def test_near_vehicles_hide_far_ones() -> None:
    _, seen = renderer().frame(EGO_X, EGO_Y, vehicles(("hatch", 60, 0, False), ("truck", 15, 0, False)), (1,))
    assert KINDS[seen[0].kind] == "truck"
    assert all(one.visible < 0.1 for one in seen[1:])


def test_a_vehicle_beside_the_camera_shows_no_rear() -> None:
    _, [seen] = renderer().frame(EGO_X, EGO_Y, vehicles(("truck", -6, 3.75, False)), (1,))
    assert seen.rear is None and seen.whole[0] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [2, 4])
def test_brake_lamps_are_brighter_when_lit(kind: str, seed: int) -> None:
    drawing = renderer(seed)
    off, [seen] = drawing.frame(EGO_X, EGO_Y, vehicles((kind, 20, 0, False)), (1,))
    lit, _ = drawing.frame(EGO_X, EGO_Y, vehicles((kind, 20, 0, True)), (1,))
    x1, y1, x2, y2 = seen.whole
    red = [image[y1:y2, x1:x2, 2].astype(int) - image[y1:y2, x1:x2, 1] for image in (off, lit)]
    assert (red[1] - red[0] > 40).sum() > 0.01 * red[0].size
