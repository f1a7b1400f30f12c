"""Shapes of the vehicles as coloured polygons: metres right of the middle, above the road, ahead of the rear end."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from drive_assets.simulation.camera import Points
from drive_assets.simulation.demand import VEHICLE_TYPES, VehicleType

Face = Literal["ground", "left", "right", "rear"]
Pairs = list[tuple[float, float]]


@dataclass(frozen=True)
class Part:
    """One polygon: its material, the face of the vehicle that it lies on, and the size below which it is left out."""

    points: Points
    material: str
    face: Face
    smallest: float = 0.0


@dataclass(frozen=True)
class Body:
    """A vehicle's parts from the farthest to the nearest, and the outlines of its faces for the true boxes."""

    width: float
    parts: tuple[Part, ...]
    outlines: dict[Face, Points]


@cache
def body(kind: int) -> Body:
    """The body of vehicle type number `kind`."""
    shape = VEHICLE_TYPES[kind]
    builders: dict[str, Callable[[VehicleType], Body]] = {
        "van": _van,
        "truck": _truck,
        "lorry": _truck,
        "bus": _bus,
    }
    return builders.get(shape.name, _car)(shape)


def _rear(pairs: Pairs, material: str, z: float = 0.0, smallest: float = 0.0) -> Part:
    return Part(np.array([(x, y, z) for x, y in pairs]), material, "rear", smallest)


def _box(x0: float, y0: float, x1: float, y1: float) -> Pairs:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _both(
    x0: float, y0: float, x1: float, y1: float, material: str, z: float = 0.0, smallest: float = 0.0
) -> list[Part]:
    """The same rectangle right and left of the middle."""
    return [_rear(_box(sign * x0, y0, sign * x1, y1), material, z, smallest) for sign in (1, -1)]


def _flank(
    side: int, pairs: Pairs, half: float, material: str, smallest: float = 0.0, lean: Points | None = None
) -> Part:
    """A polygon of (ahead, above) on one side (+1 right, -1 left); `lean` moves its points inwards."""
    inwards = np.zeros(len(pairs)) if lean is None else lean
    points = np.array([(side * (half - move), y, z) for (z, y), move in zip(pairs, inwards, strict=True)])
    return Part(points, material, "right" if side > 0 else "left", smallest)


def _circle(z: float, y: float, radius: float) -> Pairs:
    angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    return list(zip((z + radius * np.cos(angles)).tolist(), (y + radius * np.sin(angles)).tolist(), strict=True))


def _wheel(side: int, half: float, z: float, radius: float) -> list[Part]:
    return [
        _flank(side, _circle(z, radius + 0.03, radius * 1.16), half, "black"),
        _flank(side, _circle(z, radius, radius), half, "tyre"),
        _flank(side, _circle(z, radius, radius * 0.62), half, "rim", 12),
        _flank(side, _circle(z, radius, radius * 0.2), half, "tyre", 30),
    ]


def _mirror(side: int, inner: float, y: float, z: float, reach: float, tall: float, material: str) -> Part:
    """A wing mirror, seen from behind beside the body."""
    return _rear(_box(side * inner, y, side * (inner + reach), y + tall), material, z, 12)


def _rounded(half: float, low: float, roof: float) -> Pairs:
    """A high rear with bevelled upper corners."""
    return [*_box(-half, low, half, roof - 0.18)[:3], (half - 0.14, roof), (0.14 - half, roof), (-half, roof - 0.18)]


def _shadow(shape: VehicleType) -> list[Part]:
    def patch(margin: float) -> Points:
        half = shape.width / 2 + margin
        return np.array([(-half, 0, -margin), (half, 0, -margin), (half, 0, shape.length), (-half, 0, shape.length)])

    return [Part(patch(0.28), "shade", "ground"), Part(patch(0.02), "shadow", "ground")]


def _plate(y: float) -> list[Part]:
    return [
        _rear(_box(-0.27, y - 0.065, 0.27, y + 0.065), "black", smallest=14),
        _rear(_box(-0.26, y - 0.055, 0.26, y + 0.055), "plate", smallest=9),
        _rear(_box(-0.26, y - 0.055, -0.215, y + 0.055), "plate_blue", smallest=40),
        *(
            _rear(_box(x, y - 0.032, x + 0.032, y + 0.032), "black", smallest=50)
            for x in (-0.17, -0.12, -0.03, 0.02, 0.1, 0.15)
        ),
    ]


def _car(shape: VehicleType) -> Body:
    half, length, roof = shape.width / 2, shape.length, shape.height
    tall = shape.name == "suv"
    belt, floor, inset = (1.06, 0.27, 0.15) if tall else (0.93, 0.21, 0.17)
    sedan = shape.name == "sedan"
    bottom_z, top_z = (0.5, 1.15) if sedan else (0.04, 0.34 if shape.name != "estate" else 0.45)
    parts = _shadow(shape)
    glass_low, glass_high = belt + 0.03, roof - 0.09
    for side in (-1, 1):
        parts += [
            _flank(
                side,
                [(0, floor), (length, floor), (length, belt - 0.3), (length - 1.1, belt - 0.02), (0, belt)],
                half,
                "paint",
            ),
            _flank(
                side,
                [(0, belt - 0.16), (length - 1, belt - 0.16), (length - 1.1, belt - 0.02), (0, belt)],
                half,
                "paint_light",
            ),
            _flank(side, [(0, floor), (length, floor), (length, floor + 0.17), (0, floor + 0.17)], half, "paint_dark"),
        ]
        for z in (0.18 * length, 0.81 * length):
            parts += _wheel(side, half, z, 0.36 if tall else 0.32)
        lean = np.array([0, 0, inset, inset])
        cabin = [(bottom_z, belt - 0.01), (length - 1.15, belt - 0.01), (length - 2.0, roof), (top_z, roof)]
        pillar = 0.46 * length
        back = [(bottom_z + 0.35, glass_low), (pillar - 0.05, glass_low)]
        back += [(pillar - 0.05, glass_high), (top_z + 0.25, glass_high)]
        front = [(pillar + 0.05, glass_low), (length - 1.45, glass_low)]
        front += [(length - 2.1, glass_high), (pillar + 0.05, glass_high)]
        parts += [
            _flank(side, cabin, half, "paint", lean=lean),
            _flank(side, back, half, "glass_side", 10, lean * 0.93),
            _flank(side, front, half, "glass_side", 10, lean * 0.93),
            _flank(side, _box(pillar, floor + 0.2, pillar + 0.02, belt), half, "paint_dark", 45),
            _flank(side, _box(0.02, belt - 0.25, 0.3, belt - 0.07), half, "lamp", 14),
            _mirror(side, half + 0.02, belt, length - 1.75, 0.18, 0.15, "paint_dark"),
        ]
    parts += _both(half - 0.28, 0.0, half - 0.04, 0.4, "tyre", 0.55)
    slope_x, roof_x = half - 0.05, half - inset

    def on_slope(pairs: Pairs, material: str, smallest: float = 0.0) -> Part:
        points = [(x, y, bottom_z + (y - belt) / (roof - belt) * (top_z - bottom_z)) for x, y in pairs]
        return Part(np.array(points), material, "rear", smallest)

    upper = [(-slope_x, belt), (slope_x, belt), (roof_x, roof - 0.07), (roof_x - 0.12, roof), (0.12 - roof_x, roof)]
    upper.append((-roof_x, roof - 0.07))
    pane = [(roof_x - 0.1, glass_high), (0.1 - roof_x, glass_high)]
    parts += [
        on_slope(upper, "paint"),
        on_slope([(0.13 - slope_x, glass_low + 0.02), (slope_x - 0.13, glass_low + 0.02), *pane], "glass"),
        on_slope([(0.17 - slope_x, belt + 0.28), (slope_x - 0.17, belt + 0.28), *pane], "glass_sky", 16),
        *(on_slope(_box(x - 0.1, belt + 0.06, x + 0.1, belt + 0.3), "seat", 40) for x in (-0.36, 0.36)),
        on_slope(_box(-0.2, roof - 0.085, 0.2, roof - 0.045), "lamp_high", 9),
    ]
    if sedan:
        boot = [(-half, belt, 0), (half, belt, 0), (slope_x, belt, bottom_z), (-slope_x, belt, bottom_z)]
        parts.append(Part(np.array(boot), "paint_light", "rear"))
    corner, shoulder = (half, floor + 0.14), (half, belt - 0.1)
    lower = [(0.06 - half, floor), (half - 0.06, floor), corner, shoulder, (half - 0.05, belt), (0.05 - half, belt)]
    lower += [(-half, belt - 0.1), (-half, floor + 0.14)]
    bumper = [(-half, floor + 0.34), (half, floor + 0.34), corner, lower[1], lower[0], (-half, floor + 0.14)]
    lamp_low, lamp_high = belt - 0.26, belt - 0.05
    parts += [
        _rear(lower, "paint"),
        _rear([(0.03 - half, belt - 0.1), (half - 0.03, belt - 0.1), lower[4], lower[5]], "paint_light", smallest=10),
        _rear(bumper, "paint_dark", smallest=10),
        _rear(_box(-half + 0.12, floor - 0.01, half - 0.12, floor + 0.1), "black", smallest=6),
        _rear(_box(-half + 0.3, floor + 0.335, half - 0.3, floor + 0.35), "black", smallest=45),
        *_both(half - 0.01, lamp_low, half - 0.40, lamp_high, "lamp"),
        *_both(half - 0.05, lamp_low + 0.04, half - 0.28, lamp_high - 0.04, "lamp_core", smallest=8),
        *_both(half - 0.29, lamp_low + 0.03, half - 0.39, lamp_high - 0.03, "reverse", smallest=35),
        *_both(half - 0.1, floor + 0.16, half - 0.28, floor + 0.2, "reflector", smallest=30),
        *_plate(belt - (0.22 if sedan else 0.33)),
        _rear(_box(-0.06, belt - 0.16, 0.06, belt - 0.07), "rim", smallest=40),
    ]
    ground = _rear([(-half, floor - 0.2), (half, floor - 0.2)], "").points
    outline = np.concatenate([ground, on_slope([*upper[1:], upper[0]], "").points])
    flank_z = [0, length, length, length - 2.0, top_z]
    return Body(shape.width, tuple(parts), _outlines(shape, outline, flank_z, [0, 0, belt - 0.3, roof, roof], inset))


def _outlines(shape: VehicleType, rear: Points, z: list[float], y: list[float], inset: float) -> dict[Face, Points]:
    half = shape.width / 2
    lean = np.where(np.array(y) >= shape.height - 0.01, inset, 0)
    return {
        "rear": rear,
        "left": np.stack([-half + lean, y, z], axis=1),
        "right": np.stack([half - lean, y, z], axis=1),
    }


def _van(shape: VehicleType) -> Body:
    half, length, roof = shape.width / 2, shape.length, shape.height
    parts = _shadow(shape)
    profile = [
        (0, 0.32),
        (length, 0.32),
        (length, 1.0),
        (length - 0.9, 1.25),
        (length - 1.6, roof - 0.1),
        (length - 1.8, roof),
        (0, roof),
    ]
    for side in (-1, 1):
        parts += [
            _flank(side, profile, half, "paint"),
            _flank(side, _box(0, 0.32, length - 0.1, 0.6), half, "paint_dark"),
            _flank(
                side,
                [(length - 2.6, 1.3), (length - 1.05, 1.3), (length - 1.65, roof - 0.35), (length - 2.6, roof - 0.35)],
                half,
                "glass_side",
                10,
            ),
            _flank(side, _box(length * 0.33, 0.6, length * 0.335, roof - 0.2), half, "paint_dark", 40),
            *_wheel(side, half, 0.95, 0.35),
            *_wheel(side, half, length - 0.95, 0.35),
            _mirror(side, half, 1.3, length - 1.2, 0.22, 0.35, "black"),
        ]
    parts += [
        *_both(half - 0.3, 0.0, half - 0.06, 0.5, "tyre", 0.6),
        _rear(_rounded(half, 0.35, roof), "paint"),
        _rear(_box(-half + 0.05, roof - 0.16, half - 0.05, roof - 0.05), "paint_light", smallest=10),
        _rear(_box(-half, 0.35, half, 0.62), "black", smallest=6),
        *_both(0.07, 1.38, half - 0.2, roof - 0.4, "glass"),
        *_both(0.09, 1.65, half - 0.22, roof - 0.42, "glass_sky", smallest=16),
        _rear(_box(-0.012, 0.62, 0.012, roof - 0.15), "black", smallest=20),
        *_both(half - 0.01, 0.78, half - 0.16, 1.3, "lamp"),
        *_both(half - 0.03, 0.95, half - 0.14, 1.22, "lamp_core", smallest=8),
        _rear(_box(-0.22, roof - 0.1, 0.22, roof - 0.06), "lamp_high", smallest=9),
        *_plate(0.86),
    ]
    rear = _rear(_rounded(half, 0.0, roof), "").points
    return Body(
        shape.width,
        tuple(parts),
        _outlines(shape, rear, [0, length, length, length - 1.8, 0], [0, 0, 1.0, roof, roof], 0),
    )


def _truck(shape: VehicleType) -> Body:
    half, length, roof = shape.width / 2, shape.length, shape.height
    long = length > 12
    cab = length - 2.3
    box_end = cab - (1.1 if long else 0.3)
    axles = (2.2, 3.5, 4.8, cab - 1.0, length - 1.2) if long else (1.9, length - 1.2)
    parts = _shadow(shape)
    for side in (-1, 1):
        parts += [
            _flank(side, _box(0.4, 0.45, length - 0.5, 1.0), half - 0.1, "black"),
            _flank(side, [(cab, 0.4), (length, 0.4), (length, 2.2), (length - 0.5, 3.2), (cab, 3.4)], half, "cab"),
            _flank(
                side,
                [(cab + 0.7, 1.7), (length - 0.1, 1.7), (length - 0.5, 2.7), (cab + 0.7, 2.7)],
                half,
                "glass_side",
                8,
            ),
            _flank(side, _box(0, 1.05, box_end, roof), half, "paint"),
            _flank(side, _box(0, 1.05, box_end, 1.16), half, "paint_dark"),
            _flank(side, _box(0, roof - 0.1, box_end, roof), half, "paint_light"),
            _flank(side, _box(box_end * 0.3, roof - 1.7, box_end * 0.75, roof - 0.8), half, "stripe", 6),
            *(
                _flank(side, _box(z, 1.05, z + 0.03, roof), half, "paint_dark", 25)
                for z in np.arange(1.5, box_end, 1.5)
            ),
        ]
        if long:
            parts.append(_flank(side, _box(5.8, 0.5, cab - 1.8, 1.0), half, "rim", 8))
        for z in axles:
            parts += _wheel(side, half, z, 0.48)
    parts += [
        *_both(half - 0.62, 0.0, half - 0.08, 0.95, "tyre", 0.9),
        _rear(_box(-half + 0.25, 0.75, half - 0.25, 1.05), "black", 0.4),
        _rear(_box(-half, 1.02, half, roof), "paint"),
        _rear(_box(-half, roof - 0.12, half, roof), "paint_light", smallest=6),
        *_both(half, 1.02, half - 0.06, roof, "paint_dark", smallest=8),
        _rear(_box(-half, 1.02, half, 1.14), "paint_dark"),
        _rear(_box(-0.02, 1.1, 0.02, roof - 0.1), "black", smallest=12),
        *(_rear(_box(x - 0.018, 1.1, x + 0.018, roof - 0.1), "rim", smallest=22) for x in (-0.75, -0.32, 0.32, 0.75)),
        *(_rear(_box(x - 0.1, 1.5, x + 0.1, 1.62), "paint_dark", smallest=30) for x in (-0.53, 0.53)),
        *_both(half - 0.1, 1.2, 0.25, 1.34, "stripe", smallest=10),
        _rear(_box(-half + 0.05, 0.5, half - 0.05, 0.66), "black"),
        _rear(_box(-half + 0.02, 0.74, half - 0.02, 0.98), "black"),
        *_both(half - 0.06, 0.78, half - 0.62, 0.96, "lamp"),
        *_both(half - 0.1, 0.81, half - 0.42, 0.93, "lamp_core", smallest=8),
        *_both(half - 0.05, 0.53, half - 0.5, 0.63, "reflector", smallest=14),
        *_plate(0.86),
    ]
    rear = _rear(_box(-half, 0.0, half, roof), "").points
    return Body(
        shape.width, tuple(parts), _outlines(shape, rear, [0, length, length, cab, 0], [0, 0, 2.2, 3.4, roof], 0)
    )


def _bus(shape: VehicleType) -> Body:
    half, length, roof = shape.width / 2, shape.length, shape.height
    parts = _shadow(shape)
    for side in (-1, 1):
        parts += [
            _flank(side, _box(0, 0.35, length, roof), half, "paint"),
            _flank(side, _box(0, 0.35, length, 0.7), half, "paint_dark"),
            _flank(side, _box(0.4, 1.75, length - 0.2, roof - 0.45), half, "glass_side"),
            *(
                _flank(side, _box(z, 1.75, z + 0.1, roof - 0.45), half, "black", 14)
                for z in np.arange(1.8, length - 1, 1.6)
            ),
            _flank(side, _box(0, 1.1, length, 1.3), half, "stripe", 6),
            *_wheel(side, half, 3.2, 0.48),
            *_wheel(side, half, length - 2.6, 0.48),
            _mirror(side, half, 1.9, length - 0.2, 0.28, 0.6, "black"),
        ]
    parts += [
        *_both(half - 0.6, 0.0, half - 0.08, 0.6, "tyre", 1.0),
        _rear(_rounded(half, 0.38, roof), "paint"),
        _rear(_box(-half, 0.38, half, 0.75), "paint_dark"),
        _rear(_box(-half + 0.18, 2.0, half - 0.18, roof - 0.35), "glass"),
        _rear(_box(-half + 0.24, 2.5, half - 0.24, roof - 0.38), "glass_sky", smallest=12),
        _rear(_box(-half + 0.4, 1.0, half - 0.4, 1.6), "paint_dark", smallest=10),
        *(_rear(_box(-half + 0.5, y, half - 0.5, y + 0.03), "black", smallest=30) for y in (1.1, 1.25, 1.4, 1.52)),
        *_both(half - 0.05, 0.85, half - 0.3, 1.5, "lamp"),
        *_both(half - 0.09, 1.0, half - 0.26, 1.3, "lamp_core", smallest=8),
        _rear(_box(-0.3, roof - 0.2, 0.3, roof - 0.14), "lamp_high", smallest=9),
        *_plate(0.65),
    ]
    rear = _rear(_rounded(half, 0.0, roof), "").points
    return Body(
        shape.width, tuple(parts), _outlines(shape, rear, [0, length, length, length, 0], [0, 0, 0.4, roof, roof], 0)
    )
