"""What passes between an op and its worker, as JSON: the work, and a report of each job."""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """What the op hands to the worker."""

    task: str
    """A name in `drive_assets.tasks.TASKS`."""
    jobs: list[Any]
    """JSON of the task's job class, each."""
    parent: int
    """The process that the worker must not outlive."""


@dataclass(frozen=True)
class Failed:
    """Why a job has no result."""

    error: str
    """For the user."""
    passing: bool = False
    """Whether the same job may succeed later, with nothing put right by anyone."""


@dataclass(frozen=True)
class Report:
    """What came of a job."""

    job: int
    """Its number in `Work.jobs`."""
    failed: Failed | None = None
    value: Any = None
    """JSON of the task's result class, where it did not fail."""


def to_wire(value: Any) -> Any:
    """A dataclass or config as JSON-ready values; paths become text."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def from_wire(cls: type[T], content: Any) -> T:
    """The dataclass or config that `to_wire` was given. ValueError if `content` is none such; names what is wrong."""
    return TypeAdapter(cls).validate_python(content)
