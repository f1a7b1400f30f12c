"""Jobs of a run that one process of a cluster does, one after the other, and what is known of them."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from drive_assets.resources.cluster.job_folder import JobFolder, Messages, Submission
from drive_assets.resources.compute import outcome
from drive_assets.resources.failures import JobsGoOn
from drive_assets.tasks import Task
from drive_assets.wire import Report, Work, reports_of
from model.common.errors import DataError, PassingError

CLOCKS_S = 2.0
"""What times of files may differ by."""


class NotNow(Exception):
    """The cluster does not answer, or takes no more jobs at the moment."""


@dataclass(frozen=True)
class State:
    """How a job stands, as the cluster says."""

    phase: Literal["waiting", "running", "stuck", "ended", "gone"]
    """`stuck` never starts; `gone`: the cluster does not know it any more."""
    reason: str = ""
    """For the user: why it waits or is stuck, or how it ended."""
    passing: bool = True
    """Of a job that is stuck or has ended: whether another try may succeed with nothing put right by anyone."""
    memory: bool = False
    """Whether it was, or may have been, killed for memory."""


@dataclass
class Batch:
    """Jobs that one process does."""

    folder: JobFolder
    numbers: list[int]
    """Their places among the jobs of the run."""
    work: Work
    outputs: list[Path]
    """What each makes."""
    submission: Submission = field(default_factory=lambda: Submission("", 0, ""))
    messages: Messages = field(default_factory=lambda: Messages(Path()))
    reports: dict[int, Report] = field(default_factory=dict)
    kept: list[Report] = field(default_factory=list)
    """Of an earlier submission: what need not be done again."""
    found: str = ""
    """What became of that submission, for the log."""
    reason: str = ""
    ended_at: float | None = None
    error: DataError | None = None
    told: set[int] = field(default_factory=set)
    """Places whose result or error was handed on."""

    @property
    def is_open(self) -> bool:
        return len(self.reports) < len(self.work.jobs) and self.error is None

    def follow(self, submission: Submission) -> None:
        self.submission, self.messages = submission, Messages(self.folder.messages(submission.name))

    def read(self, log: dg.DagsterLogManager) -> None:
        """Take the new messages: reports are kept, lines go to the log of the run."""
        new = self.messages.read()
        self.reports |= reports_of(new)
        for message in new:
            if message["method"] == "log":
                log.log(message["params"]["level"], message["params"]["message"])

    def news(self, task: Task[Any, Any]) -> Iterator[tuple[int, Any]]:
        """What came of jobs that was not handed on yet, each with its place among those of the run."""
        for place, number in enumerate(self.numbers):
            if place not in self.told and (place in self.reports or self.error is not None):
                self.told.add(place)
                yield number, outcome(task, self.reports[place]) if place in self.reports else self.error

    def fail(self, state: State) -> None:
        """Give up: the message names the job and its log, and how that ends."""
        tail = self.folder.log_tail(self.submission.name)
        held = self.folder.held(self.submission.name) if state.memory else ""
        memory = f" It held {held} when it last looked." if held else ""
        text = f"Job {self.submission.id} {state.reason}{memory} Its log: {self.folder.log(self.submission.name)}"
        self.error = (PassingError if state.passing else DataError)(f"{text}\n{tail}" if tail else text)


class Patience:
    """How long a cluster that does not answer is waited for, and how often it is asked."""

    def __init__(self, limit_s: float, poll_s: float, log: dg.DagsterLogManager) -> None:
        self.limit_s, self.poll_s, self.log = limit_s, poll_s, log
        self.since: float | None = None
        self.wait_s = poll_s
        """Until the next question."""

    def bear(self, error: NotNow) -> None:
        """Say so once; JobsGoOn when it lasts too long: the jobs go on, and a retry takes them over."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
            self.log.warning(f"{error} Asked again for up to {self.limit_s:.0f} s; jobs go on.")
        if now - self.since > self.limit_s:
            raise JobsGoOn(f"Given up after {now - self.since:.0f} s: {error} Jobs go on; a retry takes them over.")
        self.wait_s = min(2 * self.wait_s, max(60.0, self.poll_s))

    def ended(self) -> None:
        self.since, self.wait_s = None, self.poll_s


def stamp(path: Path) -> tuple[str, int, int] | None:
    """What a file's content is known by, without reading it; None if it is absent."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime_ns


def output_stands(output: Path, messages: Path) -> bool:
    """Whether what a job made is still there, and nobody has written it anew since the last message."""
    files = [p for p in output.iterdir() if not p.name.startswith(".")] if output.is_dir() else [output]
    last = messages.stat().st_mtime + CLOCKS_S
    return bool(files) and all(path.exists() and path.stat().st_mtime <= last for path in files)
