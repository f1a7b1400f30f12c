"""A checkpoint and a detector -> a bundle for the car, checked against torch on a golden drive."""

import csv
import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.annotation.config import AnnotationConfig
from model.annotation.frames import View, read_letterboxed, view_of
from model.annotation.pipeline import OPTIONS, Annotator
from model.bundle.config import LIMITS, MEASURED, PACKAGE, BundleConfig
from model.bundle.network import BundledNetwork, export_network
from model.bundle.runtime import bundle as layout
from model.bundle.runtime import check as parity
from model.bundle.runtime.bundle import Task
from model.bundle.runtime.errors import BundleError
from model.common.errors import DataError
from model.common.files import atomic_path, sha256, write_json
from model.common.progress import Log
from model.dataset.split_file import Split, read_split
from model.dataset.windows import RecordingArrays, join_recording
from model.detection.detector import load_detector
from model.evaluation import events
from model.evaluation.predictions import Predictions, test_predictions
from model.evaluation.predictor import Predictor
from model.evaluation.results import EVALUATION, AlarmThreshold, Evaluation
from model.recording import gears, values
from model.recording.dialect import MAY_BE_MISSING, ReadingConfig
from model.recording.folder import ROI, TELEMETRY, Recording
from model.recording.frame_files import frame_name
from model.recording.labels import LabelConfig, brake_source, future_labels, write_future_labels
from model.recording.schema import CHANNELS, GEARS, SPELLINGS, STEP_MS, TIME, used_schema
from model.recording.telemetry import FAULT_TIMES, NO_DATA
from model.recording.times import FASTEST_STEP_MS, SLOT


@dataclass(frozen=True)
class BundleReport:
    """A bundle that was made."""

    folder: Path
    identity: str
    golden: str
    """Recording that the golden drive was cut from"""
    parity: parity.Parity


def make_bundle(
    checkpoint: Path,
    evaluation: Path,
    test: Path,
    recordings: Path,
    weights: Path,
    output: Path,
    config: BundleConfig,
    cache: Path,
    log: Log = lambda line: None,
) -> BundleReport:
    """Write a bundle into the folder `output`: networks, description, golden drive and the package that runs it.

    Args:
        evaluation: folder of the checkpoint's evaluation.
        test: the split file that the evaluation was made on.
        recordings: folder of the recordings.
        weights: of the detector that annotated them.

    Raises:
        DataError: a part is missing or belongs to another one, or the networks of the bundle differ from torch.
    """
    predictor = Predictor(checkpoint)
    if predictor.calibrator is None:
        raise DataError(f"{checkpoint} has no calibration beside it: evaluate it first.")
    metrics, split = Evaluation.read(evaluation / EVALUATION), read_split(test)
    if not metrics.data_version == predictor.content["data_version"] == split.fingerprint:
        raise DataError(
            f"{checkpoint}, {evaluation} and {test} have different data versions: train and evaluate again."
        )
    thresholds = {task: _threshold(metrics, task, config, evaluation) for task in metrics.tasks}
    name, end_ms = _liveliest(test_predictions(evaluation), thresholds, recordings, config)
    source = Recording(recordings / name)
    if not (made_by := source.details.get("weights", "an unknown detector")).endswith(sha256(weights)[:12]):
        raise DataError(
            f"{source.details_path} was made by {made_by}, not by {weights}: name the weights that annotated the "
            "data set, or annotate again."
        )
    options = AnnotationConfig(**source.details.get(OPTIONS, {})).replace(backend="torch", half=False)
    with atomic_path(output) as folder:
        golden = folder / layout.GOLDEN
        _cut(source, golden, end_ms, split, config)
        annotator = Annotator(weights, options, cache)
        arrays, view = _annotated(Recording(golden), annotator, split)
        log(f"{name}: golden drive of {len(arrays.telemetry)} frames, {len(arrays.window_start)} windows")
        shape = read_letterboxed(min(golden.glob("*.jpg")), view).shape[:2]
        _export_detector(weights, shape, folder / layout.DETECTOR)
        network = BundledNetwork(predictor.network, predictor.content, predictor.calibrator, arrays.region)
        rows = arrays.window_start[:, None] + np.arange(split.window.length)
        windows = (arrays.telemetry[rows], arrays.detections[rows], arrays.detection_mask[rows])
        first = torch.from_numpy(windows[0][:1]), torch.from_numpy(windows[1][:1]), torch.from_numpy(windows[2][:1])
        export_network(network, first, folder / layout.NETWORK)
        write_json(
            golden / layout.EXPECTED, _expected(arrays, windows, predictor, thresholds, metrics, Recording(golden))
        )
        _keep(golden)
        shutil.copytree(
            Path(layout.__file__).parent, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
        (folder / "requirements.txt").write_text("numpy\nonnxruntime\npillow\n", encoding="utf-8")
        content = {
            "version": _version(),
            "checkpoint": sha256(checkpoint),
            "detector_weights": sha256(weights),
            **_description(metrics, split, thresholds),
            "detector": _detector_rules(annotator, view, shape),
        }
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        content["files"] = {str(path.relative_to(folder)): sha256(path) for path in files}
        write_json(folder / layout.DESCRIPTION, content)
        identity, measured = _checked(folder)
        write_json(folder / MEASURED, measured.to_dict())
        if output.is_dir():
            shutil.rmtree(output)
    return BundleReport(output, identity, name, measured)


def _threshold(metrics: Evaluation, task: str, config: BundleConfig, evaluation: Path) -> AlarmThreshold:
    budgets = {figures.threshold.budget: figures.threshold for figures in metrics.test[task].alarms}
    if config.false_alarms_per_hour not in budgets:
        known = ", ".join(f"{budget:g}" for budget in budgets if budget is not None)
        raise DataError(
            f"{evaluation / EVALUATION} has no thresholds for {config.false_alarms_per_hour:g} false alarms an hour: "
            f"expected one of {known}; choose one, or evaluate with that budget."
        )
    return budgets[config.false_alarms_per_hour]


def _liveliest(
    test: Predictions, thresholds: Mapping[str, AlarmThreshold], recordings: Path, config: BundleConfig
) -> tuple[str, int]:
    """The recording of the golden drive, and the clock's time at which its likeliest action is predicted, ms."""
    on = np.array([thresholds[task].on or np.inf for task in test.tasks])
    likely = (test.probabilities / on).max(axis=1)
    for window in np.argsort(-likely, kind="stable"):
        name = test.recordings[test.recording[window]]
        if config.recording in ("", name) and (recordings / name / TELEMETRY).is_file():
            return name, int(test.time_ms[window])
    known = ", ".join(test.recordings)
    raise DataError(f"{recordings} holds no drive for the golden one: expected {config.recording or 'one'} of {known}.")


def _cut(source: Recording, golden: Path, end_ms: int, split: Split, config: BundleConfig) -> None:
    """Write the rows around a moment, with their frames, as a recording that needs no options to be read."""
    telemetry, _ = source.telemetry()
    present = source.frames()
    last = int(np.abs(telemetry["t"].to_numpy() - end_ms).argmin()) + config.golden_frames // 2
    first = max(0, min(last, len(telemetry)) - split.window.length - config.golden_frames)
    part = telemetry.iloc[first : first + split.window.length + config.golden_frames]
    golden.mkdir(parents=True)
    channels = [name for name in CHANNELS if name in part]
    with (golden / TELEMETRY).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([TIME, *channels])
        for row, slot, *cells in part[[TIME, SLOT, *channels]].itertuples(index=False):
            moment = np.datetime64(int(slot), "ms").item()
            spelled = f"{moment:%Y-%m-%d %H-%M-%S}-{moment.microsecond // 1000:03}".rstrip("0")
            spelled += "0" if spelled.endswith("-") else ""
            writer.writerow([spelled, *("" if cell is None or cell != cell else str(cell) for cell in cells)])
            if row in present:
                shutil.copyfile(present[row], golden / frame_name(spelled))
    write_json(golden / ROI, source.annotated_region()._asdict())
    if missing := [name for name in MAY_BE_MISSING if name not in part]:
        Recording(golden).keep_reading(ReadingConfig(missing_channels=missing))


def _annotated(golden: Recording, annotator: Annotator, split: Split) -> tuple[RecordingArrays, View]:
    """The golden drive's windows, as training would see them. DataError if there is none."""
    annotator.annotate(golden.folder)
    telemetry, _ = golden.telemetry()
    config = LabelConfig(coast_threshold=split.coast_threshold)
    write_future_labels(golden.labels_path, future_labels(telemetry, config), config, brake_source(telemetry))
    window = split.window.replace(stride=1, required_labels=[], inputs=list(split.feature_names))
    arrays = join_recording(golden, window, telemetry)
    if not len(arrays.window_start):
        raise DataError(f"The golden drive from {golden.folder.name} has no whole window: name another recording.")
    frames, region = list(golden.frames().values()), golden.region()
    assert region is not None
    return arrays, view_of(golden.folder, frames, region, annotator.config.image_size, annotator.stride)


def _expected(
    arrays: RecordingArrays,
    windows: tuple[Any, Any, Any],
    predictor: Predictor,
    thresholds: Mapping[str, AlarmThreshold],
    metrics: Evaluation,
    golden: Recording,
) -> dict[str, Any]:
    """Boxes, probabilities and alarms that training's code and torch give."""
    last = arrays.window_start + windows[0].shape[1] - 1
    names = ("telemetry", "detections", "detection_mask")
    region = np.tile(np.array(arrays.region, np.float32), (len(last), 1))
    probabilities = predictor.predict({**dict(zip(names, windows, strict=True)), "region": region})
    annotations, times = golden.annotations(), golden.telemetry()[0]
    time_of = dict(zip(times["t"], times[TIME], strict=True))
    moments = [time_of[t] for t in arrays.clock_ms[last]]
    boxes = {
        time: np.column_stack([frame[:, 5], frame[:, 4], frame[:, :4], area]).astype(float).round(4).tolist()
        for index, time in enumerate(annotations.time)
        for frame in [annotations.frame(index)]
        for area in [annotations.area[annotations.offsets[index] : annotations.offsets[index + 1]]]
    }
    alarms = [
        [time_of[start], task]
        for task, threshold in thresholds.items()
        for start in _alarm_starts(probabilities[task], arrays.clock_ms[last], threshold, metrics, task)
    ]
    return {
        "boxes": boxes,
        "probabilities": {
            moment: {task: float(p[row]) for task, p in probabilities.items()} for row, moment in enumerate(moments)
        },
        "alarms": alarms,
    }


def _alarm_starts(p: Any, time_ms: Any, threshold: AlarmThreshold, metrics: Evaluation, task: str) -> list[int]:
    """When alarms begin, as `model.evaluation.events` has it."""
    no, unknown = np.zeros(len(p), bool), np.full(len(p), np.nan, np.float32)
    windows = Predictions(
        (task,), ("golden",), no, ~no, no, p, time_ms, no.astype(int), unknown, no.astype(int), unknown
    )
    alarms, _ = events.Drives.of(windows).alarms(threshold.on, metrics.evaluation_config)
    return [alarm.start_ms for alarm in alarms]


def _export_detector(weights: Path, shape: tuple[int, ...], path: Path) -> None:
    copy = path.with_suffix(".pt")
    shutil.copyfile(weights, copy)
    exported = load_detector(copy).export(format="onnx", imgsz=shape, simplify=False, device="cpu", verbose=False)
    copy.unlink()
    Path(exported).replace(path)


def _keep(golden: Path) -> None:
    """Remove what was derived to compare with."""
    for path in golden.iterdir():
        if path.name not in (TELEMETRY, ROI, layout.EXPECTED) and path.suffix != ".jpg":
            path.unlink()


def _description(metrics: Evaluation, split: Split, thresholds: Mapping[str, AlarmThreshold]) -> dict[str, Any]:
    tasks = [
        Task(name, action, int(horizon.removesuffix("s")), threshold.on, threshold.off or 0.0)
        for name, threshold in thresholds.items()
        for action, horizon in [name.split("_")]
    ]
    return {
        "format": layout.FORMAT,
        "architecture": metrics.architecture,
        "data_version": metrics.data_version,
        "recipe": metrics.recipe,
        "limits": LIMITS,
        "false_alarms_per_hour": next(iter(thresholds.values())).budget,
        "tasks": [asdict(task) for task in tasks],
        "schema": used_schema(split.feature_names)["fingerprint"],
        "inputs": list(split.feature_names),
        "telemetry": _reading_rules(),
        "coast_threshold": split.coast_threshold,
        "length": split.window.length,
        "slots": split.window.max_detections,
        "step_ms": STEP_MS,
        "fastest_ms": FASTEST_STEP_MS,
        "max_gap_ms": split.window.max_gap_ms,
        "alarm_min_s": metrics.evaluation_config.alarm_min_s,
        "merge_s": events.MERGE_S,
    }


def _reading_rules() -> dict[str, Any]:
    """How the product reads rows of telemetry, for the runtime."""
    fields = ("kind", "plausible", "sentinel", "fastest", "required")
    return {
        "channels": {name: {each: getattr(channel, each) for each in fields} for name, channel in CHANNELS.items()},
        "columns": SPELLINGS,
        "faults": list(FAULT_TIMES),
        "no_data": NO_DATA,
        "missing": sorted(values.MISSING),
        "booleans": values.BOOLEANS,
        "hold_s": ReadingConfig().hold_s,
        "gears": {
            "selector": values.SELECTOR,
            "highest": GEARS - 1,
            "most": gears.MOST_GEARS,
            "ratios": gears.GEAR_RATIOS.tolist(),
            "neutral_below_kmh": gears.NEUTRAL_BELOW_KMH,
            "idle_rpm": gears.IDLE_RPM,
            "moving_kmh": gears.MOVING_KMH,
            "fitting_share": gears.FITTING_SHARE,
        },
    }


def _detector_rules(annotator: Annotator, view: View, shape: tuple[int, ...]) -> dict[str, Any]:
    keep = annotator.backend.keep
    return {
        "frame": list(view.frame),
        "region": list(view.roi),
        "shape": list(shape),
        "class_names": annotator.class_names,
        "thresholds": keep.thresholds.tolist(),
        "outputs": keep.outputs.tolist(),
        "iou": keep.iou,
        "limit": keep.limit,
        "agnostic": keep.agnostic,
        "end_to_end": annotator.backend.end_to_end,
    }


def _checked(folder: Path) -> tuple[str, parity.Parity]:
    """The identity of a bundle, and its differences from torch. DataError if they are too large."""
    try:
        made = layout.Bundle.read(folder)
        measured = parity.check(made)
    except BundleError as error:
        raise DataError(f"The bundle differs from torch: {error}") from error
    if problems := measured.problems(LIMITS):
        raise DataError(f"The bundle differs from torch: {'; '.join(problems)}. Report this.")
    return made.identity, measured


def _version() -> str:
    try:
        return importlib.metadata.version("drive-assets")
    except importlib.metadata.PackageNotFoundError:
        return ""
