"""The predictions of a recording: the contents of predictions.csv and predictions.json."""

from pathlib import Path

import pandas as pd

from model.evaluation.results import AlarmThreshold, Result
from model.recording.schema import TIME
from model.recording.tables import read_table

PREDICTIONS, FORECAST = "predictions.csv", "predictions.json"
ALARMS, REASON = "alarms", "reason"
"""Columns of predictions.csv beside the time and the tasks."""
MISSED, FOUND, ALARM, FALSE, UNKNOWN = "missed", "found", "alarm", "false alarm", "alarm, outcome unknown"
"""Kinds of moments: two of onsets, three of alarms."""


class Moment(Result):
    """An onset, missed or found, or an alarm."""

    task: str
    kind: str
    time: str
    """Of the nearest row, as the recorder spells it"""
    row: int
    """The nearest valid row of the telemetry, from 0"""
    end: int
    """The row at which an alarm ends; of an onset the same"""
    probability: float
    """The highest while the alarm rings, or in the span before the onset in which an alarm counts"""
    lead_s: float | None = None
    """From the alarm to the onset that it found"""


class Forecast(Result):
    """The content of predictions.json."""

    architecture: str
    data_version: str
    """Of the splits that the network was trained on"""
    checkpoint: str
    """SHA-256"""
    chosen: str
    """Why this network"""
    split: str
    """Of the data set, that holds a recording of this name; empty if none does"""
    budget: float
    """False alarms per hour that the thresholds keep on val"""
    thresholds: dict[str, AlarmThreshold]
    """By task"""
    rows: int
    predicted: int
    moments: list[Moment]

    def count(self, task: str, kind: str) -> int:
        return sum((moment.task, moment.kind) == (task, kind) for moment in self.moments)


def read_predictions(folder: Path) -> pd.DataFrame:
    """The table in predictions.csv: Time, a probability a task (NaN if there is none), alarms, reason."""
    texts = {TIME: str, ALARMS: str, REASON: str}
    return read_table(folder / PREDICTIONS, list(texts), "predict", texts).fillna({ALARMS: "", REASON: ""})


def predictions_of(folder: Path) -> pd.DataFrame | None:
    """As `read_predictions`; None if the recording is not predicted."""
    return read_predictions(folder) if (folder / PREDICTIONS).is_file() else None
