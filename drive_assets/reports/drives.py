"""Report pages of recordings, their annotations and their labels."""

from dataclasses import asdict

import cv2
import numpy as np

from drive_assets.reports.links import file_link
from drive_assets.reports.page import Cell, Film, Page, Picture, Section, Table
from drive_assets.resources.storage import Storage
from model.annotation.plots import annotation_overview, framed_boxes
from model.common.figures import png_bytes
from model.common.images import evenly, small_jpeg
from model.recording.folder import Recording, inspect_recording
from model.recording.plots import drive_timeline
from model.recording.schema import BINARY_LABELS

TILES, TILE_WIDTH, TILE_BYTES = 9, 400, 40_000
FIGURE_BYTES = 200_000
FILM_FRAMES = 300
"""In one part of a film: half a minute to watch, seconds to draw."""


def recording_page(storage: Storage, name: str) -> Page:
    """Frames over the drive, its telemetry and labels over time, dropped rows, and the dialect of the file.

    Raises:
        DataError: the recording cannot be read.
    """
    recording = Recording(storage.recording(name))
    report = inspect_recording(recording.folder, most_unreadable=1.0)
    telemetry = report.telemetry
    counts = {key: value for key, value in telemetry.to_dict().items() if value or key in ("rows", "valid")}
    lost = Table.of({key: getattr(report, key) for key in report.examples})
    examples = [(key.replace("_", " "), ", ".join(times)) for key, times in report.examples.items() if times]
    return Page(
        f"Recording {name}",
        facts={
            "minutes": round(telemetry.duration_s / 60, 1),
            "rows": telemetry.rows,
            "valid rows": telemetry.valid,
            "frames": report.frames,
            "usable frames": report.usable_frames,
            "MB of frames": round(report.frame_bytes / 1e6, 1),
        },
        sections=[
            Section("Frames over the drive", pictures=_frames(storage, recording), side_by_side=True),
            Section("Telemetry and labels", pictures=[_timeline(recording)]),
            Section("Telemetry rows", table=Table.of(counts)),
            Section("Frames that cannot be used", table=lost),
            *([Section("Examples", table=Table(("", "times"), examples))] if examples else []),
            Section("Dialect of the file", table=Table.of(asdict(telemetry.dialect))),
        ],
    )


def annotations_page(storage: Storage, name: str) -> Page:
    """Frames with boxes, detections over the drive, how it was annotated, and the drive as a film.

    Raises:
        DataError: the annotations cannot be read.
    """
    recording = Recording(storage.recording(name))
    annotations, details = recording.annotations(), recording.details
    region = recording.annotated_region()
    picked = evenly(len(annotations), TILES)
    tiles = framed_boxes(recording, annotations, picked, TILE_WIDTH)
    shown = ("weights", "backend", "class_names", "frames_per_s", "resumed", "unreadable", "other_size", "missing")
    known = {key: details[key] for key in shown if key in details}
    return Page(
        f"Annotations of {name}",
        facts={
            "annotated frames": len(annotations),
            "vehicles": int(annotations.count.sum()),
            "vehicles a frame": round(float(annotations.count.mean()), 2) if len(annotations) else 0,
            "frames without vehicle": int((annotations.count == 0).sum()),
        },
        sections=[
            Section(
                "Frames with their boxes",
                f"The region of interest: {region.width} x {region.height} px at ({region.x}, {region.y}).",
                pictures=[
                    Picture(
                        small_jpeg(tile, TILE_BYTES),
                        annotations.time[i],
                        file_link(storage, recording.folder / annotations.filename[i]),
                    )
                    for i, tile in zip(picked, tiles, strict=True)
                ],
                side_by_side=True,
            ),
            Section(
                "Detections over the drive",
                pictures=[Picture(png_bytes(annotation_overview(annotations, name), FIGURE_BYTES), "")],
            ),
            Section("How it was annotated", table=Table.of(known)),
            Section("Film", "Drawn when it is first played, which takes some seconds.", films=_films(recording)),
        ],
    )


def labels_page(storage: Storage, name: str) -> Page:
    """How often each label is true, how often it is unknown, and when.

    Raises:
        DataError: the labels cannot be read.
    """
    recording = Recording(storage.recording(name))
    labels = recording.labels()
    rows: list[list[Cell]] = []
    for label in BINARY_LABELS:
        known, true = int(labels[label].count()), int(labels[label].sum())
        rows.append([label, true, known, len(labels) - known, f"{true / known:.1%}" if known else None])
    return Page(
        f"Labels of {name}",
        f"What the driver does one to five seconds after each of {len(labels):,} rows, looked up by time.",
        facts={row[0]: row[4] for row in rows if row[0] in ("brake_1s", "brake_2s", "coast_1s", "coast_2s")},
        sections=[
            Section("Over time", pictures=[_timeline(recording)]),
            Section("Rates", table=Table(("label", "true", "known", "unknown", "rate"), rows)),
        ],
    )


def film_parts(recording: Recording) -> list[slice]:
    """The annotated frames of a recording, in parts of a film."""
    count = len(recording.annotations())
    return [slice(start, min(start + FILM_FRAMES, count)) for start in range(0, count, FILM_FRAMES)]


def _films(recording: Recording) -> list[Film]:
    if not recording.labels_path.is_file():
        return []
    times = recording.annotations().time
    return [
        Film(f"film/{recording.name}/{number}", f"{times[part.start]} to {times[part.stop - 1]}")
        for number, part in enumerate(film_parts(recording))
    ]


def _timeline(recording: Recording) -> Picture:
    telemetry, _ = recording.telemetry()
    labels = recording.labels() if recording.labels_path.is_file() else None
    return Picture(png_bytes(drive_timeline(telemetry, labels, recording.name), FIGURE_BYTES), "")


def _frames(storage: Storage, recording: Recording) -> list[Picture]:
    files = list(recording.frames().items())
    pictures = []
    for index in evenly(len(files), TILES):
        time, path = files[index]
        image = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2)
        if image is not None:
            size = (TILE_WIDTH, round(image.shape[0] * TILE_WIDTH / image.shape[1]))
            tile = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            pictures.append(Picture(small_jpeg(tile, TILE_BYTES), time, file_link(storage, path)))
    return pictures
