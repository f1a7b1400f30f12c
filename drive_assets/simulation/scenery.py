"""Everything but the vehicles: sky and hills, ground, lane markings, guard rails and trees."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.simulation.camera import NEAR_M, Camera, Points, View, Waves
from drive_assets.simulation.look import Colour, Look
from drive_assets.simulation.road import LANE_WIDTH_M, LANES, Road

Image = NDArray[np.uint8]
SUBPIXEL_BITS = 4
"""Fractional bits of OpenCV's fixed-point coordinates."""
FARTHEST_M = 260.0
_RIGHT_M = -LANES * LANE_WIDTH_M
"""The right edge of the right lane, as SUMO's y; the left edge of the left lane is 0."""
_ASPHALT, _GRASS, _CONCRETE, _STEEL, _WHITE = (
    np.array(c, float) for c in ((92, 90, 88), (62, 104, 84), (150, 155, 158), (165, 165, 160), (225, 228, 228))
)
Stretches = list[tuple[float, float]]
"""Start and end in metres of the road."""


def fixed(points: Points) -> NDArray[np.int32]:
    """OpenCV's fixed-point px."""
    return np.rint(points * (1 << SUBPIXEL_BITS)).astype(np.int32)


def fill(image: Image, points: Points, colour: Colour) -> None:
    """Fill a polygon of (N,2) px with anti-aliased edges."""
    if len(points) >= 3:
        cv2.fillPoly(image, [fixed(points)], colour.tolist(), cv2.LINE_AA, SUBPIXEL_BITS)


class Scenery:
    """The surroundings of one drive. Lateral positions are SUMO's y unless a docstring says left of the camera."""

    def __init__(self, camera: Camera, look: Look, road: Road, bends: Waves, rng: np.random.Generator) -> None:
        self.camera, self.look, self.road, self.bends = camera, look, road, bends
        self.unit = camera.width / 1920
        self.margin = int(60 * self.unit)
        self.background = self._background(rng)
        self.ahead = np.geomspace(NEAR_M, 600.0, 72)
        self.grain = cv2.GaussianBlur(rng.normal(0, 1, (512, 512)).astype(np.float32), (0, 0), 1.1)
        self.grain = np.clip(32 + 7 * self.grain / self.grain.std(), 0, 64).astype(np.uint8)
        self.trees = rng.uniform(0, 1, (997, 4))
        self.trunk_shape = np.array([(-0.02, 0), (0.02, 0), (0.015, -0.5), (-0.015, -0.5)])
        self.crown_shape = _crown(rng)
        self.light_shape = 0.62 * self.crown_shape + np.array((-0.07, -0.32))

    def draw(self, view: View, y: float) -> Image:
        """A new picture of the surroundings from lateral position `y`."""
        image = self._sky(view)
        self._ground(image, view, y)
        self._grain(image, view)
        self._markings(image, view, y)
        self._trees(image, view, y)
        self._rails(image, view, y)
        return image

    def _background(self, rng: np.random.Generator) -> Image:
        """Sky, clouds and far hills, larger than a frame so that bends and bumps can move them."""
        camera, look = self.camera, self.look
        height, width = camera.height + 2 * self.margin, camera.width * 2
        horizon = round(camera.horizon) + self.margin
        share = np.clip(np.arange(height) / horizon, 0, 1)[:, None, None] ** 1.4
        sky = np.broadcast_to(look.sky_top * (1 - share) + look.sky_low * share, (height, width, 3)).astype(np.float32)
        if look.weather in ("clear", "overcast") and look.light != "night":
            coarse = rng.normal(0, 1, (14, 20)).astype(np.float32)
            coarse += cv2.resize(rng.normal(0, 1, (5, 8)).astype(np.float32), (20, 14))
            cloud = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            cloud = np.clip(cloud * 0.25, 0, 0.6)[..., None]
            sky = sky * (1 - cloud) + cloud * (look.sky_low * 0.4 + np.array((245.0, 245, 245)) * look.ambient * 0.6)
        image: Image = np.ascontiguousarray(np.clip(sky, 0, 255).astype(np.uint8))
        for depth, rise, colour in ((900.0, 62, (96, 100, 80)), (500.0, 34, (52, 78, 58)), (320.0, 20, (40, 64, 46))):
            line = np.cumsum(rng.normal(0, 1, width // 6 + 2))
            line = np.convolve(line - line.mean(), np.ones(25) / 25, "same")
            ridge = rise * self.unit * (0.55 + 0.45 * line / (np.abs(line).max() + 1e-6))
            ridge = ridge + rng.uniform(0, 5 * self.unit, line.size)
            points = np.stack([np.arange(line.size) * 6.0, horizon - ridge], axis=1)
            outline = np.concatenate([points, [[width, height], [0, height]]])
            fill(image, outline, look.lit(np.array(colour, float), depth))
        return image

    def _sky(self, view: View) -> Image:
        camera = self.camera
        left = round(camera.width / 2 - camera.focal * self.bends.slope(view.s) * 0.5)
        top = round(self.margin - view.pitch_px)
        left = int(np.clip(left, 0, self.background.shape[1] - camera.width))
        return self.background[top : top + camera.height, left : left + camera.width].copy()

    def _ground(self, image: Image, view: View, y: float) -> None:
        """Grass and asphalt in bands from far to near, each lit by its distance."""
        asphalt = _ASPHALT * (0.72 if self.look.weather == "rain" else 1.0)
        middle = np.stack([np.zeros_like(self.ahead), np.zeros_like(self.ahead), self.ahead], axis=1)
        below = np.minimum.accumulate(view.project(middle)[:, 1])
        rows = np.arange(int(below[-1]), len(image))
        ahead = np.interp(rows, below[::-1], self.ahead[::-1])
        grass = self.look.lit(np.broadcast_to(_GRASS, (len(rows), 3)), ahead).astype(np.uint8)
        cv2.resize(grass[:, None], (image.shape[1], len(rows)), dst=image[rows[0] :], interpolation=cv2.INTER_NEAREST)
        self._strip(image, view, 1.4 - y, _RIGHT_M - 2.6 - y, asphalt)
        for start, end in self._near(self.road.weaves, view):
            self._strip(image, view, _RIGHT_M - 2.4 - y, _RIGHT_M - LANE_WIDTH_M - 2.4 - y, asphalt, start, end)
            for tip, base in ((start - 220, start), (end + 220, end)):
                bend = base + np.sign(tip - base) * 60
                road = [(base, -11.2), (bend, -11.2), (tip, -40.0), (tip, -48.0), (bend, -17.4), (base, -17.4)]
                points = np.array([(y - side, 0.0, place - view.s) for place, side in road])
                fill(image, view.polygons([points])[0], self.look.lit(asphalt, max(10.0, bend - view.s)))

    def _grain(self, image: Image, view: View) -> None:
        """Fine texture that moves with the road, drawn at half size and added to the ground."""
        camera = self.camera
        top = round(camera.horizon + view.pitch_px + 24 * self.unit) // 2 * 2
        rows = np.arange(top, camera.height, 2, dtype=np.float32)
        columns = np.arange(0, camera.width, 2, dtype=np.float32) - camera.width / 2
        ahead = camera.focal * camera.mount / (rows - camera.horizon - view.pitch_px)
        across = np.multiply.outer(ahead / camera.focal, columns).astype(np.float32)
        along = np.broadcast_to((ahead + view.s % 512)[:, None], across.shape).astype(np.float32)
        grain = cv2.remap(self.grain, across * 56, along * 18, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        ground = image[top:]
        full = cv2.cvtColor(cv2.resize(grain, (ground.shape[1], ground.shape[0])), cv2.COLOR_GRAY2BGR)
        share = float(self.look.ambient.mean()) ** 0.5
        cv2.addWeighted(ground, 1.0, full, share, -32 * share, dst=ground)

    def _strip(
        self, image: Image, view: View, left: float, right: float, colour: Colour,
        start: float = -1e9, end: float = 1e9, low: float = 0.0, high: float = 0.0,
    ) -> None:  # fmt: skip
        """A band along the road from `left` to `right` (m left of the camera) and from height `low` to `high`."""
        near, far = max(start - view.s, NEAR_M), min(end - view.s, 600.0)
        if near < far:
            ahead = np.array([near, *self.ahead[(self.ahead > near) & (self.ahead < far)], far])
            self._bands(image, view, left, right, colour, ahead[:-1], ahead[1:], low, high)

    def _bands(
        self, image: Image, view: View, left: float, right: float, colour: Colour,
        near: Points, far: Points, low: float = 0.0, high: float = 0.0,
    ) -> None:  # fmt: skip
        """As `_strip`, one straight piece for each distance `near` and `far` (m ahead)."""
        points = np.empty((len(near), 4, 3))
        points[:, :2, :2], points[:, 2:, :2] = (-left, low), (-right, high)
        points[:, ::3, 2], points[:, 1:3, 2] = near[:, None], far[:, None]
        quads = fixed(view.project(points.reshape(-1, 3))).reshape(-1, 4, 2)
        tones = self.look.lit(np.broadcast_to(colour, (len(near), 3)), near).tolist()
        for quad, tone in zip(quads[::-1], tones[::-1], strict=True):
            cv2.fillConvexPoly(image, quad, tone, cv2.LINE_AA, SUBPIXEL_BITS)

    def _near(self, stretches: Iterable[tuple[float, float]], view: View) -> Stretches:
        return [(a, b) for a, b in stretches if b > view.s - 230 and a < view.s + 550]

    def _between(self, stretches: Iterable[tuple[float, float]], view: View) -> Stretches:
        """The road around the camera without some stretches."""
        near = self._near(stretches, view)
        return list(zip([view.s - 50, *(b for _, b in near)], [*(a for a, _ in near), view.s + 600], strict=True))

    def _markings(self, image: Image, view: View, y: float) -> None:
        white, weaves = _WHITE * (0.8 if self.look.weather == "rain" else 1.0), self.road.weaves
        self._strip(image, view, -0.02 - y, -0.2 - y, white)
        for left, stretches in (
            (_RIGHT_M + 0.2, self._between(weaves, view)),
            (_RIGHT_M - LANE_WIDTH_M + 0.2, self._near(weaves, view)),
        ):
            for start, end in stretches:
                self._strip(image, view, left - y, left - 0.22 - y, white, start, end)
        dashed = [(0.075 - LANE_WIDTH_M * lane, 0.15, 18.0, view.s, view.s + FARTHEST_M) for lane in range(1, LANES)]
        for start, end in self._near(weaves, view):
            dashed.append((_RIGHT_M + 0.15, 0.3, 12.0, max(start, view.s), min(end, view.s + FARTHEST_M)))
        for left, width, period, start, end in dashed:
            dashes = np.arange(np.floor(start / period) * period, end, period) - view.s
            near, far = dashes.clip(NEAR_M), dashes + 6.0
            self._bands(image, view, left - y, left - width - y, white, near[far > near], far[far > near])

    def _rails(self, image: Image, view: View, y: float) -> None:
        """The concrete wall on the left and the guard rail on the right."""
        wall, rail = 1.3 - y, _RIGHT_M - 3.0 - y
        self._strip(image, view, wall, wall, _CONCRETE, low=0.0, high=0.85)
        self._strip(image, view, wall + 0.2, wall, _CONCRETE * 1.2, low=0.85, high=0.85)
        for start, end in self._between([(a - 130, b + 130) for a, b in self.road.weaves], view):
            self._strip(image, view, rail, rail, _STEEL, start, end, 0.45, 0.78)
            self._strip(image, view, rail, rail, _STEEL * 0.7, start, end, 0.57, 0.64)

    def _trees(self, image: Image, view: View, y: float) -> None:
        """Trees on both sides, from far to near, determined by the road metre."""
        spacing = 9.0
        first = int(np.ceil((view.s + 6) / spacing))
        index = np.arange(first + 32, first - 1, -1).repeat(2)
        side = np.tile((-1, 1), len(index) // 2)
        chance, size, shift, tone = self.trees[(index * 2 + (side > 0)) % len(self.trees)].T
        ahead = index * spacing + 4 * shift - view.s
        right = np.where(side < 0, y - 7 - 20 * shift, y + LANES * LANE_WIDTH_M + 9 + 26 * shift)
        foot = view.project(np.stack([right, np.zeros_like(right), ahead], axis=1))
        tall = self.camera.focal / ahead * (3.5 + 8 * size)
        seen = (chance > 0.35) & (tall > 4) & (foot[:, 0] > -tall) & (foot[:, 0] < self.camera.width + tall)
        green = np.stack([38 + 14 * tone, 62 + 26 * tone, 46 + 22 * tone], axis=1)
        dark, bright = self.look.lit(green, ahead), self.look.lit(green * 1.22, ahead)
        trunk = self.look.lit(np.broadcast_to((36.0, 44.0, 52.0), green.shape), ahead)
        for i in np.flatnonzero(seen).tolist():
            for shape, colour in ((self.trunk_shape, trunk), (self.crown_shape, dark), (self.light_shape, bright)):
                fill(image, foot[i] + shape * tall[i], colour[i])


def _crown(rng: np.random.Generator) -> Points:
    """Outline of a tree's crown over its foot, for a tree of height 1; y falls upwards."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 1 + sum(0.3 / k * np.cos(k * angles + rng.uniform(0, 6.3)) * rng.normal() for k in (3, 5, 8, 13))
    return np.stack([0.3 * radius * np.cos(angles), -0.62 + 0.36 * radius * np.sin(angles)], axis=1)
