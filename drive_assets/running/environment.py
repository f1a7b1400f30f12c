"""Settings that the environment can override, validated."""

import os
from typing import Annotated, Any, TypeVar

import dagster as dg
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from model.common.errors import DataError

T = TypeVar("T")


def _checked_by_dagster(cron: str) -> str:
    try:
        dg.ScheduleDefinition(name="any", job_name="any", cron_schedule=cron)
    except dg.DagsterInvalidDefinitionError:
        raise ValueError("no cron schedule") from None
    return cron


Cron = Annotated[str, AfterValidator(_checked_by_dagster)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def setting(variable: str, kind: Any, default: T) -> T:
    """Value of an environment variable of kind `Cron`, `Count` or `Seconds`; the default if it is unset or blank."""
    text = os.environ.get(variable, "").strip()
    try:
        value: T = TypeAdapter(kind).validate_python(text) if text else default
    except ValidationError as error:
        reason = error.errors()[0]["msg"].lower()
        raise DataError(f"{variable} is {text!r} ({reason}): expected a value such as {default!r}.") from None
    return value
