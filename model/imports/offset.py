"""The offset between a video's clock and a log's, from the picture's flow and the car's speed.

A point of the road `r` rows below the horizon is at a distance proportional to 1 / r, and the speed is proportional to
the rate at which 1 / r falls. The offset is the shift at which that rate and the speed correlate best, on average over
parts of the drive. It is trusted only if most parts give about the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.common.progress import Log
from model.imports.pictures import Video, decoded, open_video
from model.imports.signals import Signal

Picture = npt.NDArray[np.uint8]
RATE_HZ = 10.0
"""Of the two speeds that are compared."""
WIDTH = 320
"""Px of the pictures in which points are followed."""
HORIZON, ROAD = 0.48, (0.56, 0.85)
"""Shares of the picture's height: a dash camera's usual horizon, and the rows of the road that is followed."""
POINTS, LEAST_POINTS = 200, 6
MOST_LOST_PX = 0.5
"""A point followed to the next picture and back returns to where it was, at most this far off."""
LEAST_MOVED_PX = 0.2
"""What moves down less is another vehicle, or the car itself stands."""
LONGEST_STEP_S = 0.15
"""Between two pictures in which points are followed."""
FARTHEST_S = 60.0
"""The largest offset that is looked for."""
PARTS = 5
LEAST_S, LONGEST_S = 60.0, 600.0
"""As much of the video is needed, and read."""
MOST_DOUBT_S = 0.5
"""Most parts of the drive may disagree by this; the whole is about twice as sure as a part."""
LEAST_CORRELATION = 0.7


@dataclass(frozen=True)
class Offset:
    """To be added to the log's times."""

    seconds: float
    doubt_s: float
    """How far most parts of the drive disagree with it, at most."""
    correlation: float


def estimate_offset(videos: Sequence[tuple[Video, float]], speed: Signal, log: Log) -> Offset:
    """The offset of the log of `speed` against the videos with their starts.

    Raises:
        DataError: the drive does not tell, as one at even speed.
    """
    if not videos:
        raise DataError("offset_s: estimate needs a video; give seconds for pictures.")
    t, flow = _flow(videos)
    return offset_of(t, flow, speed, log)


def offset_of(t: npt.NDArray[np.float64], flow: npt.NDArray[np.float64], speed: Signal, log: Log) -> Offset:
    """As `estimate_offset`, from the flow (N,) at times t (N,), rising."""
    grid = np.arange(t[0], t[-1], 1 / RATE_HZ)
    reach = round(FARTHEST_S * RATE_HZ)
    wide = grid[0] + np.arange(-reach, len(grid) + reach) / RATE_HZ
    values = _smooth(np.interp(wide, speed.t, speed.values), RATE_HZ)
    curves = []
    for part in np.array_split(np.arange(len(grid)), PARTS):
        around = values[part[0] : part[-1] + 1 + 2 * reach]
        curves.append(_correlations(np.interp(grid[part], t, flow), around))
    mean = np.mean(curves, axis=0)
    seconds, correlation = _peak(mean), float(mean.max())
    parts = [_peak(curve) for curve in curves]
    doubt = float(np.median([abs(part - seconds) for part in parts]))
    log(f"Video and log are {seconds:+.2f} s apart: correlation {correlation:.2f}, most parts within {doubt:.2f} s")
    if doubt > MOST_DOUBT_S or correlation < LEAST_CORRELATION:
        given = ", ".join(f"{part:+.2f}" for part in parts)
        raise DataError(
            f"The offset between video and log cannot be estimated: the parts of the drive give {given} s, correlation "
            f"{correlation:.2f}. Compare a stop in both, and set offset_s."
        )
    return Offset(round(seconds, 2), round(doubt, 2), round(correlation, 2))


def _correlations(wanted: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pearson's correlation of (N,) with each stretch of that length in the longer array."""
    windows = np.lib.stride_tricks.sliding_window_view(values, len(wanted))
    wanted = wanted - wanted.mean()
    spread = windows.std(axis=1) * np.sqrt(len(wanted) * (wanted**2).sum())
    return np.asarray(windows @ wanted / np.maximum(spread, 1e-9))


def _peak(correlations: npt.NDArray[np.float64]) -> float:
    """Seconds to add to the log's times, between the steps by a parabola."""
    peak = int(correlations.argmax())
    shift = float(peak)
    if 0 < peak < len(correlations) - 1:
        left, middle, right = correlations[peak - 1 : peak + 2]
        bend = left - 2 * middle + right
        shift += 0.0 if bend == 0 else 0.5 * (left - right) / bend
    return FARTHEST_S - shift / RATE_HZ


def _flow(videos: Sequence[tuple[Video, float]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times (N,) and how fast the road approaches there (N,), in a unit of the camera's."""
    times, speeds = [], []
    for (t, picture), (after, following) in _pairs(videos):
        if t - videos[0][1] > LONGEST_S:
            break
        if (speed := _approach(picture, following)) is not None:
            times.append((t + after) / 2)
            speeds.append(speed / (after - t))
    if len(times) < 2 or times[-1] - times[0] < LEAST_S:
        raise DataError(f"The video shows less than {LEAST_S:.0f} s of a road to estimate the offset: set offset_s.")
    return np.array(times), _smooth(np.array(speeds), 1 / float(np.median(np.diff(times))))


def _smooth(values: npt.NDArray[np.float64], rate_hz: float) -> npt.NDArray[np.float64]:
    """Running median over about a second."""
    half = max(1, round(rate_hz / 2))
    padded = np.pad(values, half, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1))


def _approach(picture: Picture, following: Picture) -> float | None:
    """How much 1 / r of the road's points falls; None if too few can be followed."""
    import cv2

    height = len(picture)
    first, last = (round(height * share) for share in ROAD)
    road = np.zeros_like(picture)
    road[first:last] = 1
    points = cv2.goodFeaturesToTrack(picture, POINTS, 0.005, 3, mask=road)
    if points is None:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(picture, following, points, None, winSize=(9, 9))
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(following, picture, moved, None, winSize=(9, 9))
    kept = ((found & found_back)[:, 0] > 0) & (np.abs(back - points).max((1, 2)) < MOST_LOST_PX)
    if kept.sum() < LEAST_POINTS:
        return None
    rows, rows_after = points[kept, 0, 1] - HORIZON * height, moved[kept, 0, 1] - HORIZON * height
    approaching = rows_after - rows > LEAST_MOVED_PX
    if approaching.sum() < LEAST_POINTS:
        return 0.0
    return float(np.median(1 / rows[approaching] - 1 / rows_after[approaching]))


def _pairs(videos: Sequence[tuple[Video, float]]) -> Iterator[tuple[tuple[float, Picture], tuple[float, Picture]]]:
    """Small grey pictures that follow each other, with their times."""
    for video, start in videos:
        with open_video(video.path) as container:
            for before, after in pairwise((t, _grey(frame)) for t, frame in decoded(container, start)):
                if 0 < after[0] - before[0] <= LONGEST_STEP_S:
                    yield before, after


def _grey(frame: Any) -> Picture:
    height = max(2, round(frame.height * WIDTH / frame.width))
    return np.ascontiguousarray(frame.reformat(width=WIDTH, height=height, format="gray").to_ndarray())
