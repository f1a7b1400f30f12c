"""The report page of a recording's predictions: a timeline, and tables of what was found, missed and false."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from drive_assets.reports.drives import small_frame
from drive_assets.reports.links import file_link
from drive_assets.reports.page import Cell, Link, Page, Section, Table
from drive_assets.resources.storage import Storage
from model.common.pages import picture
from model.evaluation.forecast import (
    FALSE,
    FORECAST,
    FOUND,
    MISSED,
    PREDICTIONS,
    REASON,
    UNKNOWN,
    Forecast,
    read_predictions,
)
from model.recording.folder import Recording
from model.recording.labels import current_state
from model.recording.schema import STATES, TIME

EMBEDDED, EMBEDDED_WIDTH = 600, 160
"""Most thumbnails in a page that stands alone, and their width, px."""
IN_SAMPLE = {
    "train": "This recording was in train: the network has seen it, and predicts it better than other drives.",
    "val": "This recording was in val: epoch, calibration and thresholds were chosen on it, which flatters figures.",
    "test": "This recording was in test: the network has not seen it.",
    "": "No split of the current data set holds a recording of this name.",
}


def predictions_page(storage: Storage, name: str) -> Page:
    """The page as the report server draws it: it serves the thumbnails."""
    recording = Recording(storage.recording(name))
    pictures = {time: f"thumbnail/{name}/{quote(path.name, safe='')}" for time, path in recording.frames().items()}
    files = [Link(file, file_link(storage, recording.folder / file)) for file in (PREDICTIONS, FORECAST)]
    return _page(recording, pictures, files)


def page_alone(recording: Recording) -> Page:
    """The page with its thumbnails inside, for a file that needs no server."""
    frames = list(recording.frames().items())
    frames = frames[:: -(-len(frames) // EMBEDDED) or 1]
    with ThreadPoolExecutor() as pool:
        small = pool.map(lambda item: small_frame(item[1], EMBEDDED_WIDTH), frames)
        pictures = {time: picture(content) for (time, _), content in zip(frames, small, strict=True) if content}
    return _page(recording, pictures, [])


def _page(recording: Recording, pictures: dict[str, str], files: list[Link]) -> Page:
    forecast, table = Forecast.read(recording.folder / FORECAST), read_predictions(recording.folder)
    telemetry, _ = recording.telemetry()
    reasons = table[REASON][table[REASON] != ""].value_counts()
    counts: list[list[Cell]] = [
        [
            task,
            threshold.on if threshold.on is not None else threshold.reason,
            *(forecast.count(task, kind) for kind in (FOUND, MISSED, FALSE, UNKNOWN)),
        ]
        for task, threshold in forecast.thresholds.items()
    ]
    listed: list[list[Cell]] = [
        [Link(m.time, f"#row-{m.row}"), m.task, m.kind, m.probability, "" if m.lead_s is None else m.lead_s]
        for m in forecast.moments
        if m.kind in (FOUND, MISSED, FALSE, UNKNOWN)
    ]
    return Page(
        f"Predictions for {recording.name}",
        f"{forecast.chosen} It was trained on data version {forecast.data_version}. {IN_SAMPLE[forecast.split]}",
        facts={
            "network": forecast.architecture,
            "rows": forecast.rows,
            "predicted": forecast.predicted,
            "false alarms an hour on val, at most": forecast.budget,
        },
        sections=[
            Section("Timeline", timeline=_timeline(forecast, table, telemetry, recording, pictures)),
            Section(
                "At the thresholds",
                "Counted where the label is known, as in the evaluation.",
                Table(("task", "threshold", "onsets found", "missed", "false alarms", UNKNOWN), counts),
            ),
            Section("Rows without prediction", table=Table.of({str(text): int(n) for text, n in reasons.items()})),
            Section("Moments", table=Table(("time", "task", "kind", "highest probability", "s ahead"), listed)),
            *([Section("Files", links=files)] if files else []),
        ],
    )


def _timeline(
    forecast: Forecast, table: pd.DataFrame, telemetry: pd.DataFrame, recording: Recording, pictures: dict[str, str]
) -> dict[str, Any]:
    """What timeline.js draws; arrays have a value a row."""
    states = current_state(telemetry, recording.label_config()) == 1
    tasks = [
        {
            "name": task,
            "threshold": threshold.on,
            "probability": [None if np.isnan(p) else round(p, 3) for p in table[task].tolist()],
            "observed": states[:, STATES.index(task.split("_")[0])].astype(int).tolist(),
        }
        for task, threshold in forecast.thresholds.items()
    ]
    return {
        "time": table[TIME].tolist(),
        "speed": telemetry["SPEED"].round(1).tolist(),
        "tasks": tasks,
        "moments": [moment.model_dump(include={"task", "kind", "row", "end"}) for moment in forecast.moments],
        "pictures": [pictures.get(time, "") for time in table[TIME]],
    }


def standing_alone(recording: Path) -> Path:
    """Where the page that needs no server is."""
    return recording / "predictions.html"
