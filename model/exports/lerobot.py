"""A data set as LeRobot, version 3, has it: Parquet tables, a video a recording, and their description in `meta`.

The layout: huggingface.co/docs/lerobot/lerobot-dataset-v3. Names of features are those of L2D, so that its readers, and
our importer of kind l2d, find the speed, the pedals and the clock.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.files import atomic_path, write_json
from model.common.progress import Log
from model.dataset.windows import RecordingArrays, WindowConfig, common_traits, join_recording
from model.exports.times import nanoseconds
from model.imports.l2d import ACTIONS, CAMERA, CLOCK, VEHICLE
from model.recording.folder import Recording
from model.recording.schema import BOX_VALUES, PEDAL, PRESSED, STATES, STEP_MS, TASKS
from model.recording.times import SLOT, separated_times

FPS = 1000 // STEP_MS
CHUNK = 1000
"""Files of a folder at most."""
TASK = "Drive."
LABELS, BOXES = "labels", "observation.boxes"
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_DATA, _VIDEO = f"data/{_FILE}.parquet", f"videos/{{video_key}}/{_FILE}.mp4"
_ENCODING = {"crf": "23", "preset": "veryfast", "g": str(FPS), "bf": "0"}
"""A key frame a second: readers jump to single frames."""


def write_lerobot(
    output: Path,
    splits: Mapping[str, Sequence[Path]],
    window: WindowConfig,
    zone: str,
    described: Mapping[str, Any],
    log: Log = lambda line: None,
) -> tuple[int, int]:
    """Write the recordings of a data set's splits into the new folder `output`.

    An episode is a run of frames without a gap, of one recording; a frame that cannot be read is a gap. Pictures have
    the size of the first.

    Args:
        splits: folders of annotated and labelled recordings by the split's name.
        window: of the data set: its channels, its largest step and its most detections.
        zone: of the recorders' clocks.
        described: what `meta/drive_assets.json` says besides.

    Returns:
        The numbers of episodes and frames.

    Raises:
        DataError: `output` exists, no frame can be read, or as `join_recording` and `common_traits`.
    """
    if output.exists():
        raise DataError(f"{output} exists already: expected a new folder; choose another or remove this one.")
    folders = [folder for members in splits.values() for folder in members]
    parts = {folder.name: join_recording(Recording(folder), window) for folder in folders}
    traits = common_traits({name: part.traits for name, part in parts.items()})
    features = _features(traits.inputs, window.max_detections)
    with atomic_path(output) as temporary:
        writer = _Writer(temporary, features)
        ranges, left_out = {}, []
        for split, members in splits.items():
            first = len(writer.episodes)
            for folder in members:
                if not writer.add(Recording(folder), parts.pop(folder.name), window, split, zone):
                    left_out.append(folder.name)
                    log(f"{folder.name} is left out: none of its frames can be read")
                log(f"{folder.name}: {len(writer.episodes)} episodes, {writer.frames} frames so far")
            ranges[split] = f"{first}:{len(writer.episodes)}"
        if not writer.episodes:
            raise DataError(f"None of the frames of {len(folders)} recordings can be read: nothing is exported.")
        about = {"zone": zone, "class_names": list(traits.class_names), "coast_threshold": traits.coast_threshold}
        write_json(temporary / "meta" / "drive_assets.json", {**described, **about, "left_out": left_out})
        writer.finish(ranges)
    return len(writer.episodes), writer.frames


class _Writer:
    def __init__(self, folder: Path, features: dict[str, Any]) -> None:
        self.folder, self.features = folder, features
        self.episodes: list[dict[str, Any]] = []
        self.frames, self.files = 0, 0
        self.values: list[dict[str, npt.NDArray]] = []

    def add(self, own: Recording, arrays: RecordingArrays, window: WindowConfig, split: str, zone: str) -> bool:
        """Write a recording's data and video; whether a frame of it can be read."""
        telemetry, _ = own.telemetry()
        rows = telemetry["Time"].isin(own.annotations().time).to_numpy()
        slots, files = separated_times(telemetry, SLOT)[rows], own.frames()
        place = {"chunk_index": self.files // CHUNK, "file_index": self.files % CHUNK}
        video = self.folder / _VIDEO.format(video_key=CAMERA, **place)
        kept, pixels, size = self._film(video, [files.get(time) for time in telemetry["Time"][rows]])
        if not len(kept):
            video.unlink(missing_ok=True)
            return False
        values = _values(own, arrays, kept, size, zone)
        values[CAMERA] = pixels
        begins = np.concatenate([[0], np.flatnonzero(np.diff(slots[kept]) > window.max_gap_ms) + 1])
        clock_back = np.cumsum(np.diff(values[CLOCK], prepend=values[CLOCK][:1]) < 0)
        tables = []
        for begin, end in zip(begins, [*begins[1:], len(kept)], strict=True):
            part = {name: array[begin:end] for name, array in values.items()}
            number, length = len(self.episodes), int(end - begin)
            part |= {
                "timestamp": np.arange(length, dtype=np.float32) / FPS,
                "frame_index": np.arange(length),
                "episode_index": np.full(length, number),
                "index": np.arange(length) + self.frames,
                "task_index": np.zeros(length, np.int64),
            }
            row = {"episode_index": number, "tasks": [TASK], "length": length, "split": split}
            row |= {"session_id": own.name + (f"+{clock_back[begin]}" if clock_back[begin] else "")}
            row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + length}
            row |= {f"data/{key}": value for key, value in place.items()}
            row |= {f"videos/{CAMERA}/{key}": value for key, value in place.items()}
            row |= {f"videos/{CAMERA}/from_timestamp": begin / FPS, f"videos/{CAMERA}/to_timestamp": end / FPS}
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            self.episodes.append(row | self._statistics(part, "stats/{}/{}"))
            self.values.append(part)
            self.frames += length
            tables.append(pd.DataFrame({name: part[name].tolist() for name in part if name != CAMERA}))
        path = self.folder / _DATA.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(tables).to_parquet(path, index=False)
        self.files += 1
        return True

    def _film(self, video: Path, files: Sequence[Path | None]) -> tuple[npt.NDArray[np.int64], npt.NDArray, Any]:
        """Encode the frames that can be read: their numbers, `_pixels` of each, and (width, height) of the first."""
        kept, pixels, size, stream = [], [], (0, 0), None
        video.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(video), "w") as film:
            for number, image in _readable(files):
                shape = self.features[CAMERA]["shape"]
                if not shape:
                    shape += [image.shape[0] // 2 * 2, image.shape[1] // 2 * 2, 3]  # encoders want even sizes
                if stream is None:
                    size = image.shape[1], image.shape[0]
                    stream = film.add_stream("libx264", FPS, options=_ENCODING)
                    stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "yuv420p"
                if list(image.shape) != shape:
                    image = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
                kept.append(number)
                pixels.append(_pixels(image))
            if stream is not None:
                film.mux(stream.encode())
        return np.array(kept, np.int64), np.array(pixels), size

    def _statistics(self, part: Mapping[str, npt.NDArray], key: str) -> dict[str, Any]:
        """By `key`, filled with a feature and a measure: lists of the feature's shape."""
        found: dict[str, Any] = {}
        for name, feature in self.features.items():
            values = part[name]
            if name == CAMERA:
                low, high = values[:, 0].min(0), values[:, 1].max(0)
                mean, squares = values[:, 2].mean(0), values[:, 3].mean(0)
                measures = (low, high, mean, np.sqrt(np.maximum(squares - mean**2, 0)))
                measures = tuple(each.reshape(3, 1, 1) for each in measures)
            else:
                values = values.reshape(len(values), *feature["shape"]).astype(float)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is never known
                    functions = (np.nanmin, np.nanmax, np.nanmean, np.nanstd)
                    measures = tuple(np.nan_to_num(function(values, axis=0)) for function in functions)
            for measure, value in zip(("min", "max", "mean", "std"), measures, strict=True):
                found[key.format(name, measure)] = value.tolist()
            found[key.format(name, "count")] = [len(values)]
        return found

    def finish(self, ranges: Mapping[str, str]) -> None:
        """Write `meta`."""
        meta = self.folder / "meta"
        table = meta / "episodes" / f"{_FILE.format(chunk_index=0, file_index=0)}.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.episodes).to_parquet(table, index=False)
        pd.DataFrame({"task_index": [0]}, index=[TASK]).to_parquet(meta / "tasks.parquet")
        every = {name: np.concatenate([part[name] for part in self.values]) for name in self.features}
        statistics: dict[str, Any] = {name: {} for name in self.features}
        for key, value in self._statistics(every, "{} {}").items():
            name, _, measure = key.rpartition(" ")
            statistics[name][measure] = value
        write_json(meta / "stats.json", statistics)
        info = {
            "codebase_version": "v3.0",
            "robot_type": "car",
            "total_episodes": len(self.episodes),
            "total_frames": self.frames,
            "total_tasks": 1,
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": FPS,
            "splits": dict(ranges),
            "data_path": _DATA,
            "video_path": _VIDEO,
            "features": self.features,
        }
        write_json(meta / "info.json", info)


def _features(inputs: Sequence[str], most_detections: int) -> dict[str, Any]:
    """What a row holds; the size of the pictures is filled in by the first."""
    number = {"dtype": "int64", "shape": [1], "names": None}
    video = {"video.fps": FPS, "video.codec": "h264", "video.pix_fmt": "yuv420p"}
    video |= {"video.is_depth_map": False, "has_audio": False}
    return {
        CAMERA: {"dtype": "video", "shape": [], "names": ["height", "width", "channels"], "info": video},
        VEHICLE: {"dtype": "float32", "shape": [len(inputs)], "names": list(inputs)},
        ACTIONS: {"dtype": "float32", "shape": [2], "names": ["gas_pedal_normalized", "brake_pedal_normalized"]},
        CLOCK: number,
        LABELS: {"dtype": "int64", "shape": [len(TASKS)], "names": list(TASKS)},
        BOXES: {"dtype": "float32", "shape": [most_detections, len(BOX_VALUES)], "names": ["detection", "value"]},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), number),
    }


def _values(
    own: Recording, arrays: RecordingArrays, kept: npt.NDArray[np.int64], size: tuple[int, int], zone: str
) -> dict[str, npt.NDArray]:
    """By feature, of the frames `kept`. Boxes are shares of the whole frame."""
    inputs = arrays.traits.inputs
    telemetry = dict(zip(inputs, arrays.telemetry.T, strict=True))
    pedal = (
        telemetry[PEDAL] / 100 if PEDAL in inputs else telemetry.get(PRESSED, np.full(len(arrays.telemetry), np.nan))
    )
    brake = arrays.state[:, STATES.index("brake")].astype(np.float32)
    boxes, region = arrays.detections.copy(), own.annotated_region()
    corners = boxes[..., 2:6] + np.tile(region[:2], 2)
    boxes[..., 2:6] = np.where(arrays.detection_mask[..., None], corners / np.tile(size, 2), 0)
    boxes[..., 6] /= size[0] * size[1]
    values: dict[str, npt.NDArray] = {
        VEHICLE: arrays.telemetry,
        ACTIONS: np.column_stack([pedal, np.where(brake < 0, np.nan, brake)]).astype(np.float32),
        CLOCK: nanoseconds(arrays.clock_ms, zone),
        LABELS: arrays.labels.astype(np.int64),
        BOXES: boxes,
    }
    return {name: array[kept] for name, array in values.items()}


def _readable(files: Sequence[Path | None]) -> Iterator[tuple[int, Any]]:
    """Number and picture of each file that can be read."""
    for number, path in enumerate(files):
        image = cv2.imread(str(path)) if path else None
        if image is not None:
            yield number, image


def _pixels(image: Any) -> npt.NDArray[np.float64]:
    """(4,3) smallest, largest and mean value and mean square of each colour, RGB in [0, 1], of every 64th pixel."""
    pixels = image[::8, ::8, ::-1].reshape(-1, 3) / 255.0
    return np.stack([pixels.min(0), pixels.max(0), pixels.mean(0), (pixels**2).mean(0)])
