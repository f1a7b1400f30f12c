"""Shapes of the vehicles as coloured polygons: metres right of the middle, above the road, ahead of the rear end."""

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
    """One polygon: its material, the face of the vehicle that it is on, and the vehicle's width below which to skip it.

    `smallest` is in px.
    """

    points: Points
    material: str
    face: Face
    smallest: float = 0.0


class Body:
    """A vehicle's parts from the farthest to the nearest, and the outlines of its faces for the true boxes."""

    outlines: dict[Face, Points]

    def __init__(self, shape: VehicleType) -> None:
        self.width, self.half, self.length, self.roof = shape.width, shape.width / 2, shape.length, shape.height
        self.parts: list[Part] = []
        for margin, material in ((0.28, "shade"), (0.02, "shadow")):
            reach, length = self.half + margin, self.length
            points = [(-reach, 0, -margin), (reach, 0, -margin), (reach, 0, length), (-reach, 0, length)]
            self.parts.append(Part(np.array(points), material, "ground"))

    def flanks(self, pairs: Pairs, material: str, smallest: float = 0.0, lean: float = 0.0) -> None:
        """A polygon of (ahead, above) on both flanks. The points from the third on lie `lean` inwards of the others."""
        x = np.where(np.arange(len(pairs)) >= 2, self.half - lean, self.half)
        z, y = np.array(pairs).T
        self.parts.append(Part(np.stack([-x, y, z], axis=1), material, "left", smallest))
        self.parts.append(Part(np.stack([x, y, z], axis=1), material, "right", smallest))

    def wheels(self, radius: float, *places: float) -> None:
        for z in places:
            self.flanks(_circle(z, radius + 0.03, radius * 1.16), "black")
            self.flanks(_circle(z, radius, radius), "tyre")
            self.flanks(_circle(z, radius, radius * 0.62), "rim", 12)

    def rear(self, pairs: Pairs, material: str, smallest: float = 0.0, z: float = 0.0) -> None:
        """A polygon of (right, above) on the rear, or `z` ahead of it."""
        self.parts.append(Part(_flat(pairs, z), material, "rear", smallest))

    def across(self, reach: float, low: float, high: float, material: str, smallest: float = 0.0) -> None:
        """A rectangle on the rear that is centred on the middle."""
        self.rear(_box(-reach, low, reach, high), material, smallest)

    def pair(
        self, x0: float, y0: float, x1: float, y1: float, material: str, smallest: float = 0.0, z: float = 0.0
    ) -> None:
        """The same rectangle right and left of the middle."""
        for sign in (1, -1):
            self.rear(_box(sign * x0, y0, sign * x1, y1), material, smallest, z)

    def plate(self, y: float) -> None:
        self.across(0.27, y - 0.065, y + 0.065, "black", 14)
        self.across(0.26, y - 0.055, y + 0.055, "plate", 9)

    def outline(self, rear: Points, flank: Pairs, inset: float = 0.0) -> None:
        """Set the outlines of the rear and of a flank (ahead, above) whose roof line lies `inset` inwards."""
        z, y = np.array(flank).T
        x = self.half - np.where(y >= self.roof - 0.01, inset, 0)
        self.outlines = {"rear": rear, "left": np.stack([-x, y, z], axis=1), "right": np.stack([x, y, z], axis=1)}


@cache
def body(kind: int) -> Body:
    """The body of vehicle type number `kind`."""
    shape = VEHICLE_TYPES[kind]
    built = Body(shape)
    {"van": _van, "truck": _truck, "lorry": _truck, "bus": _bus}.get(shape.name, _car)(built, shape.name)
    return built


def _box(x0: float, y0: float, x1: float, y1: float) -> Pairs:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _circle(z: float, y: float, radius: float) -> Pairs:
    angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    return list(zip((z + radius * np.cos(angles)).tolist(), (y + radius * np.sin(angles)).tolist(), strict=True))


def _rounded(half: float, low: float, roof: float) -> Pairs:
    """A high rear with bevelled upper corners."""
    return [*_box(-half, low, half, roof - 0.18)[:3], (half - 0.14, roof), (0.14 - half, roof), (-half, roof - 0.18)]


def _flat(pairs: Pairs, z: float = 0.0) -> Points:
    return np.array([(x, y, z) for x, y in pairs])


def _car(build: Body, name: str) -> None:
    half, length, roof = build.half, build.length, build.roof
    tall, sedan = name == "suv", name == "sedan"
    belt, floor, inset = (1.06, 0.27, 0.15) if tall else (0.93, 0.21, 0.17)
    bottom_z, top_z = (0.5, 1.15) if sedan else (0.04, 0.34 if name != "estate" else 0.45)
    glass_low, glass_high = belt + 0.03, roof - 0.09

    side = [(0, floor), (length, floor), (length, belt - 0.3), (length - 1.1, belt - 0.02), (0, belt)]
    build.flanks(side, "paint")
    build.flanks(_box(0, floor, length, floor + 0.17), "paint_dark")
    build.wheels(0.36 if tall else 0.32, 0.18 * length, 0.81 * length)
    cabin = [(bottom_z, belt - 0.01), (length - 1.15, belt - 0.01), (length - 2.0, roof), (top_z, roof)]
    window = [(bottom_z + 0.35, glass_low), (length - 1.45, glass_low)]
    window += [(length - 2.1, glass_high), (top_z + 0.25, glass_high)]
    build.flanks(cabin, "paint", lean=inset)
    build.flanks(window, "glass_side", 10, inset * 0.93)
    build.pair(half + 0.02, belt, half + 0.2, belt + 0.15, "paint_dark", 12, z=length - 1.75)
    build.pair(half - 0.28, 0.0, half - 0.04, 0.4, "tyre", z=0.55)

    def slope(pairs: Pairs) -> Points:
        """Points on the sloping upper half of the rear."""
        return np.array([(x, y, bottom_z + (y - belt) / (roof - belt) * (top_z - bottom_z)) for x, y in pairs])

    def on_slope(pairs: Pairs, material: str, smallest: float = 0.0) -> None:
        build.parts.append(Part(slope(pairs), material, "rear", smallest))

    slope_x, roof_x = half - 0.05, half - inset
    upper = [(-slope_x, belt), (slope_x, belt), (roof_x, roof - 0.07), (roof_x - 0.12, roof), (0.12 - roof_x, roof)]
    upper.append((-roof_x, roof - 0.07))
    pane = [(roof_x - 0.1, glass_high), (0.1 - roof_x, glass_high)]
    on_slope(upper, "paint")
    on_slope([(0.13 - slope_x, glass_low + 0.02), (slope_x - 0.13, glass_low + 0.02), *pane], "glass")
    on_slope([(0.17 - slope_x, belt + 0.28), (slope_x - 0.17, belt + 0.28), *pane], "glass_sky", 16)
    on_slope(_box(-0.2, roof - 0.085, 0.2, roof - 0.045), "lamp_high", 9)
    if sedan:
        boot = [(-half, belt, 0), (half, belt, 0), (slope_x, belt, bottom_z), (-slope_x, belt, bottom_z)]
        build.parts.append(Part(np.array(boot), "paint_light", "rear"))

    corner = (half, floor + 0.14)
    lower = [(0.06 - half, floor), (half - 0.06, floor), corner, (half, belt - 0.1)]
    lower += [(half - 0.05, belt), (0.05 - half, belt), (-half, belt - 0.1), (-half, floor + 0.14)]
    bumper = [(-half, floor + 0.34), (half, floor + 0.34), corner, lower[1], lower[0], (-half, floor + 0.14)]
    lamp_low, lamp_high = belt - 0.26, belt - 0.05
    build.rear(lower, "paint")
    build.rear([(0.03 - half, belt - 0.1), (half - 0.03, belt - 0.1), lower[4], lower[5]], "paint_light", 10)
    build.rear(bumper, "paint_dark", 10)
    build.across(half - 0.12, floor - 0.01, floor + 0.1, "black", 6)
    build.pair(half - 0.01, lamp_low, half - 0.40, lamp_high, "lamp")
    build.pair(half - 0.05, lamp_low + 0.04, half - 0.28, lamp_high - 0.04, "lamp_core", 8)
    build.plate(belt - (0.22 if sedan else 0.33))
    outline = np.concatenate([_flat([(-half, floor - 0.2), (half, floor - 0.2)]), slope([*upper[1:], upper[0]])])
    flank = [(0, 0), (length, 0), (length, belt - 0.3), (length - 2.0, roof), (top_z, roof)]
    build.outline(outline, flank, inset)


def _van(build: Body, name: str) -> None:
    half, length, roof = build.half, build.length, build.roof
    profile = [(0, 0.32), (length, 0.32), (length, 1.0), (length - 0.9, 1.25)]
    profile += [(length - 1.6, roof - 0.1), (length - 1.8, roof), (0, roof)]
    window = [(length - 2.6, 1.3), (length - 1.05, 1.3), (length - 1.65, roof - 0.35), (length - 2.6, roof - 0.35)]
    build.flanks(profile, "paint")
    build.flanks(_box(0, 0.32, length - 0.1, 0.6), "paint_dark")
    build.flanks(window, "glass_side", 10)
    build.wheels(0.35, 0.95, length - 0.95)
    build.pair(half, 1.3, half + 0.22, 1.65, "black", 12, z=length - 1.2)
    build.pair(half - 0.3, 0.0, half - 0.06, 0.5, "tyre", z=0.6)
    build.rear(_rounded(half, 0.35, roof), "paint")
    build.across(half, 0.35, 0.62, "black", 6)
    build.pair(0.07, 1.38, half - 0.2, roof - 0.4, "glass")
    build.pair(0.09, 1.65, half - 0.22, roof - 0.42, "glass_sky", 16)
    build.across(0.012, 0.62, roof - 0.15, "black", 20)
    build.pair(half - 0.01, 0.78, half - 0.16, 1.3, "lamp")
    build.pair(half - 0.03, 0.95, half - 0.14, 1.22, "lamp_core", 8)
    build.across(0.22, roof - 0.1, roof - 0.06, "lamp_high", 9)
    build.plate(0.86)
    flank = [(0, 0), (length, 0), (length, 1.0), (length - 1.8, roof), (0, roof)]
    build.outline(_flat(_rounded(half, 0.0, roof)), flank)


def _truck(build: Body, name: str) -> None:
    half, length, roof = build.half, build.length, build.roof
    long = length > 12
    cab = length - 2.3
    box_end = cab - (1.1 if long else 0.3)
    axles = (2.2, 3.5, 4.8, cab - 1.0, length - 1.2) if long else (1.9, length - 1.2)
    window = [(cab + 0.7, 1.7), (length - 0.1, 1.7), (length - 0.5, 2.7), (cab + 0.7, 2.7)]
    build.flanks(_box(0.4, 0.45, length - 0.5, 1.0), "black")
    build.flanks([(cab, 0.4), (length, 0.4), (length, 2.2), (length - 0.5, 3.2), (cab, 3.4)], "cab")
    build.flanks(window, "glass_side", 8)
    build.flanks(_box(0, 1.05, box_end, roof), "paint")
    build.flanks(_box(0, 1.05, box_end, 1.16), "paint_dark")
    build.flanks(_box(box_end * 0.3, roof - 1.7, box_end * 0.75, roof - 0.8), "stripe", 6)
    for z in np.arange(1.5, box_end, 1.5):
        build.flanks(_box(z, 1.05, z + 0.03, roof), "paint_dark", 25)
    if long:
        build.flanks(_box(5.8, 0.5, cab - 1.8, 1.0), "rim", 8)
    build.wheels(0.48, *axles)
    build.pair(half - 0.62, 0.0, half - 0.08, 0.95, "tyre", z=0.9)
    build.rear(_box(-half + 0.25, 0.75, half - 0.25, 1.05), "black", z=0.4)
    build.across(half, 1.02, roof, "paint")
    build.across(half, roof - 0.12, roof, "paint_light", 6)
    build.pair(half, 1.02, half - 0.06, roof, "paint_dark", 8)
    build.across(half, 1.02, 1.14, "paint_dark")
    build.across(0.02, 1.1, roof - 0.1, "black", 12)
    for x in (0.32, 0.75):
        build.pair(x - 0.018, 1.1, x + 0.018, roof - 0.1, "rim", 22)
    build.pair(half - 0.1, 1.2, 0.25, 1.34, "stripe", 10)
    build.across(half - 0.05, 0.5, 0.66, "black")
    build.across(half - 0.02, 0.74, 0.98, "black")
    build.pair(half - 0.06, 0.78, half - 0.62, 0.96, "lamp")
    build.pair(half - 0.1, 0.81, half - 0.42, 0.93, "lamp_core", 8)
    build.plate(0.86)
    build.outline(_flat(_box(-half, 0.0, half, roof)), [(0, 0), (length, 0), (length, 2.2), (cab, 3.4), (0, roof)])


def _bus(build: Body, name: str) -> None:
    half, length, roof = build.half, build.length, build.roof
    build.flanks(_box(0, 0.35, length, roof), "paint")
    build.flanks(_box(0, 0.35, length, 0.7), "paint_dark")
    build.flanks(_box(0.4, 1.75, length - 0.2, roof - 0.45), "glass_side")
    for z in np.arange(1.8, length - 1, 1.6):
        build.flanks(_box(z, 1.75, z + 0.1, roof - 0.45), "black", 14)
    build.flanks(_box(0, 1.1, length, 1.3), "stripe", 6)
    build.wheels(0.48, 3.2, length - 2.6)
    build.pair(half, 1.9, half + 0.28, 2.5, "black", 12, z=length - 0.2)
    build.pair(half - 0.6, 0.0, half - 0.08, 0.6, "tyre", z=1.0)
    build.rear(_rounded(half, 0.38, roof), "paint")
    build.across(half, 0.38, 0.75, "paint_dark")
    build.across(half - 0.18, 2.0, roof - 0.35, "glass")
    build.across(half - 0.24, 2.5, roof - 0.38, "glass_sky", 12)
    build.across(half - 0.4, 1.0, 1.6, "paint_dark", 10)
    build.pair(half - 0.05, 0.85, half - 0.3, 1.5, "lamp")
    build.pair(half - 0.09, 1.0, half - 0.26, 1.3, "lamp_core", 8)
    build.across(0.3, roof - 0.2, roof - 0.14, "lamp_high", 9)
    build.plate(0.65)
    build.outline(_flat(_rounded(half, 0.0, roof)), [(0, 0), (length, 0), (length, 0.4), (length, roof), (0, roof)])
