"""Jobs of a run that one cluster job does, one after the other, and their state."""

from dataclasses import dataclass, field
from pathlib import Path

from drive_assets.resources.cluster.commands import State
from drive_assets.resources.cluster.job_folder import JobFolder, Submission
from drive_assets.resources.compute import Group
from drive_assets.wire import Messages, Report, Work
from model.common.errors import DataError, PassingError

CLOCK_SKEW_S = 2.0
"""By how much the times of files on different machines may differ."""


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
        return [r for r in reports.values() if not r.failed and _is_unchanged(self.outputs[r.job], messages)]

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
