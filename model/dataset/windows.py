"""Windows of consecutive frames: a recording's telemetry, annotations and labels, joined by time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from model.common.config import Config
from model.common.errors import DataError
from model.recording.annotations import Annotations
from model.recording.content import check_annotated
from model.recording.folder import EXAMPLES, Recording
from model.recording.labels import (
    LabelConfig,
    brake_source,
    contradictions,
    current_state,
    future_labels,
    not_driven,
)
from model.recording.schema import (
    BINARY_LABELS,
    BOX_VALUES,
    BRAKE,
    CHANNELS,
    INPUTS,
    PEDAL,
    PRESSED,
    SLOW_LABELS,
    TARGETS,
    TASKS,
    WINDOW_FRAMES,
    check_inputs,
)
from model.recording.times import MAX_STEP_MS, SLOT, separated_times


class WindowConfig(Config):
    """Which runs of frames are windows."""

    length: int = Field(WINDOW_FRAMES, ge=1, description="Frames a window; at 2 Hz 20 are 10 s")
    stride: int = Field(5, ge=1, description="Frames from one window's start to the next; 1 for the final training")
    max_gap_ms: int = Field(MAX_STEP_MS, ge=1, description="Largest step between consecutive frames, ms")
    max_detections: int = Field(12, ge=1, description="Largest number of detections of a frame, the most confident")
    required_labels: list[str] = Field(
        list(BINARY_LABELS),
        description="Labels that must be known for a window to be used, of those that the recording's channels give",
    )
    inputs: list[str] = Field(
        [],
        description="Telemetry channels that the networks see; empty: all that the recordings have, which must be the "
        "same in each",
    )

    @model_validator(mode="after")
    def _names(self) -> Self:
        if unknown := set(self.required_labels) - set(TASKS):
            raise DataError(f"required_labels {', '.join(sorted(unknown))}: expected some of {', '.join(TASKS)}.")
        check_inputs(self.inputs, "inputs")
        return self


@dataclass(frozen=True, kw_only=True)
class Frames:
    """F frames, and W windows of consecutive ones."""

    telemetry: npt.NDArray[np.float32]
    """(F,C) raw units"""
    detections: npt.NDArray[np.float32]
    """(F,12,7) in the order of BOX_VALUES, px of the region of interest; zero where absent"""
    detection_mask: npt.NDArray[np.bool_]
    """(F,12)"""
    labels: npt.NDArray[np.int8]
    """(F,15) in the order of TASKS: 1, 0, -1 unknown"""
    targets: npt.NDArray[np.float32]
    """(F,10) in the order of TARGETS, NaN unknown"""
    state: npt.NDArray[np.int8]
    """(F,3) in the order of STATES: what the driver and the car do at the frame itself: 1, 0, -1 unknown"""
    time_ms: npt.NDArray[np.int64]
    """(F,) rising within a recording, also where its clock was set back (`separated_times`)"""
    clock_ms: npt.NDArray[np.int64]
    """(F,) as the recorder's clock has it"""
    window_start: npt.NDArray[np.int32]
    """(W,) first frame of each window"""


class Traits(NamedTuple):
    """What the recordings of a data set must have in common."""

    inputs: tuple[str, ...]
    """Names of the C telemetry channels"""
    class_names: tuple[str, ...]
    """Of the detector that annotated it"""
    coast_threshold: float
    """Accelerator position (%) below which the labels, and `Frames.state`, say that the car coasts"""
    slow_threshold: float
    """Deceleration (m/s2) from which they say that it slows"""
    drivetrain: str
    """As declared or imported; empty if neither"""
    brake: str
    """As `brake_source`"""


@dataclass(frozen=True, kw_only=True)
class RecordingArrays(Frames):
    """The frames of a recording that have telemetry, annotations and labels."""

    traits: Traits
    region: tuple[int, int]
    """Width and height of the region of interest that the boxes are in the pixels of"""


def join_recording(
    own: Recording,
    config: WindowConfig,
    telemetry: pd.DataFrame | None = None,
    label_config: LabelConfig | None = None,
) -> RecordingArrays:
    """Join a recording's telemetry, annotations and labels by time and find its windows.

    A frame that was not annotated ("not looked") is left out, so that no window runs over it. None ends where
    `not_driven` says that the driver does not drive.

    Args:
        telemetry: the recording's, with its drivetrain, if it was read already.
        label_config: derive the labels with it, of a recording that need not be labelled.

    Raises:
        DataError: one of the three files is missing or wrong, labels are older than the telemetry, or a channel that
            `config` names is not there.
    """
    if telemetry is None:
        telemetry, _ = own.telemetry()
    annotations = own.annotations()
    if label_config is None:
        labels, label_config = own.labels(), own.label_config()
        for label, text in contradictions(telemetry, labels, label_config).items():
            raise DataError(f"{own.labels_path}, {label}: {text}: label the recording again.")
    else:
        labels = future_labels(telemetry, label_config)
    check_annotated(own)
    inputs = _inputs(own, telemetry, config)
    annotated = pd.Index(annotations.time).get_indexer(pd.Index(telemetry["Time"]))
    rows, frames = np.flatnonzero(annotated >= 0), annotated[annotated >= 0]
    detections, mask = _pad(annotations, frames, config.max_detections)
    slots = separated_times(telemetry, SLOT)[rows]  # no window over a step back in time
    slow = future_labels(telemetry, label_config)[list(SLOW_LABELS)]  # not in the files of home-made recordings
    known = labels[list(BINARY_LABELS)].join(slow).iloc[rows]
    label_values = np.column_stack([known[name].to_numpy(np.int8, na_value=-1) for name in TASKS])
    driven = ~np.any(list(not_driven(telemetry, label_config.coast_threshold).values()), axis=0)
    required = [TASKS.index(name) for name in config.required_labels if _is_given(name, telemetry)]
    thresholds = label_config.coast_threshold, label_config.slow_threshold
    return RecordingArrays(
        traits=Traits(inputs, own.class_names(), *thresholds, own.drivetrain, brake_source(telemetry)),
        region=own.annotated_region()[2:],
        telemetry=telemetry[list(inputs)].to_numpy(np.float32)[rows],
        detections=detections,
        detection_mask=mask,
        labels=label_values,
        targets=labels[list(TARGETS)].to_numpy(np.float32)[rows],
        state=current_state(telemetry, label_config)[rows],
        time_ms=separated_times(telemetry)[rows],
        clock_ms=telemetry["t"].to_numpy()[rows],
        window_start=window_starts(slots, driven[rows] & np.all(label_values[:, required] >= 0, axis=1), config),
    )


def window_starts(
    time_ms: npt.NDArray[np.int64], labelled: npt.NDArray[np.bool_], config: WindowConfig
) -> npt.NDArray[np.int32]:
    """First rows of the windows of one recording, of rising times.

    Frames (F,) fall into segments wherever a step exceeds `max_gap_ms`; in each segment a window starts every `stride`
    frames as long as it fits. Of these, windows whose last frame is not `labelled` (F,) are left out.
    """
    if len(time_ms) == 0:
        return np.empty(0, np.int32)
    begins = np.concatenate([[0], np.flatnonzero(np.diff(time_ms) > config.max_gap_ms) + 1])
    ends = np.append(begins[1:], len(time_ms))
    lengths = ends - begins
    row = np.arange(len(time_ms))
    within, end = row - np.repeat(begins, lengths), np.repeat(ends, lengths)
    starts = row[(within % config.stride == 0) & (row + config.length <= end)]
    return starts[labelled[starts + config.length - 1]].astype(np.int32)


def common_traits(traits: Mapping[str, Traits]) -> Traits:
    """The traits that all recordings, by name, have. DataError if they differ."""
    shared = [name for name in INPUTS if all(name in each.inputs for each in traits.values())]
    fields = {
        "inputs": (
            "telemetry channels",
            f"leave some out, or set the option inputs of window, for example to {shared}, to use the same in all",
        ),
        "class_names": ("classes of detections", "annotate all with one detector"),
        "coast_threshold": ("coasting thresholds", "label all with the same coast_threshold"),
        "slow_threshold": ("thresholds of slow_{h}s", "label all with the same slow_threshold"),
    }
    for field, (what, advice) in fields.items():
        names: dict[str, list[str]] = {}
        for name, each in traits.items():
            value = getattr(each, field)
            names.setdefault(", ".join(value) if isinstance(value, tuple) else str(value), []).append(name)
        if len(names) > 1:
            differing = "; ".join(f"{text}: {', '.join(having[:EXAMPLES])}" for text, having in names.items())
            raise DataError(f"Recordings have different {what} ({differing}): {advice}.")
    return next(iter(traits.values()))


def _inputs(recording: Recording, telemetry: pd.DataFrame, config: WindowConfig) -> tuple[str, ...]:
    """The channels of a recording that the networks see, in the schema's order."""
    missing = [name for name in config.inputs if name not in telemetry]
    if missing:
        raise DataError(
            f"{recording.telemetry_path} has no column {', '.join(missing)}, which the option inputs names."
        )
    if config.inputs:
        return tuple(name for name in INPUTS if name in config.inputs)
    return tuple(name for name in INPUTS if name in telemetry and CHANNELS[name].stands_for not in telemetry)


def _is_given(label: str, telemetry: pd.DataFrame) -> bool:
    """Whether a recording's channels give a label, other than in rows beyond doubt."""
    channels = {"brake": {BRAKE}, "coast": {PEDAL, PRESSED}, "slow": {"SPEED"}}
    return bool(channels[label.split("_")[0]] & {*telemetry})


def _pad(
    annotations: Annotations, frames: npt.NDArray[np.int64], most: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The first `most` detections of each of `frames` as (F,most,7), and which of them are real (F,most)."""
    columns = (annotations.class_id, annotations.confidence, annotations.box, annotations.area)
    slot = np.arange(most)
    mask = slot < annotations.count[frames][:, None]
    padded = np.zeros((len(frames), most, len(BOX_VALUES)), np.float32)
    padded[mask] = np.column_stack(columns)[(annotations.offsets[frames][:, None] + slot)[mask]]
    return padded, mask
