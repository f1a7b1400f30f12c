"""A recording as a film: its frames with boxes, region of interest, telemetry, and what the driver does next."""

from collections.abc import Hashable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.files import atomic_path
from model.common.progress import Log, Progress
from model.recording.folder import Recording, Region
from model.recording.labels import current_state
from model.recording.schema import ACTIONS, HORIZONS_S

Image = npt.NDArray[np.uint8]
WIDTH = 1280
BAR = 64
RECORDED_FPS = 2
SPEED = 5.0
"""How many times faster than recorded the film plays."""
SUFFIX = ".mp4"
PROGRESS_S = 5.0
ENCODERS = {
    SUFFIX: ("libx264", {"preset": "veryfast", "crf": "26"}, {"movflags": "+faststart"}),
    ".webm": ("libvpx", {"crf": "20", "b": "4M", "deadline": "realtime", "cpu-used": "4"}, {}),
}
"""By the file's suffix: encoder, its options and the container's; browsers play both."""
BOXES = ((0, 200, 255), (255, 160, 0), (120, 220, 80), (220, 100, 220))
BRAKE, COAST, OFF = (60, 60, 230), (60, 190, 240), (70, 70, 70)
ALARM = (90, 255, 255)
INK, DARK, FAINT = (255, 255, 255), (0, 0, 0), (150, 150, 150)


def write_video(
    recording: Path,
    output: Path,
    speed: float = SPEED,
    log: Log = lambda line: None,
    part: slice = slice(None),
    predictions: pd.DataFrame | None = None,
) -> int:
    """Write the annotated frames of `recording` as a film, 1280 px wide; return the number of frames.

    Args:
        output: an .mp4 (H.264) or .webm (VP8) file.
        part: which of the annotated frames; all.
        predictions: by `Time`, a probability a task and the `alarms` that ring, shown in the cells of the labels.

    Raises:
        DataError: the recording is not annotated or not labelled, or has no readable frame.
    """
    if not recording.is_dir():
        raise DataError(f"{recording} is not a folder: expected a recording.")
    if output.suffix not in ENCODERS:
        raise DataError(f"{output}: expected a file name that ends with {' or '.join(ENCODERS)}.")
    if speed <= 0:
        raise DataError(f"Speed {speed}: expected more than 0.")
    encoder, options, container_options = ENCODERS[output.suffix]
    frames, size = 0, (0, 0, 0)
    with atomic_path(output) as temporary, av.open(temporary, "w", options=container_options) as film:
        stream: Any = film.add_stream(encoder, Fraction(RECORDED_FPS * speed).limit_denominator(1000), options=options)
        for image in _images(Recording(recording), part, log, predictions):
            if not frames:
                size = image.shape
                stream.height, stream.width, stream.pix_fmt = size[0], size[1], "yuv420p"
            if image.shape != size:
                continue
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            frames += 1
        if not frames:
            raise DataError(f"{recording} has no annotated frame that can be read.")
        film.mux(stream.encode())
    return frames


def _images(recording: Recording, part: slice, log: Log, predictions: pd.DataFrame | None) -> Iterator[Image]:
    """The annotated frames that can be read, each with its bar."""
    annotations, (telemetry, _), labels = recording.annotations(), recording.telemetry(), recording.labels()
    if not labels["Time"].equals(telemetry["Time"].astype(labels["Time"].dtype)):
        raise DataError(f"{recording.labels_path} does not fit the telemetry: label the recording again.")
    now = current_state(telemetry, recording.label_config()) == 1
    ahead = [labels[[f"{name}_{h}s" for h in HORIZONS_S]].astype(object).to_numpy() for name in ACTIONS]
    rows = {time: row for row, time in enumerate(telemetry["Time"])}
    foreseen = {} if predictions is None else predictions.set_index("Time").to_dict("index")
    region, names, frames = recording.annotated_region(), recording.class_names(), recording.frames()
    indices, logged = range(len(annotations))[part], monotonic()
    for index in indices:
        if monotonic() - logged > PROGRESS_S:
            logged = monotonic()
            log(Progress(f"{index - indices.start:,} of {len(indices):,} frames"))
        time = annotations.time[index]
        image = cv2.imread(str(frames[time])) if time in frames and time in rows else None
        if image is not None:
            row = rows[time]
            frame = _draw_frame(np.asarray(image, np.uint8), annotations.frame(index), region, names)
            text = f"{time}   {telemetry['SPEED'].iloc[row]:.0f} km/h   {annotations.count[index]} vehicles"
            cells = [[now[row, line], *values[row]] for line, values in enumerate(ahead)]
            bar = _draw_bar(text, cells, foreseen.get(time, {}))
            yield np.vstack([frame, bar])


def _draw_frame(image: Image, detections: npt.NDArray[np.float32], roi: Region, names: tuple[str, ...]) -> Image:
    scale = WIDTH / image.shape[1]
    height = round(image.shape[0] * scale) // 2 * 2  # encoders want even sizes
    frame = np.asarray(cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
    x, y, width, tall = roi
    corners = [round(v * scale) for v in (x, y, x + width, y + tall)]
    cv2.rectangle(frame, (corners[0], corners[1]), (corners[2] - 1, corners[3]), FAINT, 1)
    for x1, y1, x2, y2, confidence, class_id in detections:
        left, top, right, bottom = (round(float(v) * scale) for v in (x1 + x, y1 + y, x2 + x, y2 + y))
        colour = BOXES[int(class_id) % len(BOXES)]
        cv2.rectangle(frame, (left, top), (right, bottom), colour, 2, cv2.LINE_AA)
        label = f"{confidence:.2f}" if len(names) == 1 else f"{names[int(class_id)]} {confidence:.2f}"
        _write(frame, label, (left, max(top - 5, 14)), 0.45, colour)
    return frame


def _draw_bar(text: str, actions: list[list[Any]], foreseen: Mapping[Hashable, Any]) -> Image:
    """`text` on the left; on the right, for braking and coasting, whether it is so now and after each horizon.

    With `foreseen`, a row of the predictions, cells hold probabilities, and have a frame while their alarm rings.
    """
    bar = np.full((BAR, WIDTH, 3), 25, np.uint8)
    _write(bar, text, (16, 40), 0.6, INK)
    start, step = WIDTH - 70 * (len(HORIZONS_S) + 1) - 16, 70
    for line, (name, colour, values) in enumerate(zip(ACTIONS, (BRAKE, COAST), actions, strict=True)):
        top = 6 + 27 * line
        _write(bar, name, (start - 64, top + 17), 0.5, INK)
        for column, value in enumerate(values):
            left, known = start + step * column, not pd.isna(value)
            title = "now" if column == 0 else f"+{HORIZONS_S[column - 1]} s"
            task = f"{name}_{HORIZONS_S[column - 1]}s" if column else ""
            if not pd.isna(probability := foreseen.get(task, np.nan)):
                title = f"{title[:2]}s {probability:.2f}".replace("0.", ".")
            fill, ink = (colour, DARK) if known and value else (OFF, INK)
            cv2.rectangle(bar, (left, top), (left + step - 8, top + 23), fill, -1 if known else 1)
            if task in str(foreseen.get("alarms", "")).split():
                cv2.rectangle(bar, (left, top), (left + step - 8, top + 23), ALARM, 2)
            _write(bar, title if known else f"{title} ?", (left + 8, top + 17), 0.45, ink if known else FAINT)
    return bar


def _write(image: Image, text: str, place: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
