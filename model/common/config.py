"""Configuration: frozen pydantic models that the models' code and the launchpad share. Each number stands once."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from model.common.errors import DataError


class Config(BaseModel):
    """Base of every config. A field has a default, a range and a sentence that describes it, with its unit.

    The launchpad's class of a config is `class SomeLaunchpad(SomeConfig, Launchpad)`: the same object, not a copy.
    Fields are of types that Dagster knows: numbers, str, bool, Literal, list, dict, None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        """Raises DataError that names each unknown key and each value that does not fit its field."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise DataError(f"{type(self).__name__}: {problems(error, type(self))}") from None

    def replace(self, **values: Any) -> Self:
        """A copy with other values, validated again."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | values)


def changed_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The options whose values differ, such as `stride 1 instead of 5`, of those that both have."""
    changed = [name for name in now if name in before and before[name] != now[name]]
    return ", ".join(f"{name} {now[name]} instead of {before[name]}" for name in changed)


def problems(error: ValidationError, cls: type[BaseModel]) -> str:
    """Each problem as `field value: what was expected`."""
    found = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            found.append(f"{place} is unknown: expected one of {', '.join(cls.model_fields)}")
            continue
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        found.append(f"{place} {problem['input']!r}: expected {message}" if place else message)
    return "; ".join(found) + "."


def fingerprint(*parts: Any) -> str:
    """Twelve hex digits that identify JSON-ready `parts`, equal for equal content."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
