"""Configuration as frozen dataclasses: each number is defined once, explained, and recorded with its results."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def option(default: Any, help: str) -> Any:
    """A dataclass field with a default (copied if a dict) and the sentence that the launchpad shows for it."""
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON-ready values (tuples become lists)."""
    content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return content


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build config `cls` from JSON-ready values (lists become tuples).

    Raises:
        TypeError: a key is not a field of `cls`.
    """
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def fingerprint(*parts: Any) -> str:
    """Twelve hex digits that identify JSON-ready `parts`, equal for equal content."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
