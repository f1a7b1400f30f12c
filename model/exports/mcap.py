"""A recording as MCAP, with the schemas that Foxglove and Lichtblick show without configuration."""

from pathlib import Path
from typing import Any

import pandas as pd

from model.common.files import atomic_path
from model.evaluation.forecast import PREDICTIONS
from model.exports.times import nanoseconds
from model.imports.extras import library
from model.recording.folder import Recording
from model.recording.frame_files import is_whole
from model.recording.schema import CHANNELS, TIME
from model.recording.tables import read_table

CAMERA, BOXES = "/camera", "/camera/boxes"
COLOUR, THICKNESS, FONT = (1.0, 0.78, 0.0, 1.0), 4.0, 28.0
"""Of the boxes: RGBA, and px of the frame."""


def write_mcap(recording: Path, output: Path, zone: str) -> dict[str, int]:
    """Write frames, telemetry and, where the recording has them, boxes, labels and predictions.

    Frames are the recording's own files, not encoded again. Unknown values are null.

    Args:
        zone: of the recorder's clock.

    Returns:
        The number of messages by topic.

    Raises:
        DataError: the package is not installed, or a file of the recording is missing or wrong.
    """
    foxglove = library("foxglove", "An MCAP file for Foxglove")
    from foxglove import messages

    own = Recording(recording)
    telemetry, _ = own.telemetry()
    moments = dict(zip(telemetry[TIME], nanoseconds(telemetry["t"].to_numpy(), zone).tolist(), strict=True))
    tables = {"telemetry": telemetry[[TIME, *(name for name in CHANNELS if name in telemetry)]]}
    if own.labels_path.is_file():
        tables["labels"] = own.labels()
    if (recording / PREDICTIONS).is_file():
        tables["predictions"] = read_table(recording / PREDICTIONS, (TIME,), "predict", None)
    counts: dict[str, int] = {}
    context = foxglove.Context()

    def log(channel: Any, message: Any, moment: int) -> None:
        channel.log(message, log_time=moment)
        counts[channel.topic()] = counts.get(channel.topic(), 0) + 1

    with atomic_path(output) as temporary, foxglove.open_mcap(temporary, context=context) as file:
        file.write_metadata("recording", {"name": own.name, "zone": zone, "drivetrain": own.drivetrain})
        camera = foxglove.channels.CompressedImageChannel(CAMERA, context=context)
        for time, path in own.frames().items():
            if time in moments and is_whole(path):
                kind = "png" if path.suffix.lower() == ".png" else "jpeg"
                stamp = messages.Timestamp(*divmod(moments[time], 10**9))
                content = path.read_bytes()
                image = messages.CompressedImage(timestamp=stamp, frame_id="camera", data=content, format=kind)
                log(camera, image, moments[time])
        if own.annotations_path.is_file():
            boxes = foxglove.channels.ImageAnnotationsChannel(BOXES, context=context)
            for time, message in _boxes(own, messages):
                if time in moments:
                    log(boxes, message, moments[time])
        for name, table in tables.items():
            channel = foxglove.Channel(f"/{name}", schema=_schema(name, table), context=context)
            texts = table.drop(columns=TIME).to_json(orient="records", lines=True).splitlines()
            for time, text in zip(table[TIME], texts, strict=True):
                if time in moments:
                    log(channel, text.encode(), moments[time])
    return counts


def _boxes(own: Recording, messages: Any) -> Any:
    """Time and `ImageAnnotations` of each annotated frame: boxes with class and confidence, px of the frame."""
    annotations, names, region = own.annotations(), own.class_names(), own.annotated_region()
    colour = messages.Color(**dict(zip("rgba", COLOUR, strict=True)))
    point = messages.Point2
    for index, time in enumerate(annotations.time):
        outlines, texts = [], []
        for x1, y1, x2, y2, confidence, kind in annotations.frame(index).tolist():
            left, top, right, bottom = x1 + region.x, y1 + region.y, x2 + region.x, y2 + region.y
            corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
            outlines.append(
                messages.PointsAnnotation(
                    type=messages.PointsAnnotationType.LineLoop,
                    points=[point(x=x, y=y) for x, y in corners],
                    outline_color=colour,
                    thickness=THICKNESS,
                )
            )
            name = names[int(kind)] if int(kind) < len(names) else f"class {int(kind)}"
            texts.append(
                messages.TextAnnotation(
                    position=point(x=left, y=top), text=f"{name} {confidence:.2f}", font_size=FONT, text_color=colour
                )
            )
        yield time, messages.ImageAnnotations(points=outlines, texts=texts)


def _schema(title: str, table: pd.DataFrame) -> dict[str, Any]:
    """The JSON schema of a table's rows."""
    properties: dict[str, Any] = {}
    for name, kind in table.drop(columns=TIME).dtypes.items():
        is_flag, is_number = pd.api.types.is_bool_dtype(kind), pd.api.types.is_numeric_dtype(kind)
        unit = CHANNELS[str(name)].unit if name in CHANNELS else ""
        type_ = "boolean" if is_flag else "number" if is_number else "string"
        properties[str(name)] = {"type": type_} | ({"description": unit} if unit else {})
    return {"type": "object", "title": title, "properties": properties}
