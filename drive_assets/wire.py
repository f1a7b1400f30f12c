"""What op and worker exchange as JSON: the work, and a report of each job."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param
from pydantic import ConfigDict, TypeAdapter

from model.common.files import write_json

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """What the op sends to the worker."""

    task: str
    """A name in `drive_assets.tasks.TASKS`."""
    jobs: list[Any]
    """Each is the JSON of the task's job class."""
    parent: int = 0
    """The process that the worker must not outlive; 0 for cluster jobs, which outlive the process that started them."""
    version: str = ""
    """`version()` of the op; a worker of another version refuses the work. Empty: same machine, not compared."""
    reports: str = ""
    """File with the messages of earlier attempts, so that no job is done twice; may be absent."""


@dataclass(frozen=True)
class Report:
    """The result or the error of a job."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    """A failure that another version reported in another field is not taken for a success."""
    job: int
    """Its number in `Work.jobs`."""
    error: str = ""
    """Why there is no result, for the user; empty if the job succeeded."""
    passing: bool = False
    """Whether a failed job may succeed later without anybody changing anything."""
    value: Any = None
    """JSON of the task's result class."""


def to_wire(value: Any) -> Any:
    """A dataclass or config as JSON-ready values; paths become text."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def from_wire(cls: type[T], content: Any) -> T:
    """The inverse of `to_wire`. Raises a ValueError that names the field if `content` does not fit `cls`."""
    return TypeAdapter(cls).validate_python(content)


@cache
def version() -> str:
    """The package's version and a fingerprint of its Python files, since a checkout changes without a new version."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted([*(root / "drive_assets").rglob("*.py"), *(root / "model").rglob("*.py")]):
        digest.update(f"{path.relative_to(root)} ".encode() + path.read_bytes())
    return f"{installed('drive-assets')}+{digest.hexdigest()[:12]}"


def hand_over(work: Work, context: Path, messages: Path) -> dict[str, str]:
    """Write `work` to the file `context` -> the variables by which Dagster Pipes in the worker finds both files."""
    write_json(context, {"run_id": "", "extras": to_wire(work)})
    paths = {DAGSTER_PIPES_CONTEXT_ENV_VAR: context, DAGSTER_PIPES_MESSAGES_ENV_VAR: messages}
    return {name: encode_param({"path": str(path)}) for name, path in paths.items()}


class Messages:
    """Pipes messages in a file that grows, perhaps on another machine. Each read returns the new ones.

    The file is opened for each read, so that an NFS client asks its server. A line without an end is incomplete, and
    one that a killed worker left unfinished is skipped.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def read(self) -> list[dict[str, Any]]:
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read()
        except FileNotFoundError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self.offset += len(complete)
        messages = []
        for line in complete.splitlines():
            with contextlib.suppress(ValueError):
                messages.append(json.loads(line))
        return messages


def reports_of(messages: Iterable[Mapping[str, Any]]) -> dict[int, Report]:
    """The last report of each job among Pipes messages, by the job's number. Those of other versions are skipped."""
    reports = {}
    for message in messages:
        if message.get("method") == "report_custom_message":
            with contextlib.suppress(ValueError):
                report = from_wire(Report, message["params"]["payload"])
                reports[report.job] = report
    return reports
