"""A recording as a film: its frames with boxes, region of interest, telemetry, and what the driver does next."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.common.files import atomic_path
from model.common.progress import Log
from model.recording.annotations import Annotations
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
ENCODERS = {
    SUFFIX: ("libx264", {"preset": "veryfast", "crf": "26"}, {"movflags": "+faststart"}),
    ".webm": ("libvpx", {"crf": "20", "b": "4M", "deadline": "realtime", "cpu-used": "4"}, {}),
}
"""By the file's suffix: encoder, its options and the container's; browsers play both."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
BOXES = ((0, 200, 255), (255, 160, 0), (120, 220, 80), (220, 100, 220))
BRAKE, COAST, OFF = (60, 60, 230), (60, 190, 240), (70, 70, 70)
INK, DARK, FAINT = (255, 255, 255), (0, 0, 0), (150, 150, 150)


def write_video(
    recording: Path,
    output: Path,
    speed: float = SPEED,
    log: Log = lambda line: None,
    part: slice = slice(None),
) -> int:
    """Write the annotated frames of `recording` as a film, 1280 px wide; return the number of frames.

    Args:
        output: an .mp4 (H.264) or .webm (VP8) file.
        part: which of the annotated frames; all.

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
        for image in _images(Recording(recording), part):
            if not frames:
                size = image.shape
                stream.height, stream.width, stream.pix_fmt = size[0], size[1], "yuv420p"
            if image.shape != size:
                continue
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            frames += 1
            if frames % 500 == 0:
                log(f"{frames} frames")
        if not frames:
            raise DataError(f"{recording} has no annotated frame that can be read.")
        film.mux(stream.encode())
    return frames


def _images(recording: Recording, part: slice) -> Iterator[Image]:
    scene, frames = _Scene.of(recording), recording.frames()
    for index in range(len(scene.annotations))[part]:
        time = scene.annotations.time[index]
        row = scene.row_of.get(time)
        image = cv2.imread(str(frames[time])) if time in frames and row is not None else None
        if image is not None and row is not None:
            yield scene.draw(np.asarray(image, np.uint8), index, row)


@dataclass(frozen=True)
class _Scene:
    """What is drawn over the frames of a recording."""

    annotations: Annotations
    region: Region
    class_names: tuple[str, ...]
    speed: npt.NDArray[np.float64]
    """(N,) km/h, of the telemetry's rows"""
    now: npt.NDArray[np.int8]
    """(N,2) brakes and coasts at the row itself"""
    ahead: list[npt.NDArray[np.object_]]
    """Brakes and coasts, (N,5) each, as in future_labels.csv: True, False or <NA>"""
    row_of: dict[str, int]

    @classmethod
    def of(cls, recording: Recording) -> "_Scene":
        annotations, (telemetry, _), labels = recording.annotations(), recording.telemetry(), recording.labels()
        if not labels["Time"].equals(telemetry["Time"].astype(labels["Time"].dtype)):
            raise DataError(f"{recording.labels_path} does not fit the telemetry: label the recording again.")
        return cls(
            annotations=annotations,
            region=recording.annotated_region(),
            class_names=recording.class_names(),
            speed=telemetry["SPEED"].to_numpy(float),
            now=current_state(telemetry, recording.label_config().coast_threshold),
            ahead=[labels[[f"{name}_{h}s" for h in HORIZONS_S]].astype(object).to_numpy() for name in ACTIONS],
            row_of={time: row for row, time in enumerate(telemetry["Time"])},
        )

    def draw(self, image: Image, index: int, row: int) -> Image:
        """Annotated frame `index`, which belongs to telemetry row `row`, with its bar."""
        frame = _draw_frame(image, self.annotations.frame(index), self.region, self.class_names)
        braking, coasting = (bool(value) for value in self.now[row])
        text = f"{self.annotations.time[index]}   {self.speed[row]:.0f} km/h   {self.annotations.count[index]} vehicles"
        bar = _draw_bar(text, (braking, coasting), (self.ahead[0][row], self.ahead[1][row]))
        return np.vstack([frame, bar])


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


def _draw_bar(text: str, now: tuple[bool, bool], ahead: tuple[npt.NDArray, npt.NDArray]) -> Image:
    """Time and speed on the left; on the right, for braking and coasting, a box for now and one a horizon."""
    bar = np.full((BAR, WIDTH, 3), 25, np.uint8)
    _write(bar, text, (16, 40), 0.6, INK)
    start, step = WIDTH - 70 * (len(HORIZONS_S) + 1) - 16, 70
    for line, (name, colour) in enumerate((("brake", BRAKE), ("coast", COAST))):
        top = 6 + 27 * line
        _write(bar, name, (start - 64, top + 17), 0.5, INK)
        for column, value in enumerate([now[line], *ahead[line]]):
            left = start + step * column
            known = value is True or value is False or isinstance(value, np.bool_)
            fill = colour if known and value else OFF
            if known:
                cv2.rectangle(bar, (left, top), (left + step - 8, top + 23), fill, -1)
            else:
                cv2.rectangle(bar, (left, top), (left + step - 8, top + 23), OFF, 1)
            title = "now" if column == 0 else f"+{HORIZONS_S[column - 1]} s"
            _write(
                bar,
                title if known else f"{title} ?",
                (left + 8, top + 17),
                0.45,
                FAINT if not known else DARK if value else INK,
            )
    return bar


def _write(image: Image, text: str, place: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, place, FONT, size, colour, 1, cv2.LINE_AA)
