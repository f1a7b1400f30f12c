"""Whether a bundle gives on this machine what torch gave where it was made: on the golden drive."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from .anticipation import Anticipation, Outcome
from .bundle import GOLDEN, Bundle, Network
from .detector import Detector
from .errors import BundleError
from .sources import frames_of, recorded_lines
from .telemetry import TELEMETRY, Reader, Row, region_of


@dataclass(frozen=True)
class Parity:
    """Largest differences from torch on the golden drive, and medians of the processor's time."""

    windows: int
    network: float
    """Of a probability, with the boxes that torch gives"""
    whole: float
    """Of a probability, with the boxes of this bundle"""
    box_px: float
    confidence: float
    alarms: int
    network_ms: float
    detector_ms: float

    def problems(self, limits: Mapping[str, float]) -> list[str]:
        measured = self.to_dict()
        return [
            f"{name} differs by {measured[name]:.1e}, more than {limit:g}"
            for name, limit in limits.items()
            if not measured[name] <= limit
        ]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def replayed(bundle: Bundle) -> Iterator[tuple[Outcome, float]]:
    """The golden drive through the whole runtime, with the processor's time of each frame, ms."""
    folder = bundle.folder / GOLDEN
    anticipation = Anticipation(bundle, Detector(bundle, region_of(folder)))
    frames = frames_of(folder)
    for row in golden_rows(bundle):
        picture, started = frames(row.time), time.process_time()
        outcome = anticipation(row, picture.content if picture else None)
        yield outcome, (time.process_time() - started) * 1000


def golden_rows(bundle: Bundle) -> list[Row]:
    header, *lines = recorded_lines(bundle.folder / GOLDEN / TELEMETRY)
    reader = Reader(bundle, header)
    return [row for line in lines if (row := reader(line)) is not None]


def check(bundle: Bundle) -> Parity:
    """Raises BundleError if other boxes or alarms come out than expected; differences are measured."""
    expected = bundle.expected()
    boxes = {time: np.array(found, np.float32).reshape(-1, 7) for time, found in expected["boxes"].items()}
    rows, network, names = golden_rows(bundle), Network(bundle), [task.name for task in bundle.tasks]
    places = {row.time: place for place, row in enumerate(rows)}
    differences, network_ms = [], []
    for moment, probabilities in expected["probabilities"].items():
        window = rows[places[moment] + 1 - bundle.length : places[moment] + 1]
        started = time.process_time()
        result = network(np.stack([row.values for row in window]), [boxes[row.time] for row in window])
        network_ms.append((time.process_time() - started) * 1000)
        differences.append(float(np.abs(result - np.array([probabilities[name] for name in names])).max()))
    outcomes, frame_ms = zip(*replayed(bundle), strict=True)
    own = {outcome.row.time: outcome for outcome in outcomes if outcome.boxes is not None}
    if missing := sorted(boxes.keys() - own.keys()):
        raise BundleError(f"The frame {missing[0]} of the golden drive cannot be used here: copy the bundle again.")
    pairs = [_paired(own[moment].boxes, found, bundle, moment) for moment, found in boxes.items()]
    if unseen := [moment for moment in expected["probabilities"] if not own[moment].probabilities]:
        raise BundleError(f"There is no window at {unseen[0]} of the golden drive, expected one: report this.")
    whole = [
        abs(own[moment].probabilities[name] - value)
        for moment, tasks in expected["probabilities"].items()
        for name, value in tasks.items()
    ]
    alarms = [[outcome.row.time, name] for outcome in outcomes for name in outcome.begins]
    if sorted(alarms) != sorted(expected["alarms"]):
        raise BundleError(
            f"The golden drive has the alarms {alarms}, expected {expected['alarms']}: do not use this bundle here."
        )
    return Parity(
        windows=len(differences),
        network=max(differences, default=0.0),
        whole=max(whole, default=0.0),
        box_px=max((px for px, _ in pairs), default=0.0),
        confidence=max((confidence for _, confidence in pairs), default=0.0),
        alarms=len(alarms),
        network_ms=median(network_ms),
        detector_ms=median(frame_ms) - median(network_ms),
    )


def _paired(
    own: npt.NDArray[np.float32] | None, expected: npt.NDArray[np.float32], bundle: Bundle, moment: str
) -> tuple[float, float]:
    """Largest difference of an edge and of a confidence; boxes whose confidence is at the threshold may be missing."""
    assert own is not None
    least = min(bundle.detector["thresholds"]) + bundle.limits["confidence"]
    clear = expected[expected[:, 1] > least]
    if len(own) < len(clear):
        raise BundleError(
            f"The frame {moment} has {len(own)} boxes here, expected {len(expected)}: do not use this bundle here."
        )
    if not len(clear):
        return 0.0, 0.0
    edges = np.abs(own[:, None, 2:6] - clear[None, :, 2:6]).max(-1)
    nearest = edges.argmin(0)
    return float(edges.min(0).max()), float(np.abs(own[nearest, 1] - clear[:, 1]).max())
