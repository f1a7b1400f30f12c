"""What passes between an op and its worker, as JSON: the work, and a report of each job."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path
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
    parent: int = 0
    """The process that the worker must not outlive; 0 for a job of a cluster, which outlives whoever submitted it."""
    version: str = ""
    """`version()` of the op; a worker with another refuses the work. Empty: the same machine, not compared."""
    reports: str = ""
    """The file of messages that earlier attempts at this work left, so that no job is done twice; may be absent."""


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


@cache
def version() -> str:
    """The version of this package and, since a checkout changes without one, a fingerprint of its Python files."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted([*(root / "drive_assets").rglob("*.py"), *(root / "model").rglob("*.py")]):
        digest.update(f"{path.relative_to(root)} ".encode() + path.read_bytes())
    return f"{installed('drive-assets')}+{digest.hexdigest()[:12]}"


def reports_of(messages: list[dict[str, Any]]) -> dict[int, Report]:
    """The last report of each job among Pipes messages, by the job's number."""
    custom = [message["params"]["payload"] for message in messages if message.get("method") == "report_custom_message"]
    return {report.job: report for report in (from_wire(Report, payload) for payload in custom)}
