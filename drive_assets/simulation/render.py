"""Draws the camera's picture of one moment of a drive, and returns where each vehicle is visible."""

import cv2
import numpy as np

from drive_assets.simulation.camera import Camera, View, Waves
from drive_assets.simulation.look import Look
from drive_assets.simulation.road import Road
from drive_assets.simulation.scenery import SUBPIXEL_BITS, Image, Scenery, fill, fixed
from drive_assets.simulation.traffic import Snapshot
from drive_assets.simulation.vehicles import Seen, draw_vehicles, see_vehicles

JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)
"""How frames are encoded."""
CAMERA_SETBACK_M = 1.7
"""Distance of the driver's eye and the camera from the front bumper."""


class Renderer:
    """One drive's camera, light, weather and road, derived from `seed`; `noise` scales the sensor noise."""

    def __init__(self, camera: Camera, road: Road, seed: int, noise: float = 1.0) -> None:
        rng = np.random.default_rng([seed, 6])
        self.camera, self.look = camera, Look.of_seed(seed)
        self.bends, self.hills = Waves.random(rng, 800), Waves.random(rng, 20_000)
        self.unit = camera.width / 1920
        self.scenery = Scenery(camera, self.look, road, self.bends, rng)
        # Sensor noise around 32, larger than a frame: each frame uses another part of it.
        grains = rng.standard_normal((camera.height + 64, camera.width + 64, 3), np.float32) if noise else np.zeros(0)
        self.noise = np.clip(32 + self.look.noise * noise * grains, 0, 64).astype(np.uint8)

    def frame(self, x: float, y: float, around: Snapshot, seed: tuple[int, ...]) -> tuple[Image, list[Seen]]:
        """Draw the moment when the ego's front is at road metre `x`, lateral `y`, with the vehicles `around` it."""
        rng = np.random.default_rng(seed)
        view = self.view(x, rng)
        image = self.scenery.draw(view, y)
        draw_vehicles(image, view, self.look, y, around)
        self._weather(image, rng)
        return image, see_vehicles(view, y, around)

    def view(self, x: float, rng: np.random.Generator) -> View:
        """The camera's view from road metre `x`, shaken by the road."""
        shake = float(rng.normal(0, 1.2 * self.unit))
        return View.at(self.camera, self.bends, self.hills, x - CAMERA_SETBACK_M, shake)

    def _weather(self, image: Image, rng: np.random.Generator) -> None:
        """Rain streaks, bonnet, blur and sensor noise."""
        camera, look = self.camera, self.look
        if look.weather == "rain":
            tone = (look.sky_low * 0.9 + 20).tolist()
            start = rng.uniform(0, (camera.width, camera.height), (170, 2))
            length, lean = rng.uniform(8, 34, 170) * self.unit, rng.normal(0, 0.12, 170)
            streaks = fixed(np.stack([start, start + np.stack([lean * length, length], axis=1)], axis=1))
            cv2.polylines(image, list(streaks), False, tone, 1, cv2.LINE_AA, SUBPIXEL_BITS)
        if look.blur or look.weather == "rain":
            cv2.GaussianBlur(image, (3, 3), 0.7, dst=image)
        self._bonnet(image)
        if self.noise.size:
            dy, dx = rng.integers(0, 64, 2).tolist()
            cv2.add(image, self.noise[dy : dy + camera.height, dx : dx + camera.width], dst=image)
            cv2.subtract(image, (32.0, 32.0, 32.0, 0.0), dst=image)

    def _bonnet(self, image: Image) -> None:
        camera = self.camera
        across = np.linspace(-0.02, 1.02, 40) * camera.width
        drop = (2 * across / camera.width - 1) ** 2
        line = camera.bonnet + drop * (camera.height - camera.bonnet) * 0.9
        base = [(camera.width, camera.height + 9.0), (0.0, camera.height + 9.0)]
        paint = self.look.ambient * np.array((70.0, 52, 44))
        fill(image, np.concatenate([np.stack([across, line], 1), base]), paint * 1.5)
        fill(image, np.concatenate([np.stack([across, line + 9 * self.unit], 1), base]), paint)
