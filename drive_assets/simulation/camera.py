"""The camera behind the windscreen, and the bends and hills of the road that it sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

NEAR_M = 0.9
_GRID_M = np.concatenate([np.linspace(0, 100, 51), np.linspace(105, 700, 120)])
"""Distances at which a view computes bends and hills; values in between are interpolated."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: sizes in px, `focal` in px, `horizon` the row of infinity, `mount` its height in m."""

    width: int
    height: int
    focal: float
    horizon: float
    bonnet: float
    mount: float = 1.3


RECORDER = Camera(1920, 1080, focal=1420.8, horizon=488.16, bonnet=972.0)
"""The recorder's camera; its default region of interest holds the road from 4.5 m on."""


@dataclass(frozen=True)
class Waves:
    """A smooth profile along the road: a sum of sines given by its second derivative (1/m)."""

    amplitude: NDArray[np.float64]
    frequency: NDArray[np.float64]
    phase: NDArray[np.float64]

    @classmethod
    def random(cls, rng: np.random.Generator, radius_m: float) -> "Waves":
        """Three waves of 1.2 to 4 km length; together seldom tighter than `radius_m`."""
        share = rng.uniform(0.2, 0.5, 3)
        return cls(share / radius_m, 2 * np.pi / rng.uniform(1200, 4000, 3), rng.uniform(0, 2 * np.pi, 3))

    def slope(self, s: float) -> float:
        return float(np.sum(-self.amplitude / self.frequency * np.cos(self.frequency * s + self.phase)))

    def deviation(self, s: float, ahead: Points) -> Points:
        """How far the profile at `s + ahead` lies from its tangent at `s` (m)."""
        angle = self.frequency * s + self.phase
        scale = -self.amplitude / self.frequency**2
        there = np.sin(np.multiply.outer(ahead, self.frequency) + angle) @ scale
        return there - float(np.sin(angle) @ scale) - self.slope(s) * ahead


@dataclass(frozen=True)
class View:
    """The camera at road metre `s`. A point is (right of the camera, above the road, ahead), in metres."""

    camera: Camera
    s: float
    pitch_px: float
    across: Points
    up: Points

    @classmethod
    def at(cls, camera: Camera, bends: Waves, hills: Waves, s: float, pitch_px: float) -> "View":
        """The view from road metre `s`, its horizon moved down by `pitch_px`."""
        return cls(camera, s, pitch_px, bends.deviation(s, _GRID_M), hills.deviation(s, _GRID_M) - camera.mount)

    def bend(self, ahead: float) -> float:
        """How far right of the tangent the road lies `ahead` metres from here."""
        return float(np.interp(ahead, _GRID_M, self.across))

    def project(self, points: Points) -> Points:
        """(N,3) metres, all at least NEAR_M ahead -> (N,2) px, limited to the range that OpenCV can draw."""
        ahead = points[:, 2]
        scale = self.camera.focal / ahead
        pixels = np.empty((len(points), 2))
        pixels[:, 0] = self.camera.width / 2 + scale * (points[:, 0] + np.interp(ahead, _GRID_M, self.across))
        pixels[:, 1] = self.camera.horizon + self.pitch_px - scale * (points[:, 1] + np.interp(ahead, _GRID_M, self.up))
        return pixels.clip(-16_000, 16_000)

    def polygons(self, polygons: Sequence[Points]) -> list[Points]:
        """Project polygons of (N,3) metres, clipped in front of the camera; (0,2) if none of one lies ahead."""
        ahead = [_clip(points) if points[:, 2].min() < NEAR_M else points for points in polygons]
        pixels, ends = self.project(np.concatenate(ahead)), np.cumsum([len(points) for points in ahead]).tolist()
        return [pixels[start:end] for start, end in pairwise([0, *ends])]


def _clip(points: Points) -> Points:
    """The part of a polygon at least NEAR_M ahead (Sutherland-Hodgman against one plane)."""
    kept = []
    for point, following in zip(points, np.roll(points, -1, axis=0), strict=True):
        if point[2] >= NEAR_M:
            kept.append(point)
        if (point[2] >= NEAR_M) != (following[2] >= NEAR_M):
            share = (NEAR_M - point[2]) / (following[2] - point[2])
            kept.append(point + share * (following - point))
    return np.array(kept).reshape(-1, 3)
