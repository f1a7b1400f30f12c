"""Draws the vehicles from far to near, and measures what remains visible of each."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.bodies import Body, Face, Part, body
from drive_assets.simulation.camera import NEAR_M, Points, View
from drive_assets.simulation.demand import VEHICLE_TYPES
from drive_assets.simulation.look import Colour, Look
from drive_assets.simulation.paint import SUBPIXEL_BITS, Image, fixed
from drive_assets.simulation.scenery import FARTHEST_M
from drive_assets.simulation.traffic import Snapshot

# The index picture has one byte per pixel and two numbers per vehicle.
_MOST_VEHICLES = 120
_PAINT = np.array(
    [(28, 26, 26), (232, 232, 230), (120, 118, 116), (180, 180, 178), (110, 58, 28), (34, 30, 150),
     (70, 64, 60), (44, 66, 36), (90, 110, 132), (205, 205, 208), (140, 90, 40), (60, 50, 48)], float
)  # fmt: skip
_TRUCK_PAINT = np.array(
    [(225, 228, 228), (70, 60, 165), (150, 90, 40), (60, 130, 190), (110, 140, 60), (190, 190, 186)], float
)
_MATERIAL: dict[str, tuple[int, int, int]] = {
    "black": (24, 24, 24),
    "tyre": (32, 31, 30),
    "rim": (150, 150, 148),
    "glass": (52, 48, 44),
    "glass_side": (62, 58, 54),
    "glass_sky": (118, 108, 98),
    "seat": (30, 28, 27),
    "plate": (225, 228, 228),
    "plate_blue": (150, 70, 20),
    "reverse": (190, 190, 195),
    "reflector": (40, 36, 150),
    "shade": (62, 60, 58),
    "shadow": (36, 35, 34),
}
_LAMPS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    # off, tail lamp, brake lamp
    "lamp": ((34, 28, 118), (44, 34, 190), (60, 46, 255)),
    "lamp_core": ((52, 46, 150), (80, 66, 225), (190, 205, 255)),
    "lamp_high": ((30, 26, 70), (30, 26, 70), (110, 100, 255)),
}


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


def draw_vehicles(image: Image, view: View, look: Look, y: float, around: Snapshot) -> list[Seen]:
    """Draw the vehicles `around` the ego at lateral position `y`; returns what is visible of each, nearest first."""

    def paint(index: int, offset: Points) -> None:
        kind, number = int(around.kind[index]), int(around.number[index])
        _paint(image, view, look, body(kind), offset, _colours(kind, number), bool(around.braking[index]))

    return see_vehicles(view, y, around, paint)


def see_vehicles(
    view: View, y: float, around: Snapshot, paint: Callable[[int, Points], None] = lambda index, offset: None
) -> list[Seen]:
    """What the camera sees of the vehicles `around` the ego at lateral position `y`, nearest first.

    `paint` is called for each visible vehicle, from far to near, with its index and its position before the camera.
    """
    ids = np.zeros((view.camera.height, view.camera.width), np.uint8)
    lengths = np.array([kind.length for kind in VEHICLE_TYPES])[around.kind] if len(around.kind) else np.empty(0)
    rear = around.x - lengths - view.s
    order = np.argsort(-rear, kind="stable")
    order = order[(rear[order] < FARTHEST_M) & (rear[order] + lengths[order] > NEAR_M + 0.4)][-_MOST_VEHICLES:]
    drawn = []
    for place, index in enumerate(order.tolist()):
        offset = np.array((y - around.y[index], 0.0, rear[index]))
        whole, area = _outline(ids, view, body(int(around.kind[index])), offset, 2 * place + 1)
        if whole is None:
            continue
        paint(index, offset)
        drawn.append((place, int(around.number[index]), int(around.kind[index]), whole, area))
    return [seen for item in reversed(drawn) if (seen := _measure(ids, *item)) is not None]


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
) -> tuple[tuple[int, int, int, int] | None, int]:
    """Mark the vehicle's pixels in `ids` (sides `number`, rear `number` + 1); returns their clipped box and count."""
    height, width = ids.shape
    corners = []
    for face in _faces(shape, view, offset)[1:]:
        points = view.polygon(shape.outlines[face] + offset)
        if len(points):
            corners.append(points)
            cv2.fillPoly(ids, [fixed(points)], number + (face == "rear"), cv2.LINE_8, SUBPIXEL_BITS)
    if not corners:
        return None, 0
    every = np.concatenate(corners)
    x1, y1 = np.clip(np.floor(every.min(axis=0)), 0, (width, height)).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(every.max(axis=0)) + 1, 0, (width, height)).astype(int).tolist()
    if x2 - x1 < 2 or y2 - y1 < 2:
        return None, 0
    window = ids[y1:y2, x1:x2]
    return (x1, y1, x2, y2), int(np.count_nonzero((window == number) | (window == number + 1)))


def _paint(
    image: Image, view: View, look: Look, shape: Body, offset: Points, paint: dict[str, Colour], braking: bool
) -> None:
    depth = max(float(offset[2]), 1.0)
    scale = view.camera.focal / depth
    faces = _faces(shape, view, offset)
    parts = [part for part in shape.parts if part.face in faces and scale * shape.width >= part.smallest]
    points = np.concatenate([part.points for part in parts]) + offset
    clipped = bool(points[:, 2].min() < NEAR_M)
    pixels = None if clipped else fixed(view.project(points))
    start = 0
    for part, tone in zip(parts, _tones(look, parts, depth, paint, braking), strict=True):
        end = start + len(part.points)
        polygon = fixed(view.polygon(points[start:end])) if pixels is None else pixels[start:end]
        start = end
        if len(polygon) >= 3:
            cv2.fillPoly(image, [polygon], tone, cv2.LINE_AA, SUBPIXEL_BITS)
    if "rear" in faces and (braking or look.lamps_on):
        _shine(image, view, look, shape, offset, depth, braking)


def _tones(look: Look, parts: list[Part], depth: float, paint: dict[str, Colour], braking: bool) -> list[list[float]]:
    """Colours of the parts at `depth` metres; lit lamps emit their own light."""
    state = 2 if braking else 1 if look.lamps_on else 0
    base = np.array(
        [
            _LAMPS[part.material][state]
            if part.material in _LAMPS
            else paint.get(part.material, _MATERIAL.get(part.material))
            for part in parts
        ],
        float,
    )
    shade = np.array([look.faces[part.face] for part in parts])[:, None]
    tones = look.lit(np.minimum(base * shade, 255), depth)
    if state:
        lamps = np.array([part.material in _LAMPS for part in parts])
        tones[lamps] = look.glowing(base[lamps], depth)
    return tones.tolist()


def _shine(image: Image, view: View, look: Look, shape: Body, offset: Points, depth: float, braking: bool) -> None:
    """Draw the halo of lit lamps: large in the dark, fog and rain, small by day."""
    strength = (1.0 if braking else 0.45) * (1.0 if look.light != "day" else 0.5)
    strength *= float(np.exp(-depth / look.visibility_m))
    radius = round(view.camera.focal / depth * (0.55 if look.lamps_on else 0.3))
    if radius < 2 or radius > 400:
        return
    patch = cv2.resize(_GLOW, (2 * radius + 1, 2 * radius + 1)) * strength
    for part in shape.parts:
        if part.material == "lamp" and part.face == "rear":
            centre = view.project((part.points.mean(axis=0) + offset)[None])[0]
            _add(image, patch, round(centre[0]), round(centre[1]), radius)


def _colours(kind: int, number: int) -> dict[str, Colour]:
    """Paint of vehicle `number`, the same in every frame."""
    pick = (number * 2654435761 + 12345) % 2**32
    heavy = VEHICLE_TYPES[kind].name in ("truck", "lorry", "bus", "van")
    palette = _TRUCK_PAINT if heavy and pick % 5 else _PAINT
    base = palette[(pick >> 8) % len(palette)]
    other = _PAINT[(pick >> 16) % len(_PAINT)]
    return {
        "paint": base,
        "paint_light": base * 1.12 + 14,
        "paint_dark": base * 0.62,
        "cab": other,
        "stripe": other * 0.5 + 60,
    }


def _measure(
    ids: Image, place: int, number: int, kind: int, whole: tuple[int, int, int, int], area: int
) -> Seen | None:
    x1, y1, x2, y2 = whole
    window = ids[y1:y2, x1:x2]
    rear = window == 2 * place + 2
    every = rear | (window == 2 * place + 1)
    count = int(np.count_nonzero(every))
    if count == 0:
        return None
    box = _extent(every, x1, y1)
    return Seen(number, kind, box, _extent(rear, x1, y1) if rear.any() else None, count / max(area, 1))


def _extent(mask: NDArray[np.bool_], left: int, top: int) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]) + left, int(rows[0]) + top, int(columns[-1]) + left + 1, int(rows[-1]) + top + 1


def _glow() -> NDArray[np.float32]:
    axis = np.linspace(-1, 1, 65, dtype=np.float32)
    squared = axis[:, None] ** 2 + axis[None] ** 2
    falling = np.clip(np.exp(-5 * squared) - np.exp(-5.0), 0, 1)
    halo: NDArray[np.float32] = (falling[..., None] * np.array((30, 26, 170), np.float32)).astype(np.float32)
    return halo


def _add(image: Image, patch: NDArray[np.float32], x: int, y: int, radius: int) -> None:
    height, width = image.shape[:2]
    x1, y1, x2, y2 = max(x - radius, 0), max(y - radius, 0), min(x + radius + 1, width), min(y + radius + 1, height)
    if x1 < x2 and y1 < y2:
        window = image[y1:y2, x1:x2]
        piece = patch[y1 - y + radius : y2 - y + radius, x1 - x + radius : x2 - x + radius]
        cv2.add(window, piece, dst=window, dtype=cv2.CV_8U)


_GLOW = _glow()
