"""Values that the environment may replace, checked."""

import os

import dagster as dg

from model.common.errors import DataError


def cron_from_environment(variable: str, default: str) -> str:
    """A cron schedule that the environment may replace.

    Raises:
        DataError: it is no cron schedule.
    """
    text = os.environ.get(variable, "").strip() or default
    try:
        dg.ScheduleDefinition(name="probe", job_name="probe", cron_schedule=text)
    except dg.DagsterInvalidDefinitionError as error:
        raise DataError(f"{variable} must be a cron schedule such as {default!r}, not {text!r}.") from error
    return text


def seconds_from_environment(variable: str, default: float) -> float:
    """A number of seconds that the environment may replace.

    Raises:
        DataError: it is none.
    """
    text = os.environ.get(variable, "").strip() or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise DataError(f"{variable} must be a number of seconds, such as {default:.0f}, not {text!r}.")
    return seconds


def count_from_environment(variable: str, default: int) -> int:
    """A number of things, at least 1, that the environment may replace.

    Raises:
        DataError: it is none.
    """
    text = os.environ.get(variable, "").strip() or str(default)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise DataError(f"{variable} must be a whole number from 1, such as {default}, not {text!r}.")
    return int(text)
