"""The recorder: rows of telemetry.csv, and the recorder's faults."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from drive_assets.simulation.config import SAMPLE_INTERVAL_S, STEP_S
from drive_assets.simulation.driver import Controls

RECORDED_COLUMNS = (
    "Time", "SPEED", "RPM", "ACCELERATOR_POS_D", "ENGINE_LOAD", "BRAKE_SIGNAL", "GEAR", "BRAKE_FORCE", "PRE_BRAKING",
    "WHILE_BRAKING",
)  # fmt: skip
FAULTS = {
    "incomplete_row": 0.30, "no_frame_row": 0.16, "gap": 0.03, "repeated_time": 0.13, "missing_frame": 0.13,
    "frame_without_row": 0.08, "empty_gear": 0.10, "truncated_frame": 0.07,
}  # fmt: skip
"""Share of each kind among the faults. A gap loses seconds of rows and is therefore rare."""
_FAILED = {"incomplete_row": "Incomplete Data", "no_frame_row": "No Frame"}


@dataclass(frozen=True)
class Sample:
    """Row and frame of simulation step `step`: the row's cells and the frame's time; None if missing."""

    step: int
    cells: tuple[str, ...] | None
    frame: str | None
    truncated: bool = False


def to_csv(samples: Sequence[Sample]) -> str:
    """The content of telemetry.csv."""
    rows = [RECORDED_COLUMNS, *(sample.cells for sample in samples if sample.cells is not None)]
    return "".join(",".join(cells) + "\n" for cells in rows)


def record(
    start: datetime, steps: Sequence[int], controls: Controls, fault_rate: float, rng: np.random.Generator
) -> list[Sample]:
    """Record the `steps` of a drive that began at `start`, with faults in about `fault_rate` of the rows."""
    samples, lost_until = list[Sample](), -1
    for step in steps:
        sample = _sample(start, step, controls)
        if step < lost_until:
            continue
        if samples and rng.random() < fault_rate:
            kind = str(rng.choice(list(FAULTS), p=list(FAULTS.values())))
            if kind == "gap":
                lost_until = step + round(float(rng.uniform(2, 12)) / STEP_S)
                continue
            if kind == "repeated_time":
                samples.append(replace(sample, frame=None))
            sample = _with_fault(sample, kind, bool(rng.random() < 0.5))
        samples.append(sample)
    return samples


def sample_steps(duration_s: float, rng: np.random.Generator) -> list[int]:
    """Simulation steps at which the recorder samples: every half second, sometimes a tenth early or late."""
    count = round(duration_s / SAMPLE_INTERVAL_S)
    shift = rng.choice((-1, 0, 1), size=count, p=(0.03, 0.94, 0.03))
    shift[0] = 0
    # Neighbours never move apart by more than one tenth: windows accept steps of up to 0.6 s.
    shift[1:][np.abs(np.diff(shift)) > 1] = 0
    return (np.arange(count) * round(SAMPLE_INTERVAL_S / STEP_S) + shift).tolist()


def format_time(start: datetime, step: int) -> str:
    """A row's `Time`: `YYYY-MM-DD HH-MM-SS-d`, d in tenths of a second."""
    moment = start + timedelta(milliseconds=round(step * STEP_S * 1000))
    return f"{moment:%Y-%m-%d %H-%M-%S}-{moment.microsecond // 100_000}"


def _sample(start: datetime, step: int, controls: Controls) -> Sample:
    time = format_time(start, step)
    numbers = [f"{values[step]:.2f}" for values in (controls.rpm, controls.pedal, controls.load)]
    pedals = (str(bool(controls.brake[step])), str(controls.gear[step]), f"{controls.brake_force[step]:.4f}")
    return Sample(step, (time, str(controls.speed_kmh[step]), *numbers, *pedals, "[]", "[]"), time)


def _with_fault(sample: Sample, kind: str, keep_frame: bool) -> Sample:
    assert sample.cells is not None
    match kind:
        case "incomplete_row" | "no_frame_row":
            cells = (_FAILED[kind], *["No Data"] * (len(RECORDED_COLUMNS) - 1))
            return replace(sample, cells=cells, frame=sample.frame if keep_frame and kind == "incomplete_row" else None)
        case "missing_frame":
            return replace(sample, frame=None)
        case "frame_without_row":
            return replace(sample, cells=None)
        case "empty_gear":
            gear = RECORDED_COLUMNS.index("GEAR")
            return replace(sample, cells=(*sample.cells[:gear], "", *sample.cells[gear + 1 :]))
        case "truncated_frame":
            return replace(sample, truncated=True)
    return sample
