"""Draws the camera's picture of one moment of a drive, and returns where each vehicle is visible."""

import cv2
import numpy as np

from drive_assets.simulation.camera import Camera, View, Waves
from drive_assets.simulation.look import Look
from drive_assets.simulation.paint import SUBPIXEL_BITS, Image, fill, fixed
from drive_assets.simulation.road import Road
from drive_assets.simulation.scenery import Scenery
from drive_assets.simulation.traffic import Snapshot
from drive_assets.simulation.vehicles import Seen, draw_vehicles

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
        self.noise = _noise(camera, self.look.noise * noise, rng) if noise else None

    def frame(self, x: float, y: float, around: Snapshot, seed: tuple[int, ...]) -> tuple[Image, list[Seen]]:
        """Draw the moment when the ego's front is at road metre `x`, lateral `y`, with the vehicles `around` it."""
        rng = np.random.default_rng(seed)
        camera = self.camera
        view = View.at(camera, self.bends, self.hills, x - CAMERA_SETBACK_M, float(rng.normal(0, 1.2 * self.unit)))
        image = self.scenery.draw(view, y)
        seen = draw_vehicles(image, view, self.look, y, around)
        self._weather(image, rng)
        return image, seen

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
                streak = fixed(np.array([(x, y), (x + lean * length, y + length)]))
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
        fill(image, np.concatenate([np.stack([across, line], 1), base]), paint * 1.5)
        fill(image, np.concatenate([np.stack([across, line + 9 * self.unit], 1), base]), paint)


def _noise(camera: Camera, sigma: float, rng: np.random.Generator) -> Image:
    """Sensor noise around 32, larger than a frame: each frame uses another part of it."""
    shape = (camera.height + 64, camera.width + 64, 3)
    image: Image = np.clip(32 + sigma * rng.standard_normal(shape, np.float32), 0, 64).astype(np.uint8)
    return image
