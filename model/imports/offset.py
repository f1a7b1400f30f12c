"""The offset between a video's clock and a log's, from the picture's flow and the car's speed.

The picture flows faster the faster the car drives. The offset is the shift at which flow and speed correlate best. It
is trusted only if parts of the drive, each for itself, give the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.common.progress import Log
from model.imports.pictures import Video, decoded, open_video
from model.imports.signals import Signal

RATE_HZ = 10.0
"""Of the flow and of the speed that are compared."""
WIDTH = 160
"""Px of the pictures that the flow is computed of."""
FARTHEST_S = 60.0
"""The largest offset that is looked for."""
TREND_S = 20.0
"""Changes slower than this are not compared: light, traffic and road change the flow too."""
PARTS = 3
LONGEST_S = 1200.0
"""As much of the video is read."""
MOST_DOUBT_S = 0.25
LEAST_CORRELATION = 0.3


@dataclass(frozen=True)
class Offset:
    """To be added to the log's times."""

    seconds: float
    doubt_s: float
    """How far the parts of the drive disagree."""
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
    wanted = _without_trend(np.interp(grid, t, flow))
    wide = np.arange(grid[0] - FARTHEST_S, grid[-1] + FARTHEST_S + 0.5 / RATE_HZ, 1 / RATE_HZ)
    known = (wide >= speed.t[0]) & (wide <= speed.t[-1])
    values = np.where(known, _without_trend(np.interp(wide, speed.t, speed.values)), 0.0)
    seconds, correlation = _best(wanted, values)
    parts = [_best(part, values[at : at + len(part) + len(wide) - len(grid)]) for at, part in _parts(wanted)]
    doubt = max(abs(each - seconds) for each, _ in parts)
    log(f"Offset between video and log: {seconds:+.2f} s, correlation {correlation:.2f}, parts within {doubt:.2f} s")
    if doubt > MOST_DOUBT_S or correlation < LEAST_CORRELATION:
        given = ", ".join(f"{each:+.2f}" for each, _ in parts)
        raise DataError(
            f"The offset between video and log cannot be estimated: the parts of the drive give {given} s, correlation "
            f"{correlation:.2f}. Compare a stop in both, and set offset_s."
        )
    return Offset(round(seconds, 2), round(doubt, 2), round(correlation, 2))


def _parts(wanted: npt.NDArray[np.float64]) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    for part in np.array_split(np.arange(len(wanted)), PARTS):
        yield int(part[0]), wanted[part]


def _best(wanted: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Seconds to add to the log's times, and the correlation there. `values` reach FARTHEST_S further on both sides."""
    from numpy.lib.stride_tricks import sliding_window_view

    windows = sliding_window_view(values, len(wanted))
    norms = np.sqrt((windows**2).sum(1)) * np.sqrt((wanted**2).sum())
    correlations = (windows @ wanted) / np.maximum(norms, 1e-9)
    peak = int(correlations.argmax())
    shift = float(peak)
    if 0 < peak < len(correlations) - 1:
        left, middle, right = correlations[peak - 1 : peak + 2]
        bend = left - 2 * middle + right
        shift += 0.0 if bend == 0 else 0.5 * (left - right) / bend
    return FARTHEST_S - shift / RATE_HZ, float(correlations[peak])


def _without_trend(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Smoothed over half a second, less the mean of the seconds around."""
    smooth = np.convolve(values, np.ones(5) / 5, "same")
    width = min(int(TREND_S * RATE_HZ) | 1, len(values) | 1)
    kernel = np.ones(width)
    weight = np.convolve(np.ones(len(values)), kernel, "same")[: len(values)]
    return np.asarray(smooth - np.convolve(smooth, kernel, "same")[: len(values)] / weight)


def _flow(videos: Sequence[tuple[Video, float]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times (N,) and the median flow (N,) between pictures, px a second."""
    import cv2

    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    times, flows = [], []
    before: tuple[float, Any] | None = None
    first = videos[0][1]
    for t, picture in _grey(videos):
        if t - first > LONGEST_S:
            break
        if before is not None and t - before[0] < 3 / RATE_HZ:
            flow = flow_of.calc(before[1], picture, None)
            times.append((t + before[0]) / 2)
            flows.append(float(np.median(np.linalg.norm(flow, axis=2))) / (t - before[0]))
        before = (t, picture)
    if len(times) < PARTS * RATE_HZ * 10:
        raise DataError(f"The video is too short to estimate the offset ({len(times) / RATE_HZ:.0f} s): set offset_s.")
    return np.array(times), np.log1p(flows)


def _grey(videos: Sequence[tuple[Video, float]]) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Small grey pictures at about RATE_HZ, without the lowest fifth, where the bonnet is."""
    for video, start in videos:
        last = -np.inf
        with open_video(video.path) as container:
            for t, frame in decoded(container, start):
                if t - last >= 0.9 / RATE_HZ:
                    last = t
                    height = max(2, round(frame.height * WIDTH / frame.width))
                    grey = frame.reformat(width=WIDTH, height=height, format="gray").to_ndarray()
                    yield t, np.ascontiguousarray(grey[: round(height * 0.8)])
