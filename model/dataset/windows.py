"""Windows of consecutive frames, and the H5 file that holds a split's frames once and its windows as start rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.config import from_dict, option, to_dict
from model.common.errors import DataError
from model.common.files import atomic_path
from model.recording.annotations import CROP_HEIGHT, CROP_WIDTH, class_names, read_annotations
from model.recording.folder import TELEMETRY
from model.recording.labels import ACTIONS, BINARY_LABELS, TARGETS, current_state, read_future_labels
from model.recording.telemetry import FEATURES, MAX_STEP_MS, read_telemetry

SCHEMA_VERSION = 2
BOX_VALUES = ("class_id", "confidence", "x1", "y1", "x2", "y2", "area")


@dataclass(frozen=True)
class WindowConfig:
    """Which runs of frames are windows."""

    length: int = option(20, "Frames a window; at 2 Hz 20 are 10 s")
    stride: int = option(5, "Frames from one window's start to the next; 1 for the final training")
    max_gap_ms: int = option(MAX_STEP_MS, "Largest step between consecutive frames, ms")
    max_detections: int = option(12, "Detections kept a frame, the most confident")
    required_labels: tuple[str, ...] = option(BINARY_LABELS, "Labels that must be known for a window to be used")

    def __post_init__(self) -> None:
        for name in ("length", "stride", "max_gap_ms", "max_detections"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} {getattr(self, name)}: expected at least 1.")
        unknown = set(self.required_labels) - set(BINARY_LABELS)
        if unknown:
            raise DataError(
                f"required_labels {', '.join(sorted(unknown))}: expected some of {', '.join(BINARY_LABELS)}."
            )


@dataclass(frozen=True)
class RecordingArrays:
    """The F frames of a recording that were recorded, annotated and labelled, and its windows."""

    telemetry: npt.NDArray[np.float32]
    """(F,5) raw units, in the order of FEATURES"""
    detections: npt.NDArray[np.float32]
    """(F,12,7) in the order of BOX_VALUES, px of the region of interest; zero where absent"""
    detection_mask: npt.NDArray[np.bool_]
    """(F,12)"""
    labels: npt.NDArray[np.int8]
    """(F,10) in the order of BINARY_LABELS: 1, 0, -1 unknown"""
    targets: npt.NDArray[np.float32]
    """(F,10) in the order of TARGETS, NaN unknown"""
    state: npt.NDArray[np.int8]
    """(F,2) in the order of ACTIONS: whether the driver brakes and coasts at the frame itself"""
    time_ms: npt.NDArray[np.int64]
    """(F,)"""
    window_start: npt.NDArray[np.int32]
    """(W,) first frame of each window"""

    def window_labels(self, length: int) -> npt.NDArray[np.int8]:
        """(W,10) labels of the windows: those of their last frames."""
        return self.labels[self.window_start + length - 1]


@dataclass(frozen=True)
class Split:
    """A split file in memory: the arrays of `RecordingArrays` of all its recordings, one after the other."""

    telemetry: npt.NDArray[np.float32]
    detections: npt.NDArray[np.float32]
    detection_mask: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int8]
    targets: npt.NDArray[np.float32]
    state: npt.NDArray[np.int8]
    time_ms: npt.NDArray[np.int64]
    recording: npt.NDArray[np.int16]
    """(F,) index into `recordings`"""
    window_start: npt.NDArray[np.int32]
    recordings: tuple[str, ...]
    feature_names: tuple[str, ...]
    label_names: tuple[str, ...]
    class_names: tuple[str, ...]
    window: WindowConfig
    crop_width: int
    crop_height: int
    fingerprint: str
    """Of the manifest that the file was made from."""


@dataclass(frozen=True)
class SplitReport:
    """What a split file holds."""

    recordings: int
    frames: int
    windows: int
    positives: dict[str, int]
    bytes: int


def build_recording(recording: Path, config: WindowConfig) -> RecordingArrays:
    """Join a recording's telemetry, annotations and labels by time and find its windows.

    A frame that was not annotated ("not looked") is left out, so that no window runs over it.

    Raises:
        DataError: one of the three files is missing or wrong, or labels are older than the telemetry.
    """
    telemetry, _ = read_telemetry(recording / TELEMETRY)
    annotations = read_annotations(recording / "annotations.csv")
    labels = read_future_labels(recording / "future_labels.csv")
    if not labels["Time"].equals(telemetry["Time"].astype(labels["Time"].dtype)):
        raise DataError(f"{recording / 'future_labels.csv'} does not fit {TELEMETRY}: label the recording again.")
    annotated = pd.Index(annotations.time).get_indexer(pd.Index(telemetry["Time"]))
    rows, frames = np.flatnonzero(annotated >= 0), annotated[annotated >= 0]
    detections, mask = _pad(annotations.offsets, _box_values(annotations), frames, config.max_detections)
    time_ms = telemetry["t"].to_numpy()[rows]
    known = labels[list(BINARY_LABELS)].iloc[rows]
    label_values = np.column_stack([known[name].to_numpy(np.int8, na_value=-1) for name in BINARY_LABELS])
    required = [BINARY_LABELS.index(name) for name in config.required_labels]
    return RecordingArrays(
        telemetry=telemetry[list(FEATURES)].to_numpy(np.float32)[rows],
        detections=detections,
        detection_mask=mask,
        labels=label_values,
        targets=labels[list(TARGETS)].to_numpy(np.float32)[rows],
        state=current_state(telemetry, labels)[rows],
        time_ms=time_ms,
        window_start=window_starts(time_ms, np.all(label_values[:, required] >= 0, axis=1), config),
    )


def window_starts(
    time_ms: npt.NDArray[np.int64], labelled: npt.NDArray[np.bool_], config: WindowConfig
) -> npt.NDArray[np.int32]:
    """First rows of the windows of one recording.

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


def write_split(path: Path, recordings: Sequence[Path], config: WindowConfig, fingerprint: str = "") -> SplitReport:
    """Write the split of `recordings`, folders in their final order, to an H5 file, atomically.

    Raises:
        DataError: as `build_recording`, or detectors of different classes annotated the recordings.
    """
    if not recordings:
        raise DataError(f"{path}: expected at least one recording.")
    classes = common_classes(recordings)
    parts = [build_recording(recording, config) for recording in recordings]
    sizes = [len(part.time_ms) for part in parts]
    first = np.concatenate([[0], np.cumsum(sizes)])
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("telemetry", "detections", "detection_mask", "labels", "targets", "state", "time_ms")
    }
    arrays["recording"] = np.repeat(np.arange(len(parts), dtype=np.int16), sizes)
    starts = [part.window_start + offset for part, offset in zip(parts, first[:-1], strict=True)]
    arrays["window_start"] = np.concatenate(starts).astype(np.int32)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip", compression_opts=1, shuffle=True)
        file.attrs.update(
            schema_version=SCHEMA_VERSION,
            fingerprint=fingerprint,
            recordings=json.dumps([recording.name for recording in recordings]),
            features=json.dumps(FEATURES),
            labels=json.dumps(BINARY_LABELS),
            actions=json.dumps(ACTIONS),
            window=json.dumps(to_dict(config)),
            crop_width=CROP_WIDTH,
            crop_height=CROP_HEIGHT,
            class_names=json.dumps(classes),
        )
    labels = arrays["labels"][arrays["window_start"] + config.length - 1]
    return SplitReport(
        recordings=len(recordings),
        frames=int(first[-1]),
        windows=len(labels),
        positives=dict(zip(BINARY_LABELS, (labels == 1).sum(axis=0).tolist(), strict=True)),
        bytes=path.stat().st_size,
    )


def read_split(path: Path) -> Split:
    """Read a split file.

    Raises:
        DataError: missing, no H5 file, or of another schema.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: build the splits first.")
    try:
        with h5py.File(path) as file:
            attributes: dict[str, Any] = dict(file.attrs)
            if attributes.get("schema_version") != SCHEMA_VERSION:
                raise DataError(
                    f"{path} has schema {attributes.get('schema_version')}: expected {SCHEMA_VERSION}; "
                    "build the splits again."
                )
            arrays = {name: values[()] for name, values in file.items()}
    except OSError as error:
        raise DataError(f"{path} cannot be read as an H5 file ({error}): build the splits again.") from error
    try:
        return Split(
            **arrays,
            recordings=tuple(json.loads(attributes["recordings"])),
            feature_names=tuple(json.loads(attributes["features"])),
            label_names=tuple(json.loads(attributes["labels"])),
            class_names=tuple(json.loads(attributes["class_names"])),
            window=from_dict(WindowConfig, json.loads(attributes["window"])),
            crop_width=int(attributes["crop_width"]),
            crop_height=int(attributes["crop_height"]),
            fingerprint=str(attributes.get("fingerprint", "")),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} lacks or has too much of {error}: build the splits again.") from error


def read_fingerprint(path: Path) -> str:
    """The fingerprint of the manifest that a split file was made from. DataError as `read_split`."""
    if not path.is_file():
        raise DataError(f"{path} is missing: build the splits first.")
    try:
        with h5py.File(path) as file:
            return str(file.attrs.get("fingerprint", ""))
    except OSError as error:
        raise DataError(f"{path} cannot be read as an H5 file ({error}): build the splits again.") from error


def common_classes(recordings: Sequence[Path]) -> tuple[str, ...]:
    """The class names that all recordings were annotated with. DataError if they differ."""
    found: dict[tuple[str, ...], str] = {}
    for recording in recordings:
        found.setdefault(class_names(recording), recording.name)
    if len(found) > 1:
        kinds = "; ".join(f"{name}: {', '.join(classes)}" for classes, name in found.items())
        raise DataError(f"Recordings were annotated with different classes ({kinds}): annotate all with one detector.")
    return next(iter(found))


def _box_values(annotations: Any) -> npt.NDArray[np.float32]:
    """(M,7) in the order of BOX_VALUES."""
    columns = (annotations.class_id, annotations.confidence, annotations.box, annotations.area)
    return np.column_stack(columns).astype(np.float32)


def _pad(
    offsets: npt.NDArray[np.int64], values: npt.NDArray[np.float32], frames: npt.NDArray[np.int64], most: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The first `most` detections of each of `frames` as (F,most,7), and which of them are real (F,most)."""
    count = np.diff(offsets)[frames]
    slot = np.arange(most)
    mask = slot < count[:, None]
    padded = np.zeros((len(frames), most, len(BOX_VALUES)), np.float32)
    padded[mask] = values[(offsets[frames][:, None] + slot)[mask]]
    return padded, mask
