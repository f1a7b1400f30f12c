"""The folder of a cluster job, `<data root>/jobs/<key>/`, through which op and worker communicate.

They need no network between them, and either may die: what was submitted, what was reported and which run took the
result are stored in files. Each submission has its own name, so that a worker that the cluster lost cannot write into
the files of the next submission.
"""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from drive_assets.resources.cluster.commands import State
from drive_assets.resources.compute import Group
from drive_assets.wire import Messages, Report, Work, from_wire, hand_over, reports_of, to_wire
from model.common.errors import DataError, PassingError
from model.common.files import atomic_path, write_json

LOG_TAIL_BYTES = 4096
CLOCK_SKEW_S = 2.0
"""By how much the times of files on different machines may differ."""


@dataclass(frozen=True)
class Submission:
    """A job that was handed to the cluster."""

    name: str
    """Unique; the jobs of one job array share it."""
    index: int
    """Place in the array."""
    run: str
    """The Dagster run that submitted it."""
    id: str = ""
    """Slurm's id; empty until it is known."""
    taken_by: str = ""
    """The last Dagster run that took the result; empty if none has."""


class JobFolder:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def submission(self) -> Submission | None:
        """The newest submission, if there is one."""
        try:
            return from_wire(Submission, json.loads((self.path / "submission.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def write_submission(self, submission: Submission) -> None:
        write_json(self.path / "submission.json", to_wire(submission))

    def take(self, submission: Submission, run: str) -> None:
        """Record that a run has a submission's result, and remove its environment, which may hold secrets.

        Another run may have submitted the job again since: that submission stays as it is.
        """
        if (newest := self.submission()) is not None and newest.name == submission.name:
            self.write_submission(replace(newest, taken_by=run))
        self.environment(submission.name).unlink(missing_ok=True)

    def messages(self, name: str) -> Path:
        return self.path / f"{name}.messages.jsonl"

    def log(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def environment(self, name: str) -> Path:
        return self.path / f"{name}.env"

    def reports(self) -> dict[int, Report]:
        """Reports of the newest submission, by the job's number."""
        submission = self.submission()
        return reports_of(Messages(self.messages(submission.name)).read()) if submission else {}

    def prepare(self, submission: Submission, work: Work, env: Mapping[str, str], done: Iterable[Report]) -> None:
        """Write all that a worker reads, and remove an earlier submission's files except its log.

        Args:
            done: reports of earlier submissions whose work need not be repeated.
        """
        name, earlier = submission.name, self.submission()
        self.path.mkdir(parents=True, exist_ok=True)
        messages = self.messages(name)
        # Created here: a node's cache of the folder must not remember that the file is absent.
        lines = [json.dumps({"method": "report_custom_message", "params": {"payload": to_wire(r)}}) for r in done]
        messages.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        paths = hand_over(replace(work, reports=str(messages)), self.path / f"{name}.context.json", messages)
        with atomic_path(self.environment(name)) as temporary:
            temporary.touch(mode=0o600)  # may hold addresses with passwords
            lines = [f"export {key}={shlex.quote(value)}" for key, value in {**env, **paths}.items()]
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.write_submission(submission)
        if earlier is not None:
            for path in self.path.glob(f"{earlier.name}.*"):
                if path != self.log(earlier.name):
                    path.unlink()

    def log_tail(self, name: str) -> str:
        """The end of the job's log, which may be gigabytes long."""
        try:
            with self.log(name).open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - LOG_TAIL_BYTES))
                lines = stream.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-15:])


@dataclass(kw_only=True)
class Batch(Group):
    """Jobs that one cluster job does."""

    folder: JobFolder
    work: Work
    messages: Messages = field(default_factory=lambda: Messages(Path()))
    outputs: list[Path]
    """What each job writes."""
    submission: Submission = field(default_factory=lambda: Submission("", 0, ""))
    waiting_for: str = ""
    """Slurm's last reason why the job waits."""
    ended_at: float | None = None

    def follow(self, submission: Submission) -> None:
        self.submission, self.messages = submission, Messages(self.folder.messages(submission.name))

    def valid_reports(self, reports: dict[int, Report], submission: Submission) -> list[Report]:
        """Reports of results whose output files are as the job left them."""
        messages = self.folder.messages(submission.name)
        return [r for r in reports.values() if not r.error and _is_unchanged(self.outputs[r.job], messages)]

    def fail(self, state: State) -> None:
        """Give the job up. The error names the job, how it ended and its log, and quotes the end of the log."""
        name = self.submission.name
        text = f"Job {self.submission.id} {state.reason} Its log: {self.folder.log(name)}"
        tail = self.folder.log_tail(name)
        self.error = (PassingError if state.retryable else DataError)(f"{text}\n{tail}" if tail else text)


def _is_unchanged(output: Path, messages: Path) -> bool:
    """Whether a job's output is present and was not written since its last message."""
    files = [p for p in output.iterdir() if not p.name.startswith(".")] if output.is_dir() else [output]
    last = messages.stat().st_mtime + CLOCK_SKEW_S
    return bool(files) and all(path.exists() and path.stat().st_mtime <= last for path in files)


def is_worker_alive(lock: str) -> bool:
    """Whether a worker, on any node, holds its job's lock file; False for an empty path."""
    if not lock or not Path(lock).is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
