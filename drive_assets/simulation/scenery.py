"""Everything but the vehicles: sky and hills, ground, lane markings, guard rails and trees."""

from collections.abc import Sequence

import cv2
import numpy as np

from drive_assets.simulation.camera import NEAR_M, Camera, Points, View, Waves
from drive_assets.simulation.look import Colour, Look
from drive_assets.simulation.paint import SUBPIXEL_BITS, Image, fill, fixed
from drive_assets.simulation.road import LANE_WIDTH_M, LANES, Road

FARTHEST_M = 260.0
_ASPHALT, _GRASS, _CONCRETE, _STEEL = (
    np.array(c, float) for c in ((92, 90, 88), (62, 104, 84), (150, 155, 158), (165, 165, 160))
)


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
        """Grass and asphalt in bands from far to near, each lit by its distance; then their grain."""
        ahead = self.ahead
        rows = view.project(np.stack([np.zeros_like(ahead), np.zeros_like(ahead), ahead], axis=1))[:, 1]
        wet = 0.72 if self.look.weather == "rain" else 1.0
        tones = self.look.lit(np.broadcast_to(_GRASS, (len(ahead), 3)), ahead).tolist()
        height = self.camera.height
        for index in range(len(ahead) - 2, -1, -1):
            low, high = (int(np.clip(round(row), 0, height)) for row in (rows[index], rows[index + 1]))
            if low > high:
                cv2.rectangle(image, (0, high), (self.camera.width, low - 1), tones[index], cv2.FILLED)
        edge = 1.4
        self._strip(image, view, edge - y, -LANES * LANE_WIDTH_M - 2.6 - y, _ASPHALT * wet)
        for start, end in self._near(self.road.weaves, view, 320):
            right = -LANES * LANE_WIDTH_M - LANE_WIDTH_M - 2.4
            self._strip(image, view, -LANES * LANE_WIDTH_M - 2.4 - y, right - y, _ASPHALT * wet, start=start, end=end)
            for tip, base in ((start - 220, start), (end + 220, end)):
                bend = base + np.sign(tip - base) * 60
                road = [(base, -11.2), (bend, -11.2), (tip, -40.0), (tip, -48.0), (bend, -17.4), (base, -17.4)]
                points = np.array([(y - side, 0.0, place - view.s) for place, side in road])
                middle = max(10.0, bend - view.s)
                fill(image, view.polygon(points), self.look.lit(_ASPHALT * wet, middle))
        self._grain(image, view)

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
        ahead = self.ahead
        ahead = np.unique(np.clip(ahead, max(start - view.s, NEAR_M), max(min(end - view.s, 600.0), NEAR_M)))
        if len(ahead) < 2:
            return
        ones = np.ones_like(ahead)
        one = view.project(np.stack([-left * ones, low * ones, ahead], axis=1))
        other = view.project(np.stack([-right * ones, high * ones, ahead], axis=1))
        colours = self.look.lit(np.broadcast_to(colour, (len(ahead), 3)), ahead)
        quads = fixed(np.stack([one[:-1], one[1:], other[1:], other[:-1]], axis=1))
        for quad, tone in zip(quads[::-1], colours[-2::-1].tolist(), strict=True):
            cv2.fillConvexPoly(image, quad, tone, cv2.LINE_AA, SUBPIXEL_BITS)

    def _near(self, stretches: Sequence[tuple[float, float]], view: View, reach: float) -> list[tuple[float, float]]:
        return [(a, b) for a, b in stretches if b > view.s - 230 and a < view.s + reach + 230]

    def _markings(self, image: Image, view: View, y: float) -> None:
        white = np.array((225.0, 228, 228)) * (0.8 if self.look.weather == "rain" else 1.0)
        right = -LANES * LANE_WIDTH_M
        weaves = self._near(self.road.weaves, view, 320)
        self._strip(image, view, -0.02 - y, -0.2 - y, white)
        place = view.s - 400
        for start, end in [*weaves, (view.s + 1000, 0.0)]:
            if place < start:
                self._strip(image, view, right + 0.2 - y, right - 0.02 - y, white, place, start)
            place = max(place, end)
            if end:
                self._strip(image, view, right - LANE_WIDTH_M + 0.2 - y, right - LANE_WIDTH_M - y, white, start, end)
        lines: list[tuple[float, float, float, float, tuple[float, float] | None]]
        lines = [(-LANE_WIDTH_M * lane, 6.0, 18.0, 0.075, None) for lane in range(1, LANES)]
        lines += [(right, 6.0, 12.0, 0.15, weave) for weave in weaves]
        for side, dash, period, half, where in lines:
            starts = np.arange(np.floor(view.s / period) * period, view.s + FARTHEST_M, period)[::-1]
            if where:
                starts = starts[(starts >= where[0]) & (starts + dash <= where[1])]
            near, far = np.maximum(starts - view.s, NEAR_M), starts + dash - view.s
            near, far = near[far > NEAR_M + 0.1], far[far > NEAR_M + 0.1]
            left, right_edge = y - side - half, y - side + half
            corners = [(left, 0, near), (right_edge, 0, near), (right_edge, 0, far), (left, 0, far)]
            self._quads(image, view, corners, white)

    def _quads(self, image: Image, view: View, corners: Sequence[tuple[float, float, Points]], colour: Colour) -> None:
        """Quadrangles that differ only in their distance; four corners of (right, above, all distances)."""
        near = corners[0][2]
        if not len(near):
            return
        points = np.stack(
            [np.stack([np.full_like(z, x), np.full_like(z, up), z], axis=1) for x, up, z in corners], axis=1
        )
        pixels = fixed(view.project(points.reshape(-1, 3))).reshape(-1, 4, 2)
        tones = self.look.lit(np.broadcast_to(colour, (len(near), 3)), near).tolist()
        for quad, tone in zip(pixels, tones, strict=True):
            cv2.fillConvexPoly(image, quad, tone, cv2.LINE_AA, SUBPIXEL_BITS)

    def _rails(self, image: Image, view: View, y: float) -> None:
        """The concrete wall on the left and the guard rail on the right."""
        wall, rail = 1.3, -LANES * LANE_WIDTH_M - 3.0
        self._strip(image, view, wall - y, wall - y, _CONCRETE, low=0.0, high=0.85)
        self._strip(image, view, wall + 0.2 - y, wall - y, _CONCRETE * 1.2, low=0.85, high=0.85)
        gaps = [(a - 130, b + 130) for a, b in self.road.weaves]
        open_from = view.s - 50
        for start, end in [*self._near(gaps, view, 320), (view.s + 600, view.s + 601)]:
            if open_from < start:
                posts = np.arange(np.ceil(open_from / 4) * 4, min(start, view.s + 90), 4.0)[::-1] - view.s
                posts, left, right = posts[posts > 2], y - rail - 0.05, y - rail + 0.05
                corners = [(left, 0, posts), (right, 0, posts), (right, 0.6, posts), (left, 0.6, posts)]
                self._quads(image, view, corners, _STEEL * 0.6)
                self._strip(image, view, rail - y, rail - y, _STEEL, open_from, start, 0.45, 0.78)
                self._strip(image, view, rail - y, rail - y, _STEEL * 0.7, open_from, start, 0.57, 0.64)
            open_from = max(open_from, end)

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
