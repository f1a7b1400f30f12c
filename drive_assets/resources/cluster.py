"""Jobs that outlive the Dagster process that asked for them, on whatever cluster a team has.

A backend says four things: how to submit, what state jobs are in, how to cancel, and how to find what was submitted.
What came of a job is told by its own messages, in its folder; the cluster tells only why there is no result.
"""

import os
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.pipes.context import build_external_execution_context_data
from filelock import FileLock
from pydantic import Field

from drive_assets.instance import PROCESS_TAG
from drive_assets.jobs import JobFolder, Messages, Submission
from drive_assets.resources.compute import Compute, outcome
from drive_assets.tasks import Task
from drive_assets.wire import Report, Work, reports_of, to_wire, version
from model.common.config import fingerprint
from model.common.errors import DataError, PassingError

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")

READ_S = 0.3
"""How often the folders are looked at."""
JOBS_TAG, ROOT_RUN_TAG = "drive_assets/jobs", "dagster/root_run_id"
PASSED_ON = ("DRIVE_ASSETS_", "MLFLOW_", "PYTHONPATH")
"""Beginnings of the names of what a job gets of this process's environment."""
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


@dataclass
class _Batch:
    """Jobs of a run that one process does, one after the other."""

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

    def fail(self, state: State) -> None:
        """Give up: the message names the job and its log, and how that ends."""
        tail = self.folder.log_tail(self.submission.name)
        text = f"Job {self.submission.id} {state.reason} Its log: {self.folder.log(self.submission.name)}"
        self.error = (PassingError if state.passing else DataError)(f"{text}\n{tail}" if tail else text)


class _Patience:
    """How long a cluster that does not answer is waited for."""

    def __init__(self, limit_s: float, log: dg.DagsterLogManager) -> None:
        self.limit_s, self.log = limit_s, log
        self.since: float | None = None

    def bear(self, error: NotNow) -> None:
        """Say so once; dagster.Failure when it lasts too long: the jobs go on, and a retry takes them over."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
            self.log.warning(f"{error} Asked again for up to {self.limit_s:.0f} s; jobs go on.")
        if now - self.since > self.limit_s:
            raise dg.Failure(f"Given up after {now - self.since:.0f} s: {error} Jobs go on; a retry takes them over.")

    def ended(self) -> None:
        self.since = None


class ClusterCompute(Compute):
    """What all clusters have in common. A backend is the four verbs, and how many jobs of a task one process does."""

    data_root: str = Field(description="Folder that this machine and the nodes see at the same path.")
    poll_s: float = Field(default=5.0, gt=0, description="Seconds between two questions of a run to the cluster.")
    grace_s: float = Field(
        default=30.0,
        ge=0,
        description="Seconds after a job's end in which its last words may still come: file systems show files late.",
    )
    patience_s: float = Field(default=3600.0, ge=0, description="Seconds that the cluster may be away or full.")

    @abstractmethod
    def submit(self, task: str, name: str, folders: Sequence[JobFolder]) -> list[str]:
        """Submit a job a folder, all at once; return their ids. DataError if refused, NotNow if that may pass."""

    @abstractmethod
    def state(self, ids: Sequence[str]) -> dict[str, State]:
        """The state of each job. NotNow if the cluster does not answer."""

    @abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs; those that have ended already are no error. NotNow if the cluster does not answer."""

    @abstractmethod
    def adopt(self, name: str) -> dict[int, str]:
        """Ids, by place, of the jobs submitted under a name: whoever did so died before it noted them."""

    @abstractmethod
    def per_task(self, task: str) -> int:
        """How many jobs of a task one process does."""

    def check(self, task: str, log: dg.DagsterLogManager) -> None:
        """Whatever must hold before a job is submitted. DataError says what does not, NotNow as above."""

    def environment(self, task: str) -> dict[str, str]:
        """Environment of the worker besides what is passed on."""
        return {}

    @property
    def jobs(self) -> Path:
        return Path(self.data_root) / "jobs"

    def run_each(
        self,
        context: dg.AssetExecutionContext,
        task: Task[J, R],
        jobs: Sequence[J],
        env: Mapping[str, str] | None = None,
    ) -> Iterator[R | DataError]:
        """As Compute.run_each, once all are done. What an earlier run submitted and nobody took is taken."""
        self.jobs.mkdir(parents=True, exist_ok=True)
        batches = self._batches(context, task, jobs)
        root = context.run.tags.get(ROOT_RUN_TAG, context.run_id)
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        settings = {**passed, **self.environment(task.name), **(env or {})}
        try:
            self._patiently(context, lambda: self._start(context, task.name, batches, settings, root))
            ids = ", ".join(batch.submission.id for batch in batches)
            context.instance.add_run_tags(context.run_id, {JOBS_TAG: ids[:1000]})
            self._follow(context, batches)
        except (DagsterExecutionInterruptedError, KeyboardInterrupt) as error:
            raise self._interrupted(context, batches) from error
        except DataError as error:
            raise dg.Failure(str(error), allow_retries=isinstance(error, PassingError)) from error
        results: dict[int, R | DataError] = {}
        for batch in batches:
            batch.folder.take(root)
            for place, number in enumerate(batch.numbers):
                missing = batch.error or PassingError(f"Job {batch.submission.id} left no result.")
                results[number] = outcome(task, batch.reports[place]) if place in batch.reports else missing
        yield from (results[number] for number in range(len(jobs)))

    def _batches(self, context: dg.AssetExecutionContext, task: Task[J, R], jobs: Sequence[J]) -> list[_Batch]:
        """The jobs in as few processes of about equal length as `per_task` allows, each with its folder."""
        count = -(-len(jobs) // max(1, self.per_task(task.name)))
        places = [list(range(len(jobs)))[start::count] for start in range(count)]
        batches = []
        for numbers in places:
            wired = [to_wire(jobs[number]) for number in numbers]
            made = [{name: value for name, value in job.items() if name != "run_id"} for job in wired]
            files = [_stamp(path) for number in numbers for path in task.inputs(jobs[number])]
            asset = context.asset_key.to_user_string().replace("/", "-")
            key = f"{asset}-{fingerprint(asset, task.name, made, files)}"
            work = Work(task.name, wired, version=version())
            batches.append(
                _Batch(JobFolder(self.jobs / key), numbers, work, [task.output(jobs[number]) for number in numbers])
            )
        return batches

    def _start(
        self,
        context: dg.AssetExecutionContext,
        task: str,
        batches: Sequence[_Batch],
        settings: Mapping[str, str],
        root: str,
    ) -> None:
        """Follow what is there already, and submit the rest, as one array."""
        if not all(self._is_there(batch, root) for batch in batches):
            self.check(task, context.log)
        data = build_external_execution_context_data(context.op_execution_context, {})
        with FileLock(self.jobs / ".lock"):
            new = [batch for batch in batches if not self._is_there(batch, root)]
            for batch in batches:
                if batch.found:
                    context.log.info(f"Job {batch.found}")
            name = f"drive-assets-{uuid.uuid4().hex[:12]}"
            for index, batch in enumerate(new):
                submission = Submission(name, index, context.run_id)
                batch.folder.prepare(submission, batch.work, data, settings, batch.kept)
                batch.follow(submission)
            ids = self.submit(task, name, [batch.folder for batch in new]) if new else []
            for batch, job in zip(new, ids, strict=True):
                batch.follow(replace(batch.submission, id=job))
                batch.folder.note(batch.submission)
                context.log.info(f"Job {job} is submitted; log: {batch.folder.log(name)}")

    def _is_there(self, batch: _Batch, root: str) -> bool:
        """Whether the job was submitted before, and runs, or has a result that may be taken; then it is followed."""
        submission, batch.kept, batch.found = batch.folder.submission(), [], ""
        if submission is None or submission.taken_by not in ("", root):
            return False
        reports = batch.folder.reports()
        messages, by = batch.folder.messages(submission.name), f", submitted by run {submission.run}"
        batch.kept = [
            report
            for report in reports.values()
            if not report.failed and _output_stands(batch.outputs[report.job], messages)
        ]
        if len(reports) == len(batch.work.jobs):
            failed = any(report.failed for report in reports.values())
            if (failed and submission.taken_by) or (not failed and len(batch.kept) < len(reports)):
                return False
            batch.found = f"{submission.id or submission.name}{by}, has ended: its result is taken."
        else:
            job = submission.id or self.adopt(submission.name).get(submission.index, "")
            state = self.state([job])[job] if job else State("gone")
            if state.phase not in ("waiting", "running"):
                if len(batch.folder.reports()) > len(reports):  # it has ended since they were read
                    return self._is_there(batch, root)
                done = f"{len(reports)} of {len(batch.work.jobs)} have a result."
                reason = state.reason or "is gone."
                batch.found = f"{job or submission.name}{by}, {reason} {done} It is submitted again for the rest."
                return False
            if job != submission.id:
                submission = replace(submission, id=job)
                batch.folder.note(submission)
            batch.found = f"{job}{by}, is {state.phase}: this run takes it over."
        batch.follow(submission)
        return True

    def _follow(self, context: dg.AssetExecutionContext, batches: Sequence[_Batch]) -> None:
        """Until each job has a result or an error: new messages to the log, now and then a question to the cluster."""
        asked, patience = time.monotonic(), _Patience(self.patience_s, context.log)
        while True:
            for batch in batches:
                batch.read(context.log)
            waiting = {batch.submission.id: batch for batch in batches if batch.is_open}
            if not waiting:
                return
            if time.monotonic() - asked >= self.poll_s:
                try:
                    states = self.state(list(waiting))
                    patience.ended()
                except NotNow as error:  # jobs may end meanwhile: their messages tell
                    states = {}
                    patience.bear(error)
                asked = time.monotonic()
                for job, state in states.items():
                    self._judge(context, waiting[job], state)
            time.sleep(READ_S)

    def _judge(self, context: dg.AssetExecutionContext, batch: _Batch, state: State) -> None:
        """What the cluster's word on a job that has not reported everything means for the run."""
        now = time.monotonic()
        if state.phase == "stuck":
            self._patiently(context, partial(self.cancel, [batch.submission.id]))
            batch.fail(state)
        elif state.phase in ("ended", "gone"):
            batch.ended_at = batch.ended_at or now
            if now - batch.ended_at >= self.grace_s:
                batch.read(context.log)
                if batch.is_open:
                    lost = "is not known to the cluster any more and left no result: it is lost, not done."
                    batch.fail(state if state.phase == "ended" else State("gone", lost))
        else:
            batch.ended_at = None
            if state.phase == "waiting" and state.reason != batch.reason:
                batch.reason = state.reason
                context.log.info(f"Job {batch.submission.id} waits: {state.reason}")

    def _patiently(self, context: dg.AssetExecutionContext, do: Callable[[], T]) -> T:
        """Do it again until the cluster answers. dagster.Failure when patience is at its end."""
        patience = _Patience(self.patience_s, context.log)
        while True:
            try:
                return do()
            except NotNow as error:
                patience.bear(error)
            time.sleep(self.poll_s)

    def _interrupted(self, context: dg.AssetExecutionContext, batches: Sequence[_Batch]) -> dg.Failure:
        """The run was terminated, by a person: jobs end. Or its process is stopped: they go on, for the next run."""
        run = context.instance.get_run_by_id(context.run_id)
        ending = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
        by_person = run is not None and (run.status in ending or PROCESS_TAG in run.tags)
        live = [batch for batch in batches if batch.is_open and batch.submission.name]
        ids = []
        for batch in live:
            job = batch.submission.id or self.adopt(batch.submission.name).get(batch.submission.index)
            ids += [job] if job else []
        named = ", ".join(ids) or "none"
        if not by_person:
            text = f"This process was stopped. Jobs go on: {named}. Run it again: that takes them over."
            return dg.Failure(text, allow_retries=False)
        try:
            self.cancel(ids)
        except NotNow as error:
            return dg.Failure(f"The run was terminated, but its jobs may go on: {named}. {error}", allow_retries=False)
        text = f"The run was terminated and its jobs cancelled: {named}. Run it again: it resumes there."
        return dg.Failure(text, allow_retries=False)


def _stamp(path: Path) -> tuple[str, int, int] | None:
    """What a file's content is known by, without reading it; None if it is absent."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime_ns


def _output_stands(output: Path, messages: Path) -> bool:
    """Whether what a job made is still there, and nobody has written it anew since the last message."""
    files = [p for p in output.iterdir() if not p.name.startswith(".")] if output.is_dir() else [output]
    last = messages.stat().st_mtime + CLOCKS_S
    return bool(files) and all(path.exists() and path.stat().st_mtime <= last for path in files)
