"""The H5 file of a split: the frames of its recordings once, and its windows as start rows. Every bit is checked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from model.common.config import fingerprint as fingerprint_of
from model.common.errors import DataError
from model.common.files import atomic_path
from model.dataset.review import Review, Weights
from model.dataset.windows import Frames, RecordingArrays, WindowConfig, common_traits, join_recording
from model.recording.folder import Recording
from model.recording.schema import ACTIONS, BINARY_LABELS, SLOW_LABELS, check_schema, used_schema

SCHEMA_VERSION = 4
CHECKSUM = "checksum"
"""Attribute that covers the others; data sets (fletcher32) and the file's structure have checksums of their own."""
_PER_FRAME = ("telemetry", "detections", "detection_mask", "labels", "targets", "state", "time_ms", "clock_ms")
_DAMAGED = (OSError, RuntimeError, KeyError, TypeError, ValueError)
"""What h5py raises for files that are none, or damaged."""


@dataclass(frozen=True, kw_only=True)
class Split(Frames):
    """A split file in memory: the frames of its R recordings, one after the other."""

    recording: npt.NDArray[np.int16]
    """(F,) index into `recordings`"""
    region: npt.NDArray[np.int32]
    """(R,2) width and height of each recording's region of interest, px"""
    recordings: tuple[str, ...]
    feature_names: tuple[str, ...]
    label_names: tuple[str, ...]
    class_names: tuple[str, ...]
    coast_threshold: float
    """As in `Traits`"""
    window: WindowConfig
    fingerprint: str
    """Of the manifest that the file was made from."""
    window_weight: Weights | None = None
    """(W,) in the training loss, where a review weighs windows"""

    def channel(self, name: str) -> npt.NDArray[np.float32]:
        """(F,) raw values of a telemetry channel; NaN if it is no input of this split."""
        if name not in self.feature_names:
            return np.full(len(self.telemetry), np.nan, np.float32)
        return self.telemetry[:, self.feature_names.index(name)]


def write_split(
    path: Path, recordings: Sequence[Path], config: WindowConfig, fingerprint: str = "", review: Review | None = None
) -> None:
    """Write the split of `recordings`, folders in their final order. DataError as `join_recording`, `common_traits`.

    Args:
        review: whose windows are left out or weighed, by the rules for the split that the file is named after.
    """
    if not recordings:
        raise DataError(f"{path}: expected at least one recording.")
    parts = {recording.name: join_recording(Recording(recording), config) for recording in recordings}
    traits = common_traits({name: part.traits for name, part in parts.items()})
    attributes = {
        "split": path.stem,
        "fingerprint": fingerprint,
        "recordings": json.dumps(list(parts)),
        "features": json.dumps(traits.inputs),
        "schema": used_schema(traits.inputs)["fingerprint"],
        "labels": json.dumps(BINARY_LABELS),
        "actions": json.dumps(ACTIONS),
        "window": config.model_dump_json(),
        "class_names": json.dumps(traits.class_names),
        "coast_threshold": str(traits.coast_threshold),
        "slow_threshold": str(traits.slow_threshold),
    }
    weights = dict[str, Weights]()
    if review is not None:
        for name, part in parts.items():
            weights[name], _ = review.weights(name, path.stem, part, config.length)
            parts[name] = replace(part, window_start=part.window_start[weights[name] > 0])
    arrays = _joined(list(parts.values()))
    kept = np.concatenate([each[each > 0] for each in weights.values()]) if weights else np.empty(0)
    if (kept != 1).any():
        arrays["window_weight"] = kept
    with atomic_path(path) as temporary:
        write_arrays(temporary, arrays, attributes)


def _joined(parts: Sequence[RecordingArrays]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of recordings, one after the other, by their names in the file."""
    sizes = [len(part.time_ms) for part in parts]
    first = np.cumsum([0, *sizes[:-1]])
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_FRAME}
    labels, state = len(BINARY_LABELS), len(ACTIONS)
    # Apart from the others, so that files from before slow_{h}s stay readable.
    arrays["slow"] = np.hstack([arrays["state"][:, state:], arrays["labels"][:, labels:]])
    arrays["labels"], arrays["state"] = arrays["labels"][:, :labels], arrays["state"][:, :state]
    arrays["recording"] = np.repeat(np.arange(len(parts), dtype=np.int16), sizes)
    arrays["region"] = np.array([part.region for part in parts], np.int32)
    starts = [part.window_start + offset for part, offset in zip(parts, first, strict=True)]
    arrays["window_start"] = np.concatenate(starts).astype(np.int32)
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, str]) -> None:
    """Write data sets and attributes with their checksums to a new H5 file."""
    # From HDF5 1.10 on the structure has checksums too. The file is ours alone until it is renamed: no lock is needed.
    with h5py.File(path, "w", libver="v110", locking=False) as file:
        for name, values in arrays.items():
            file.create_dataset(
                name, data=values, chunks=True, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True
            )
        file.attrs.update(attributes)
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs[CHECKSUM] = fingerprint_of(_texts(file))


def choose_windows(source: Path, target: Path, weights: Weights, fingerprint: str | None = None) -> None:
    """Copy a split file with the windows (W,) whose weight is above 0, and with their weights if any is not 1."""
    with _opened(source) as (file, attributes):
        arrays = {name: values[()] for name, values in file.items() if name != "window_weight"}
    arrays["window_start"] = arrays["window_start"][weights > 0]
    if (weights[weights > 0] != 1).any():
        arrays["window_weight"] = weights[weights > 0]
    del attributes["schema_version"]
    with atomic_path(target) as temporary:
        write_arrays(temporary, arrays, attributes | ({} if fingerprint is None else {"fingerprint": fingerprint}))


def read_split(path: Path, expected_fingerprint: str | None = None) -> Split:
    """Read a split file.

    Args:
        expected_fingerprint: of the manifest that the file must be made from.

    Raises:
        DataError: missing, no H5 file, damaged, made with another schema of channels and labels than today's, or from
            another manifest than expected.
    """
    with _opened(path) as (file, attributes):
        fingerprint = attributes["fingerprint"]
        if expected_fingerprint not in (None, fingerprint):
            raise DataError(
                f"{path} holds data version {fingerprint or 'unknown'}, expected {expected_fingerprint}: the splits "
                "have been rebuilt since; start again to use the new ones."
            )
        inputs = tuple(json.loads(attributes["features"]))
        check_schema(attributes["schema"], inputs, str(path), "build the splits again")
        arrays, labels = {name: values[()] for name, values in file.items()}, json.loads(attributes["labels"])
        if (slow := arrays.pop("slow", None)) is not None:
            arrays["labels"] = np.hstack([arrays["labels"], slow[:, 1:]])
            arrays["state"], labels = np.hstack([arrays["state"], slow[:, :1]]), [*labels, *SLOW_LABELS]
        return Split(
            **arrays,
            recordings=tuple(json.loads(attributes["recordings"])),
            feature_names=inputs,
            label_names=tuple(labels),
            class_names=tuple(json.loads(attributes["class_names"])),
            window=WindowConfig(**json.loads(attributes["window"])),
            coast_threshold=float(attributes["coast_threshold"]),
            fingerprint=fingerprint,
        )


def read_fingerprint(path: Path) -> str:
    """The fingerprint of the manifest that a split file was made from. DataError as `read_split`."""
    with _opened(path) as (_, attributes):
        return attributes["fingerprint"]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, dict[str, str]]]:
    """A split file and its attributes, if they are of today's schema and as they were written.

    The file is complete once it has its name, so it is read without a lock, which not every file system has.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: build the splits first.")
    try:
        with h5py.File(path, locking=False) as file:
            attributes = _texts(file)
            if (version := attributes.get("schema_version")) != str(SCHEMA_VERSION):
                raise DataError(f"{path} has schema {version}: expected {SCHEMA_VERSION}; build the splits again.")
            if attributes.pop(CHECKSUM, "") != fingerprint_of(attributes):
                raise DataError(f"{path} is damaged: its attributes were changed; build the splits again.")
            if (name := attributes.get("split", path.stem)) != path.stem:  # older files have no name
                raise DataError(f"{path} holds the split {name}: expected {path.stem}; build the splits again.")
            yield file, attributes
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read as an H5 file ({error}): build the splits again.") from error


def _texts(file: h5py.File) -> dict[str, str]:
    return {name: str(value) for name, value in file.attrs.items()}
