"""The folder of a job that runs on a cluster: `<data root>/jobs/<key>/`, through which op and worker speak.

Neither needs a network to the other, and either may die: what was submitted, what was reported and who took the result
stand in files. A submission has a name of its own, so that a worker that a cluster lost cannot write into the files of
the next one.
"""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param
from filelock import FileLock, Timeout

from drive_assets.wire import Report, Work, from_wire, reports_of, to_wire
from model.common.files import atomic_path, write_json

LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Submission:
    """What is known of a job that was handed to a cluster."""

    name: str
    """Unique; several folders have the same if they are one job array."""
    index: int
    """Place in the array."""
    run: str
    """The Dagster run that submitted it."""
    id: str = ""
    """What the cluster calls it; empty until that is known."""
    taken_by: str = ""
    """The Dagster run that took what came of it last; empty: none has yet."""


class JobFolder:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def key(self) -> str:
        return self.path.name

    def submission(self) -> Submission | None:
        """The last one, if there is one."""
        try:
            return from_wire(Submission, json.loads((self.path / "submission.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def note(self, submission: Submission) -> None:
        write_json(self.path / "submission.json", to_wire(submission))

    def take(self, by: str) -> None:
        """Note that a run has what came of the job; addresses with secrets are not needed any more."""
        if submission := self.submission():
            self.note(replace(submission, taken_by=by))
            self.environment(submission.name).unlink(missing_ok=True)

    def messages(self, name: str) -> Path:
        return self.path / f"{name}.messages.jsonl"

    def log(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def environment(self, name: str) -> Path:
        return self.path / f"{name}.env"

    def memory(self, name: str) -> Path:
        """The most memory that the worker has held, bytes, as it noted itself."""
        return self.path / f"{name}.memory"

    def held(self, name: str) -> str:
        """That, for people; empty if it is not known."""
        try:
            return f"{int(self.memory(name).read_text()) / 2**20:,.0f} MiB"
        except (FileNotFoundError, ValueError):
            return ""

    def reports(self) -> dict[int, Report]:
        """What the workers of the last submission have reported, by the number of the job."""
        submission = self.submission()
        return reports_of(read_messages(self.messages(submission.name))) if submission else {}

    def prepare(
        self,
        submission: Submission,
        work: Work,
        context: Mapping[str, Any],
        env: Mapping[str, str],
        kept: Iterable[Report],
    ) -> None:
        """Write all that a worker reads; `kept` is what earlier submissions have done already."""
        name, earlier = submission.name, self.submission()
        self.path.mkdir(parents=True, exist_ok=True)
        messages, given = self.messages(name), self.path / f"{name}.context.json"
        # Made here, so that a node's cache of the folder does not hold that it is absent.
        lines = [json.dumps({"method": "report_custom_message", "params": {"payload": to_wire(r)}}) for r in kept]
        messages.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        write_json(given, {**context, "extras": to_wire(replace(work, reports=str(messages)))})
        settings = {
            **env,
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"path": str(given)}),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"path": str(messages)}),
        }
        with atomic_path(self.environment(name)) as temporary:
            temporary.touch(mode=0o600)  # may hold addresses with passwords
            lines = [f"export {key}={shlex.quote(value)}" for key, value in settings.items()]
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.note(submission)
        if earlier is not None:
            for path in self.path.glob(f"{earlier.name}.*"):
                if path != self.log(earlier.name):
                    path.unlink()

    def log_tail(self, name: str) -> str:
        """The end of the job's log: it may have gigabytes."""
        try:
            with self.log(name).open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - LOG_TAIL_BYTES))
                lines = stream.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-15:])


def lives(lock: str) -> bool:
    """Whether a worker, on whatever node, holds the lock of its job; empty: there is none."""
    if not lock or not Path(lock).is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


class Messages:
    """Pipes messages of a file that grows on another machine; each read gives the new ones.

    Opened anew each time: that has NFS ask the server. What ends without a line's end is not complete yet.
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
        return [message for line in complete.splitlines() if (message := _parsed(line)) is not None]


def read_messages(path: Path) -> list[dict[str, Any]]:
    """All complete messages of a file; none if it is absent."""
    return Messages(path).read()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A message; None for a line that a killed worker left unfinished, and for the empty one that ends such a line."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
