"""Draws the vehicles from far to near, and measures what remains visible of each."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.bodies import Body, Face, body
from drive_assets.simulation.camera import NEAR_M, Points, View
from drive_assets.simulation.demand import VEHICLE_TYPES
from drive_assets.simulation.look import Look
from drive_assets.simulation.scenery import FARTHEST_M, SUBPIXEL_BITS, Image, fill, fixed
from drive_assets.simulation.traffic import Snapshot

MIN_BOX_PX, MIN_VISIBLE = 14.0, 0.25
"""Vehicles whose boxes are smaller (px of a 1920 px wide frame), or that are hidden more, have no label."""
# The index picture has one byte per pixel and two numbers per vehicle.
_MOST_VEHICLES = 120
_PAINT = np.array(
    [(28, 26, 26), (232, 232, 230), (120, 118, 116), (180, 180, 178), (110, 58, 28), (34, 30, 150),
     (70, 64, 60), (44, 66, 36), (90, 110, 132), (205, 205, 208), (140, 90, 40), (60, 50, 48)], float
)  # fmt: skip
_TRUCK_PAINT = np.array(
    [(225, 228, 228), (70, 60, 165), (150, 90, 40), (60, 130, 190), (110, 140, 60), (190, 190, 186)], float
)
_MATERIAL = {
    "black": (24, 24, 24),
    "tyre": (32, 31, 30),
    "rim": (150, 150, 148),
    "glass": (52, 48, 44),
    "glass_side": (62, 58, 54),
    "glass_sky": (118, 108, 98),
    "plate": (225, 228, 228),
    "shade": (62, 60, 58),
    "shadow": (36, 35, 34),
}
_LAMPS = {
    # off, tail lamp, brake lamp
    "lamp": ((34, 28, 118), (44, 34, 190), (60, 46, 255)),
    "lamp_core": ((52, 46, 150), (80, 66, 225), (190, 205, 255)),
    "lamp_high": ((30, 26, 70), (30, 26, 70), (110, 100, 255)),
}
_DISTANCE = np.hypot(*np.meshgrid(*2 * [np.linspace(-1, 1, 65, dtype=np.float32)]))
_HALO = np.clip(np.exp(-5 * _DISTANCE**2) - np.exp(-5.0), 0, 1)[..., None] * np.array((30, 26, 170), np.float32)
"""The light around a lamp."""


@dataclass(frozen=True)
class Seen:
    """One drawn vehicle: (x1, y1, x2, y2) px of all that is visible of it and of its rear, and the visible share.

    `rear` is None if nothing of the rear is visible. `visible` is relative to the part that lies in the frame.
    """

    number: int
    kind: int
    whole: tuple[int, int, int, int]
    rear: tuple[int, int, int, int] | None
    visible: float


def see_vehicles(view: View, y: float, around: Snapshot) -> list[Seen]:
    """What the camera sees of the vehicles `around` the ego at lateral position `y`, nearest first."""
    ids = np.zeros((view.camera.height, view.camera.width), np.uint8)
    outlined = []
    for place, (index, offset) in enumerate(_placed(view, y, around)):
        outline = _outline(ids, view, body(int(around.kind[index])), offset, 2 * place + 1)
        if outline is not None:
            outlined.append((2 * place + 1, index, *outline))
    seen = []
    for number, index, (x1, y1, x2, y2), area in reversed(outlined):
        window = ids[y1:y2, x1:x2]
        rear = window == number + 1
        visible = rear | (window == number)
        if (whole := _extent(visible, x1, y1)) is not None:
            share = np.count_nonzero(visible) / max(area, 1)
            seen.append(Seen(int(around.number[index]), int(around.kind[index]), whole, _extent(rear, x1, y1), share))
    return seen


def draw_vehicles(image: Image, view: View, look: Look, y: float, around: Snapshot) -> None:
    """Draw the vehicles `around` the ego at lateral position `y`."""
    for index, offset in _placed(view, y, around):
        braking, depth = bool(around.braking[index]), max(float(offset[2]), 1.0)
        shape, scale = body(int(around.kind[index])), view.camera.focal / depth
        lit, faces = braking or look.lamps_on, _faces(shape, view, offset)
        palette = _palette(int(around.kind[index]), int(around.number[index]), 2 if braking else int(lit))
        parts = [part for part in shape.parts if part.face in faces and scale * shape.width >= part.smallest]
        colours = np.array([palette[part.material] for part in parts])
        shades = np.array([look.faces[part.face] for part in parts])[:, None]
        glows = np.array([lit and part.material in _LAMPS for part in parts])[:, None]
        tones = np.where(glows, look.glowing(colours, depth), look.lit(np.minimum(colours * shades, 255), depth))
        for polygon, tone in zip(view.polygons([part.points + offset for part in parts]), tones, strict=True):
            fill(image, polygon, tone)
        for part in parts:
            if lit and part.material == "lamp" and part.face == "rear":
                centre = view.project((part.points.mean(axis=0) + offset)[None])[0]
                _shine(image, look, centre, scale, depth, braking)


def _placed(view: View, y: float, around: Snapshot) -> Iterator[tuple[int, Points]]:
    """Index and position before the camera of the vehicles ahead, from far to near."""
    lengths = np.array([kind.length for kind in VEHICLE_TYPES])[around.kind]
    rear = around.x - lengths - view.s
    order = np.argsort(-rear, kind="stable")
    order = order[(rear[order] < FARTHEST_M) & (rear[order] + lengths[order] > NEAR_M + 0.4)][-_MOST_VEHICLES:]
    for index in order.tolist():
        yield index, np.array((y - around.y[index], 0.0, rear[index]))


def _faces(shape: Body, view: View, offset: Points) -> list[Face]:
    """The visible faces, nearest last: the rear if the vehicle is ahead, and a flank if the camera looks past it."""
    ahead = max(float(offset[2]), NEAR_M)
    middle, further = view.bend(ahead), view.bend(ahead + 5.0)
    # Where the extended line of the vehicle's side passes the camera.
    passing = float(offset[0]) + middle - (further - middle) / 5.0 * ahead
    faces: list[Face] = ["ground"]
    if passing - shape.width / 2 > 0:
        faces.append("left")
    elif passing + shape.width / 2 < 0:
        faces.append("right")
    if offset[2] > NEAR_M:
        faces.append("rear")
    return faces


def _outline(
    ids: Image, view: View, shape: Body, offset: Points, number: int
) -> tuple[tuple[int, int, int, int], int] | None:
    """Mark the vehicle's pixels in `ids` (sides `number`, rear `number` + 1); returns their clipped box and count."""
    height, width = ids.shape
    faces = _faces(shape, view, offset)[1:]
    polygons = view.polygons([shape.outlines[face] + offset for face in faces]) if faces else []
    for face, points in zip(faces, polygons, strict=True):
        if len(points):
            cv2.fillPoly(ids, [fixed(points)], number + (face == "rear"), cv2.LINE_8, SUBPIXEL_BITS)
    every = np.concatenate([np.empty((0, 2)), *polygons])
    if not len(every):
        return None
    x1, y1 = np.clip(np.floor(every.min(axis=0)), 0, (width, height)).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(every.max(axis=0)) + 1, 0, (width, height)).astype(int).tolist()
    if x2 - x1 < 2 or y2 - y1 < 2:
        return None
    window = ids[y1:y2, x1:x2]
    return (x1, y1, x2, y2), int(np.count_nonzero((window == number) | (window == number + 1)))


def _extent(mask: NDArray[np.bool_], left: int, top: int) -> tuple[int, int, int, int] | None:
    """The box of a mask whose corner lies at `left`, `top`; None if it is empty."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (left + x, top + y, left + x + width, top + y + height) if width else None


def _palette(kind: int, number: int, lamps: int) -> dict[str, NDArray[np.float64]]:
    """Colours by material of vehicle `number`, the same in every frame; `lamps`: 0 off, 1 tail lamps, 2 brake lamps."""
    pick = (number * 2654435761 + 12345) % 2**32
    heavy = VEHICLE_TYPES[kind].name in ("truck", "lorry", "bus", "van")
    paints = _TRUCK_PAINT if heavy and pick % 5 else _PAINT
    base, other = paints[(pick >> 8) % len(paints)], _PAINT[(pick >> 16) % len(_PAINT)]
    own = {"paint": base, "paint_light": base * 1.12 + 14, "paint_dark": base * 0.62}
    fixed_colours = _MATERIAL | {name: states[lamps] for name, states in _LAMPS.items()}
    others = {name: np.array(colour, float) for name, colour in fixed_colours.items()}
    return own | others | {"cab": other, "stripe": other * 0.5 + 60}


def _shine(image: Image, look: Look, centre: Points, scale: float, depth: float, braking: bool) -> None:
    """Draw the halo of a lit lamp: large in the dark, fog and rain, small by day."""
    radius = round(scale * (0.55 if look.lamps_on else 0.3))
    if radius < 2 or radius > 400:
        return
    strength = (1.0 if braking else 0.45) * (1.0 if look.light != "day" else 0.5)
    halo = cv2.resize(_HALO, (2 * radius + 1, 2 * radius + 1)) * strength * float(np.exp(-depth / look.visibility_m))
    left, top = round(centre[0]) - radius, round(centre[1]) - radius
    window = image[max(top, 0) : max(top + 2 * radius + 1, 0), max(left, 0) : max(left + 2 * radius + 1, 0)]
    if window.size:
        halo = halo[max(-top, 0) :, max(-left, 0) :][: window.shape[0], : window.shape[1]]
        cv2.add(window, halo, dst=window, dtype=cv2.CV_8U)
