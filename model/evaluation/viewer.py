"""A recording as a file of the Rerun viewer: frames, boxes, telemetry, labels and what a network foresees, by time."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.files import atomic_path
from model.evaluation.forecast import FORECAST, Forecast, read_predictions
from model.recording.annotations import Annotations
from model.recording.folder import Recording
from model.recording.labels import future_labels
from model.recording.schema import CHANNELS, DEFAULT_TASKS, TASKS, TIME
from model.recording.times import separated_times

if TYPE_CHECKING:
    import rerun

SUFFIX = ".rrd"
FRAMES_AT_ONCE = 8
"""In memory"""
AROUND_S = 20.0
"""Length of a clip"""
TIMELINE = "time"
CAMERA, BOXES, TELEMETRY, LABELS, PROBABILITIES, THRESHOLDS, MOMENTS = (
    "camera", "camera/boxes", "telemetry", "labels", "probabilities", "thresholds", "moments"
)  # fmt: skip
Series = Mapping[str, npt.NDArray[np.floating]]


def write_viewer_file(recording: Path, output: Path, around: str = "", seconds: float = AROUND_S) -> int:
    """Write what is known of a recording into a Rerun file; return the number of frames.

    Frames are stored as they are. Boxes are there if it is annotated, probabilities if it is predicted.

    Args:
        around: the middle of a clip: a row's time, as the telemetry spells it with or without the date, or a kind of
            moment in predictions.json with its number, such as missed-1 or false-alarm-2; empty: the whole drive.
        seconds: length of the clip.

    Raises:
        DataError: rerun-sdk is not installed, the recording has no telemetry, or nothing of that name is in it.
    """
    rr = _rerun()
    own = Recording(recording)
    telemetry, _ = own.telemetry()
    times = separated_times(telemetry)
    forecast = Forecast.read(recording / FORECAST) if (recording / FORECAST).is_file() else None
    rows = np.arange(len(times))
    if around:
        middle = times[_row(own, telemetry, forecast, around)]
        rows = np.flatnonzero(np.abs(times - middle) <= seconds * 500)
    with atomic_path(output) as temporary:
        stream = rr.RecordingStream("drive-assets", recording_id=own.name)
        stream.save(temporary, _blueprint(telemetry, forecast))
        frames = own.frames()
        at = dict(zip(telemetry[TIME].iloc[rows], times[rows], strict=True))
        shown = [(moment, frames[time]) for time, moment in at.items() if time in frames]
        for start in range(0, len(shown), FRAMES_AT_ONCE):
            part = shown[start : start + FRAMES_AT_ONCE]
            images = rr.EncodedImage.columns(blob=[path.read_bytes() for _, path in part])
            stream.send_columns(CAMERA, _index(rr, [moment for moment, _ in part]), images)
            stream.flush()  # otherwise they wait in memory for a slow disk
        if own.annotations_path.is_file():
            _send_boxes(rr, stream, own, at)
        for name, values in _numbers(own, telemetry, forecast).items():
            known = rows[~np.isnan(values[rows])]
            columns = rr.Scalars.columns(scalars=values[known])
            stream.send_columns(name, _index(rr, times[known]), columns)
        if told := [moment for moment in (forecast.moments if forecast else ()) if moment.row in rows]:
            texts = [f"{moment.task} {moment.kind} ({moment.probability:.2f})" for moment in told]
            index = _index(rr, times[[moment.row for moment in told]])
            stream.send_columns(MOMENTS, index, rr.TextLog.columns(text=texts))
        stream.flush()
        stream.disconnect()
    return len(shown)


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise DataError(f"The viewer needs rerun-sdk ({error}): pip install 'drive-assets[viewer]'.") from error
    return rerun


def _index(rr: Any, moments: Any) -> list[Any]:
    return [rr.TimeColumn(TIMELINE, timestamp=np.asarray(moments).astype("datetime64[ms]"))]


def _row(own: Recording, telemetry: pd.DataFrame, forecast: Forecast | None, around: str) -> int:
    """The row that a clip is around."""
    times = telemetry[TIME].tolist()
    kind, _, number = around.rpartition("-")
    moments = [moment for moment in (forecast.moments if forecast else ()) if moment.kind.replace(" ", "-") == kind]
    if moments and number.isdigit() and 1 <= int(number) <= len(moments):
        return moments[int(number) - 1].row
    found = [row for row, time in enumerate(times) if around in (time, time[11:]) or time[11:].startswith(f"{around}-")]
    if not found:
        kinds = {moment.kind.replace(" ", "-"): 0 for moment in (forecast.moments if forecast else ())}
        events = f", or a moment such as {next(iter(kinds))}-1" if kinds else ""
        raise DataError(
            f"{own.name} has no {around!r}: expected a time from {times[0][11:]} to {times[-1][11:]}{events}."
        )
    return found[0]


def _send_boxes(rr: Any, stream: "rerun.RecordingStream", own: Recording, moments: Mapping[str, np.int64]) -> None:
    """Boxes of the annotated frames, in pixels of the frame, with class and confidence; none where none is seen."""
    annotations, names, region = own.annotations(), own.class_names(), own.annotated_region()
    frames = [number for number, time in enumerate(annotations.time) if time in moments]
    flat = _flat(annotations, frames)
    box = annotations.box[flat] + np.tile((region.x, region.y), 2)
    classes = annotations.class_id[flat]
    columns = rr.Boxes2D.columns(
        centers=(box[:, :2] + box[:, 2:]) / 2,
        half_sizes=(box[:, 2:] - box[:, :2]) / 2,
        class_ids=classes,
        labels=[f"{names[c]} {p:.2f}" for c, p in zip(classes, annotations.confidence[flat], strict=True)],
    )
    index = _index(rr, [moments[annotations.time[number]] for number in frames])
    stream.send_columns(BOXES, index, columns.partition(annotations.count[frames]))


def _flat(annotations: Annotations, frames: list[int]) -> npt.NDArray[np.int64]:
    """The places of all detections of these frames."""
    spans = [np.arange(*annotations.offsets[number : number + 2]) for number in frames]
    return np.concatenate([np.empty(0, np.int64), *spans])


def _numbers(own: Recording, telemetry: pd.DataFrame, forecast: Forecast | None) -> Series:
    """Each series by its entity path: a value a row, NaN where unknown."""
    labels = future_labels(telemetry, own.label_config())
    series = {f"{TELEMETRY}/{name}": telemetry[name] for name in CHANNELS if name in telemetry}
    tasks = tuple(forecast.thresholds) if forecast else DEFAULT_TASKS
    series |= {f"{LABELS}/{task}": labels[task] for task in TASKS if task in tasks}
    if forecast:
        table = read_predictions(own.folder).set_index(TIME).reindex(telemetry[TIME])
        series |= {f"{PROBABILITIES}/{task}": table[task] for task in tasks}
        levels = {task: level.on for task, level in forecast.thresholds.items() if level.on is not None}
        series |= {f"{THRESHOLDS}/{task}": pd.Series(np.full(len(telemetry), level)) for task, level in levels.items()}
    return {name: values.astype("Float64").to_numpy(float, na_value=np.nan) for name, values in series.items()}


def _blueprint(telemetry: pd.DataFrame, forecast: Forecast | None) -> Any:
    """The camera on the left; telemetry, labels and a plot a task, probability and threshold, on the right."""
    import rerun.blueprint as rrb

    tasks = tuple(forecast.thresholds) if forecast else ()
    share = rrb.ScalarAxis(range=(0, 1))
    plots = [
        rrb.TimeSeriesView(
            origin="/", contents=[f"/{PROBABILITIES}/{task}", f"/{THRESHOLDS}/{task}"], name=task, axis_y=share
        )
        for task in tasks
    ]
    signals = [rrb.TimeSeriesView(origin=f"/{TELEMETRY}/{name}", name=name) for name in CHANNELS if name in telemetry]
    left = rrb.Vertical(
        rrb.Spatial2DView(origin=f"/{CAMERA}", name="Camera"),
        rrb.TextLogView(origin=f"/{MOMENTS}", name="Moments"),
        row_shares=[3, 1],
    )
    right = rrb.Tabs(
        *([rrb.Vertical(*plots, name="Probabilities")] if plots else []),
        rrb.Vertical(*signals, name="Telemetry"),
        rrb.TimeSeriesView(origin=f"/{LABELS}", name="Labels"),
    )
    return rrb.Blueprint(rrb.Horizontal(left, right), rrb.TimePanel(timeline=TIMELINE), collapse_panels=True)
