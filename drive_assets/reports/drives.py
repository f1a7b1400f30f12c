"""Report pages of recordings, their annotations and their labels."""

from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from drive_assets.reports.links import file_link
from drive_assets.reports.page import Cell, Film, Page, Picture, Section, Table, drawn
from drive_assets.resources.storage import Storage
from model.annotation.plots import annotation_overview, framed_boxes
from model.common.errors import DataError
from model.common.images import evenly, small_jpeg
from model.recording.folder import Recording, inspect_recording
from model.recording.frame_files import is_frame
from model.recording.labels import brake_source, future_labels, row_reasons
from model.recording.plots import drive_timeline
from model.recording.schema import SLOW_LABELS, TASKS

TILES, TILE_WIDTH, TILE_BYTES = 9, 400, 40_000
THUMBNAIL_WIDTH, FRAME_WIDTH = 160, 320
DETECTIONS = "Vehicles in each frame over the drive, and how confident the detector is"
CAPTION = "Speed and pedal over the drive, where the driver brakes, and the labels"
FILM_FRAMES = 300
"""In one part of a film: half a minute to watch, seconds to draw."""


def recording_page(storage: Storage, name: str) -> Page:
    """Frames over the drive, its telemetry and labels over time, dropped rows, and the dialect of the file."""
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
            *([Section("Source", table=Table.of(_source(recording)))] if recording.imported else []),
            Section("Frames over the drive", pictures=_frames(storage, recording), side_by_side=True),
            Section("Telemetry and labels", pictures=[_timeline(recording)]),
            Section("Telemetry rows", table=Table.of(counts)),
            Section("Frames that cannot be used", table=lost),
            *([Section("Examples", table=Table(("", "times"), examples))] if examples else []),
            Section("Dialect of the file", table=Table.of(asdict(telemetry.dialect))),
        ],
    )


def annotations_page(storage: Storage, name: str) -> Page:
    """Frames with boxes, detections over the drive, how it was annotated, and the drive as a film."""
    recording = Recording(storage.recording(name))
    annotations, details = recording.annotations(), recording.details
    region = recording.annotated_region()
    picked = evenly(len(annotations), TILES)
    tiles = framed_boxes(recording, annotations, picked, TILE_WIDTH)
    shown = ("weights", "trained_on", "backend", "class_names", "frames_per_s", "resumed", "unreadable", "other_size",
             "missing")  # fmt: skip
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
                        f"Frame at {annotations.time[i]} with {annotations.count[i]} boxes",
                    )
                    for i, tile in zip(picked, tiles, strict=True)
                ],
                side_by_side=True,
            ),
            Section(
                "Detections over the drive",
                pictures=[drawn(annotation_overview(annotations, name), DETECTIONS)],
            ),
            Section("How it was annotated", table=Table.of(known)),
            Section("Film", "Drawn when it is first played, which takes some seconds.", films=_films(recording)),
        ],
    )


def labels_page(storage: Storage, name: str) -> Page:
    """How often each label is true, how often it is unknown, when, and why."""
    recording = Recording(storage.recording(name))
    telemetry, config = recording.telemetry()[0], recording.label_config()
    labels = recording.labels().assign(**future_labels(telemetry, config)[list(SLOW_LABELS)])
    reasons = {"labels of the brake": brake_source(telemetry)} | row_reasons(telemetry, config.coast_threshold)
    rows: list[list[Cell]] = []
    for label in TASKS:
        known, true = int(labels[label].count()), int(labels[label].sum())
        rows.append([label, true, known, len(labels) - known, f"{true / known:.1%}" if known else None])
    return Page(
        f"Labels of {name}",
        f"What the driver does one to five seconds after each of {len(labels):,} rows, looked up by time.",
        facts={row[0]: row[4] for row in rows if row[0] in ("brake_1s", "brake_2s", "coast_1s", "coast_2s")},
        sections=[
            Section("Over time", pictures=[_timeline(recording)]),
            Section("Rates", table=Table(("label", "true", "known", "unknown", "rate"), rows)),
            Section("Where they come from, and rows in which they are unknown", table=Table.of(reasons)),
        ],
    )


def _source(recording: Recording) -> dict[str, Cell]:
    """Where an imported recording comes from, and what to know about it."""
    origin = recording.imported
    known = {key: origin[key] for key in ("kind", "licence", "attribution", "imported") if origin.get(key)}
    doubt, notes = origin.get("offset_doubt_s"), enumerate(origin.get("notes", []), start=1)
    trusted = "the clocks are trusted" if doubt is None else f"estimated, within {doubt:.2g} s"
    return {
        **known,
        "drivetrain": recording.drivetrain,
        "offset of the log's clock": f"{origin.get('offset_s', 0):+.2f} s, {trusted}",
        **{f"note {number}": note for number, note in notes},
    }


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
    return drawn(drive_timeline(telemetry, labels, recording.name), CAPTION)


def thumbnail(recording: Recording, frame: str = "") -> bytes:
    """A JPEG of a frame, by default one from the middle of a recording. DataError if it cannot be read."""
    if frame:
        path = recording.folder / frame
        content = small_frame(path, FRAME_WIDTH) if is_frame(frame) and path.parent == recording.folder else b""
    else:
        frames = list(recording.frames().values())
        content = small_frame(frames[len(frames) // 2], THUMBNAIL_WIDTH) if frames else b""
    if not content:
        raise DataError(f"{recording.folder} has no readable frame {frame or 'in the middle'}.")
    return content


def small_frame(path: Path, width: int) -> bytes:
    """A frame as a small JPEG; empty if it cannot be read."""
    image = _tile(path, width)
    return b"" if image is None else small_jpeg(image, TILE_BYTES)


def _frames(storage: Storage, recording: Recording) -> list[Picture]:
    files = list(recording.frames().items())
    shown = [(*files[index], _tile(files[index][1], TILE_WIDTH)) for index in evenly(len(files), TILES)]
    return [
        Picture(small_jpeg(tile, TILE_BYTES), time, file_link(storage, path), f"Frame at {time}")
        for time, path, tile in shown
        if tile is not None
    ]


def _tile(path: Path, width: int) -> npt.NDArray[np.uint8] | None:
    """A picture scaled to a width, px; None if it cannot be read."""
    wide = {cv2.IMREAD_REDUCED_COLOR_2: width > FRAME_WIDTH, cv2.IMREAD_REDUCED_COLOR_4: width > THUMBNAIL_WIDTH}
    image = cv2.imread(str(path), next((mode for mode in wide if wide[mode]), cv2.IMREAD_REDUCED_COLOR_8))
    if image is None:
        return None
    size = (width, round(image.shape[0] * width / image.shape[1]))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
