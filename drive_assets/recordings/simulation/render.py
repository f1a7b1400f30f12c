"""Draws what the camera sees: sky, road, roadside and vehicles, and says where each vehicle is seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_assets.recordings.simulation.bodies import Body, Face, Part, body
from drive_assets.recordings.simulation.camera import NEAR_M, SUBPIXEL_BITS, Camera, Points, View, Waves
from drive_assets.recordings.simulation.look import Colour, Look
from drive_assets.recordings.simulation.traffic import LANE_WIDTH_M, LANES, VEHICLE_TYPES, Road, Snapshot

Image = NDArray[np.uint8]
Ids = NDArray[np.uint8]

FARTHEST_M = 260.0
# The driver's eye and the camera sit this far behind the front bumper.
CAMERA_SETBACK_M = 1.7
_MOST_VEHICLES = 120
_ASPHALT, _GRASS, _CONCRETE, _STEEL = (
    np.array(c, float) for c in ((92, 90, 88), (62, 104, 84), (150, 155, 158), (165, 165, 160))
)
_PAINT = np.array(
    [(28, 26, 26), (232, 232, 230), (120, 118, 116), (180, 180, 178), (110, 58, 28), (34, 30, 150), (70, 64, 60),
     (44, 66, 36), (90, 110, 132), (205, 205, 208), (140, 90, 40), (60, 50, 48)], float)  # fmt: skip
_TRUCK_PAINT = np.array(
    [(225, 228, 228), (70, 60, 165), (150, 90, 40), (60, 130, 190), (110, 140, 60), (190, 190, 186)], float
)
_MATERIAL: dict[str, tuple[int, int, int]] = {
    "black": (24, 24, 24), "tyre": (32, 31, 30), "rim": (150, 150, 148), "glass": (52, 48, 44), "glass_side": (62, 58, 54),
    "glass_sky": (118, 108, 98), "seat": (30, 28, 27), "plate": (225, 228, 228), "plate_blue": (150, 70, 20),
    "reverse": (190, 190, 195), "reflector": (40, 36, 150), "shade": (62, 60, 58), "shadow": (36, 35, 34),
}  # fmt: skip
_LAMPS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    # off, tail lamp, brake lamp
    "lamp": ((34, 28, 118), (44, 34, 190), (60, 46, 255)),
    "lamp_core": ((52, 46, 150), (80, 66, 225), (190, 205, 255)),
    "lamp_high": ((30, 26, 70), (30, 26, 70), (110, 100, 255)),
}


@dataclass(frozen=True)
class Seen:
    """One drawn vehicle: (x1, y1, x2, y2) px of all that is visible of it and of its rear, and the share not hidden.

    `rear` is None where nothing of the rear is in the picture. `visible` is measured against what lies in the frame.
    """

    number: int
    distance: float
    whole: tuple[int, int, int, int]
    rear: tuple[int, int, int, int] | None
    visible: float


class Renderer:
    """One drive's camera, light, weather and road; `frame` draws one moment of it."""

    def __init__(
        self, camera: Camera, look: Look, road: Road, bends: Waves, hills: Waves, seed: int, noise: float
    ) -> None:
        self.camera, self.look, self.road = camera, look, road
        self.bends, self.hills = bends, hills
        rng = np.random.default_rng([seed, 7])
        self.unit = camera.width / 1920
        self.margin = int(60 * self.unit)
        self.background = self._background(rng)
        self.noise = _noise(camera, look.noise * noise, rng) if noise else None
        self.ahead = np.geomspace(NEAR_M, 600.0, 72)
        self.grain = cv2.GaussianBlur(rng.normal(0, 1, (512, 512)).astype(np.float32), (0, 0), 1.1)
        self.grain = np.clip(32 + 7 * self.grain / self.grain.std(), 0, 64).astype(np.uint8)
        self.glow = _glow()
        self.trees = rng.uniform(0, 1, (997, 4))
        self.trunk_shape = np.array([(-0.02, 0), (0.02, 0), (0.015, -0.5), (-0.015, -0.5)])
        self.crown_shape = _crown(rng)
        self.light_shape = 0.62 * self.crown_shape + np.array((-0.07, -0.32))

    def frame(self, x: float, y: float, around: Snapshot, seed: tuple[int, ...]) -> tuple[Image, list[Seen]]:
        """Draw the moment when the ego's front is at road metre `x`, lateral `y`, with the vehicles `around` it."""
        rng = np.random.default_rng(seed)
        camera = self.camera
        view = View.at(camera, self.bends, self.hills, x - CAMERA_SETBACK_M, float(rng.normal(0, 1.2 * self.unit)))
        image = self._sky(view)
        self._ground(image, view, y)
        self._markings(image, view, y)
        self._roadside(image, view, y)
        ids = np.zeros(image.shape[:2], np.uint8)
        seen = self._vehicles(image, ids, view, y, around)
        self._weather(image, rng)
        return image, seen

    def _background(self, rng: np.random.Generator) -> Image:
        """Sky, clouds and far hills, wider and higher than a frame so that bends and bumps can move it."""
        camera, look = self.camera, self.look
        height, width = camera.height + 2 * self.margin, camera.width * 2
        horizon = round(camera.horizon) + self.margin
        share = np.clip(np.arange(height) / horizon, 0, 1)[:, None, None] ** 1.4
        sky = np.broadcast_to(look.sky_top * (1 - share) + look.sky_low * share, (height, width, 3)).astype(np.float32)
        if look.weather in ("clear", "overcast") and look.light != "night":
            coarse = rng.normal(0, 1, (14, 20)).astype(np.float32) + cv2.resize(
                rng.normal(0, 1, (5, 8)).astype(np.float32), (20, 14)
            )
            cloud = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.25, 0, 0.6)[
                ..., None
            ]
            sky = sky * (1 - cloud) + cloud * (look.sky_low * 0.4 + np.array((245.0, 245, 245)) * look.ambient * 0.6)
        image: Image = np.ascontiguousarray(np.clip(sky, 0, 255).astype(np.uint8))
        for depth, rise, colour in ((900.0, 62, (96, 100, 80)), (500.0, 34, (52, 78, 58)), (320.0, 20, (40, 64, 46))):
            line = np.cumsum(rng.normal(0, 1, width // 6 + 2))
            line = np.convolve(line - line.mean(), np.ones(25) / 25, "same")
            ridge = rise * self.unit * (0.55 + 0.45 * line / (np.abs(line).max() + 1e-6)) + rng.uniform(
                0, 5 * self.unit, line.size
            )
            points = np.stack([np.arange(line.size) * 6.0, horizon - ridge], axis=1)
            outline = np.concatenate([points, [[width, height], [0, height]]])
            _fill(image, outline, look.lit(np.array(colour, float), depth))
        return image

    def _sky(self, view: View) -> Image:
        camera = self.camera
        left = round(camera.width / 2 - camera.focal * self.bends.slope(view.s) * 0.5)
        top = round(self.margin - view.pitch_px)
        left = int(np.clip(left, 0, self.background.shape[1] - camera.width))
        return self.background[top : top + camera.height, left : left + camera.width].copy()

    def _ground(self, image: Image, view: View, y: float) -> None:
        """Grass and asphalt in bands from far to near, each in the light of its distance; then their grain."""
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
                _fill(image, view.polygon(points), self.look.lit(_ASPHALT * wet, middle))
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
        grain = cv2.remap(self.grain, across * 24, along * 8, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        ground = image[top:]
        full = cv2.cvtColor(cv2.resize(grain, (ground.shape[1], ground.shape[0])), cv2.COLOR_GRAY2BGR)
        share = float(self.look.ambient.mean()) ** 0.5
        cv2.addWeighted(ground, 1.0, full, share, -32 * share, dst=ground)

    def _strip(
        self, image: Image, view: View, left: float, right: float, colour: Colour, start: float = -1e9, end: float = 1e9,
        low: float = 0.0, high: float = 0.0,
    ) -> None:  # fmt: skip
        """A band along the road, between two lateral places (m left of the camera) and two heights, segment by segment."""
        ahead = self.ahead
        ahead = np.unique(np.clip(ahead, max(start - view.s, NEAR_M), max(min(end - view.s, 600.0), NEAR_M)))
        if len(ahead) < 2:
            return
        ones = np.ones_like(ahead)
        one = view.project(np.stack([-left * ones, low * ones, ahead], axis=1))
        other = view.project(np.stack([-right * ones, high * ones, ahead], axis=1))
        colours = self.look.lit(np.broadcast_to(colour, (len(ahead), 3)), ahead)
        quads = _fixed(np.stack([one[:-1], one[1:], other[1:], other[:-1]], axis=1))
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
        lines = [(-LANE_WIDTH_M * lane, 6.0, 18.0, 0.075, None) for lane in range(1, LANES)]
        lines += [(right, 6.0, 12.0, 0.15, weave) for weave in weaves]
        for side, dash, period, half, where in lines:
            starts = np.arange(np.floor(view.s / period) * period, view.s + FARTHEST_M, period)[::-1]
            if where:
                starts = starts[(starts >= where[0]) & (starts + dash <= where[1])]
            near, far = np.maximum(starts - view.s, NEAR_M), starts + dash - view.s
            near, far = near[far > NEAR_M + 0.1], far[far > NEAR_M + 0.1]
            left, right_edge = y - side - half, y - side + half
            self._quads(
                image, view, [(left, 0, near), (right_edge, 0, near), (right_edge, 0, far), (left, 0, far)], white
            )

    def _quads(self, image: Image, view: View, corners: Sequence[tuple[float, float, Points]], colour: Colour) -> None:
        """Many quadrangles that differ in how far ahead they lie; four corners of (right, above, all distances)."""
        near = corners[0][2]
        if not len(near):
            return
        points = np.stack(
            [np.stack([np.full_like(z, x), np.full_like(z, up), z], axis=1) for x, up, z in corners], axis=1
        )
        pixels = _fixed(view.project(points.reshape(-1, 3))).reshape(-1, 4, 2)
        tones = self.look.lit(np.broadcast_to(colour, (len(near), 3)), near).tolist()
        for quad, tone in zip(pixels, tones, strict=True):
            cv2.fillConvexPoly(image, quad, tone, cv2.LINE_AA, SUBPIXEL_BITS)

    def _roadside(self, image: Image, view: View, y: float) -> None:
        """Trees from far to near, the concrete wall on the left and the guard rail on the right."""
        self._trees(image, view, y)
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
        """Trees on both sides, from far to near; which and where follows from the place on the road."""
        spacing = 9.0
        index = np.arange(
            int(np.ceil((view.s + 6) / spacing)) + 32, int(np.ceil((view.s + 6) / spacing)) - 1, -1
        ).repeat(2)
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
                _fill(image, foot[i] + shape * tall[i], colour[i])

    def _vehicles(self, image: Image, ids: Ids, view: View, y: float, around: Snapshot) -> list[Seen]:
        """Draw the vehicles from far to near, and measure what stays visible of each."""
        lengths = np.array([kind.length for kind in VEHICLE_TYPES])[around.kind] if len(around.kind) else np.empty(0)
        rear = around.x - lengths - view.s
        order = np.argsort(-rear, kind="stable")
        order = order[(rear[order] < FARTHEST_M) & (rear[order] + lengths[order] > NEAR_M + 0.4)][-_MOST_VEHICLES:]
        drawn = []
        for place, index in enumerate(order.tolist()):
            offset = np.array((y - around.y[index], 0.0, rear[index]))
            kind, number = int(around.kind[index]), int(around.number[index])
            whole, area = self._outline(ids, view, body(kind), offset, 2 * place + 1)
            if whole is None:
                continue
            self._paint(image, view, body(kind), offset, _colours(kind, number), bool(around.braking[index]))
            drawn.append((place, number, float(rear[index]), whole, area))
        return [seen for item in reversed(drawn) if (seen := _measure(ids, *item)) is not None]

    def _faces(self, shape: Body, view: View, offset: Points) -> list[Face]:
        """The faces that the camera sees, the nearest last: one flank where it looks past the edge, the rear if ahead."""
        ahead = max(float(offset[2]), NEAR_M)
        middle, further = view.bend(ahead), view.bend(ahead + 5.0)
        # Where the line of the vehicle's side, drawn backwards, passes the camera.
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
        self, ids: Ids, view: View, shape: Body, offset: Points, number: int
    ) -> tuple[tuple[int, int, int, int] | None, int]:
        """Mark the vehicle's pixels in `ids` (sides `number`, rear `number` + 1); their frame-clipped box and count."""
        height, width = ids.shape
        corners = []
        for face in self._faces(shape, view, offset)[1:]:
            points = view.polygon(shape.outlines[face] + offset)
            if len(points):
                corners.append(points)
                cv2.fillPoly(ids, [_fixed(points)], number + (face == "rear"), cv2.LINE_8, SUBPIXEL_BITS)
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
        self, image: Image, view: View, shape: Body, offset: Points, paint: dict[str, Colour], braking: bool
    ) -> None:
        depth = max(float(offset[2]), 1.0)
        scale = view.camera.focal / depth
        faces = self._faces(shape, view, offset)
        parts = [part for part in shape.parts if part.face in faces and scale * shape.width >= part.smallest]
        points = np.concatenate([part.points for part in parts]) + offset
        clipped = bool(points[:, 2].min() < NEAR_M)
        pixels = None if clipped else _fixed(view.project(points))
        start = 0
        for part, tone in zip(parts, self._tones(parts, depth, paint, braking), strict=True):
            end = start + len(part.points)
            polygon = _fixed(view.polygon(points[start:end])) if pixels is None else pixels[start:end]
            start = end
            if len(polygon) >= 3:
                cv2.fillPoly(image, [polygon], tone, cv2.LINE_AA, SUBPIXEL_BITS)
        if "rear" in faces and (braking or self.look.lamps_on):
            self._shine(image, view, shape, offset, depth, braking)

    def _tones(self, parts: list[Part], depth: float, paint: dict[str, Colour], braking: bool) -> list[list[float]]:
        """Colours of the parts as seen from `depth` metres; lit lamps shine by themselves."""
        state = 2 if braking else 1 if self.look.lamps_on else 0
        base = np.array([_LAMPS[part.material][state] if part.material in _LAMPS
                         else paint.get(part.material, _MATERIAL.get(part.material)) for part in parts], float)  # fmt: skip
        shade = np.array([self.look.faces[part.face] for part in parts])[:, None]
        tones = self.look.lit(np.minimum(base * shade, 255), depth)
        if state:
            lamps = np.array([part.material in _LAMPS for part in parts])
            tones[lamps] = self.look.glowing(base[lamps], depth)
        return tones.tolist()

    def _shine(self, image: Image, view: View, shape: Body, offset: Points, depth: float, braking: bool) -> None:
        """Halo of lit lamps: wide in the dark, fog and rain, small by day."""
        strength = (1.0 if braking else 0.45) * (1.0 if self.look.light != "day" else 0.5)
        strength *= float(np.exp(-depth / self.look.visibility_m))
        radius = round(view.camera.focal / depth * (0.55 if self.look.lamps_on else 0.3))
        if radius < 2 or radius > 400:
            return
        patch = cv2.resize(self.glow, (2 * radius + 1, 2 * radius + 1)) * strength
        for part in shape.parts:
            if part.material == "lamp" and part.face == "rear":
                centre = view.project((part.points.mean(axis=0) + offset)[None])[0]
                _add(image, patch, round(centre[0]), round(centre[1]), radius)

    def _weather(self, image: Image, rng: np.random.Generator) -> None:
        """Rain streaks, bonnet, blur and sensor noise."""
        camera, look = self.camera, self.look
        if look.weather == "rain":
            tone = (look.sky_low * 0.9 + 20).tolist()
            for x, y, length, lean in zip(
                rng.uniform(0, camera.width, 170),
                rng.uniform(0, camera.height, 170),
                rng.uniform(8, 34, 170) * self.unit,
                rng.normal(0, 0.12, 170),
                strict=True,
            ):
                streak = _fixed(np.array([(x, y), (x + lean * length, y + length)]))
                cv2.line(image, streak[0], streak[1], tone, 1, cv2.LINE_AA, SUBPIXEL_BITS)
        if look.blur or look.weather == "rain":
            cv2.GaussianBlur(image, (3, 3), 0.7, dst=image)
        self._bonnet(image)
        if self.noise is None:
            return
        dy, dx = rng.integers(0, 64, 2).tolist()
        noise = self.noise[dy : dy + camera.height, dx : dx + camera.width]
        cv2.add(image, noise, dst=image)
        cv2.subtract(image, (32.0, 32.0, 32.0, 0.0), dst=image)

    def _bonnet(self, image: Image) -> None:
        camera = self.camera
        across = np.linspace(-0.02, 1.02, 40) * camera.width
        drop = (2 * across / camera.width - 1) ** 2
        line = camera.bonnet + drop * (camera.height - camera.bonnet) * 0.9
        base = [(camera.width, camera.height + 9.0), (0.0, camera.height + 9.0)]
        paint = self.look.ambient * np.array((70.0, 52, 44))
        _fill(image, np.concatenate([np.stack([across, line], 1), base]), paint * 1.5)
        _fill(image, np.concatenate([np.stack([across, line + 9 * self.unit], 1), base]), paint)


def scene(camera: Camera, road: Road, seed: int, noise: float = 1.0) -> Renderer:
    """A renderer whose light, weather, bends and hills follow from `seed`; `noise` scales the camera's noise."""
    rng = np.random.default_rng([seed, 5])
    return Renderer(camera, Look.random(rng), road, Waves.random(rng, 1300), Waves.random(rng, 20_000), seed, noise)


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
    ids: Ids, place: int, number: int, distance: float, whole: tuple[int, int, int, int], area: int
) -> Seen | None:
    x1, y1, x2, y2 = whole
    window = ids[y1:y2, x1:x2]
    rear = window == 2 * place + 2
    every = rear | (window == 2 * place + 1)
    count = int(np.count_nonzero(every))
    if count == 0:
        return None
    box = _extent(every, x1, y1)
    return Seen(number, distance, box, _extent(rear, x1, y1) if rear.any() else None, count / max(area, 1))


def _extent(mask: NDArray[np.bool_], left: int, top: int) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]) + left, int(rows[0]) + top, int(columns[-1]) + left + 1, int(rows[-1]) + top + 1


def _fixed(points: Points) -> NDArray[np.int32]:
    """OpenCV's fixed-point px, kept within what its drawing can take."""
    scaled: NDArray[np.int32] = np.rint(np.minimum(np.maximum(points, -16000), 16000) * (1 << SUBPIXEL_BITS)).astype(
        np.int32
    )
    return scaled


def _fill(image: Image, points: Points, colour: Colour) -> None:
    if len(points) >= 3:
        cv2.fillPoly(image, [_fixed(points)], colour.tolist(), cv2.LINE_AA, SUBPIXEL_BITS)


def _noise(camera: Camera, sigma: float, rng: np.random.Generator) -> Image:
    """Sensor noise around 32, larger than a frame so that each frame cuts another piece out of it."""
    shape = (camera.height + 64, camera.width + 64, 3)
    image: Image = np.clip(32 + sigma * rng.standard_normal(shape, np.float32), 0, 64).astype(np.uint8)
    return image


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


def _crown(rng: np.random.Generator) -> Points:
    """Outline of a tree's crown over its foot, for a tree of height 1; y falls upwards."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 1 + sum(0.3 / k * np.cos(k * angles + rng.uniform(0, 6.3)) * rng.normal() for k in (3, 5, 8, 13))
    return np.stack([0.3 * radius * np.cos(angles), -0.62 + 0.36 * radius * np.sin(angles)], axis=1)
