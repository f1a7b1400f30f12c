"""Jobs on a Slurm cluster, which outlive the Dagster process that submitted them. No accounting is needed.

A job reports its results in its folder. Slurm only explains why a result is missing.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TypeGuard, TypeVar

import dagster as dg
from filelock import FileLock

from drive_assets.resources.cluster.batch import Batch
from drive_assets.resources.cluster.commands import SlurmCommands, SlurmUnavailable, State
from drive_assets.resources.cluster.job_folder import JobFolder, Submission
from drive_assets.resources.cluster.queue import Backoff, Queue
from drive_assets.resources.cluster.script import UNSEEN_STATUS, submit
from drive_assets.resources.cluster.settings import SlurmSettings
from drive_assets.resources.compute import Context, Env, JobsContinue, Results
from drive_assets.running.instance import PROCESS_TAG
from drive_assets.running.interrupts import INTERRUPTIONS
from drive_assets.tasks import Task
from drive_assets.wire import Work, to_wire, version
from model.common.config import fingerprint
from model.common.errors import DataError, PassingError

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")

MAX_ARRAY = 1000
"""Jobs submitted at once: Slurm's default limit for arrays (MaxArraySize)."""
READ_S = 0.3
"""Seconds between two looks into the job folders."""
JOBS_TAG = "drive_assets/jobs"
EXECUTION_FIELDS = ("run", "force")
"""Fields of jobs that do not decide what is made: a retry adopts what its first try submitted."""
PASSED_ON = ("DRIVE_ASSETS_", "MLFLOW_", "PYTHONPATH")
"""Prefixes of this process's environment variables that a job gets."""


class SlurmCompute(SlurmSettings):
    """Jobs on a Slurm cluster."""

    def run_each(self, context: Context, task: Task[J, R], jobs: Sequence[J], env: Env = None) -> Results[R]:
        """As Compute.run_each. Jobs of earlier runs whose results nobody took are adopted."""
        self.jobs.mkdir(parents=True, exist_ok=True)
        run = _Run(self, context, self._batches(context, task, jobs))
        try:
            run.start(task.name, env or {})
            for batch in run.follow():
                yield from batch.new_results(task)
                if not batch.is_open:
                    with run.lock:
                        batch.folder.take(batch.submission, context.run_id)
        except INTERRUPTIONS as error:
            raise run.interrupt() from error
        except GeneratorExit:  # the interruption reached the caller while it handled a result
            context.log.warning(str(run.interrupt().description))
            raise
        except DataError as error:
            raise dg.Failure(str(error), allow_retries=isinstance(error, PassingError)) from error

    def _batches(self, context: Context, task: Task[J, R], jobs: Sequence[J]) -> list[Batch]:
        """The jobs in batches of about equal length, as few as `per_task` allows, each with its folder.

        A batch's key depends on what is made from which inputs, so that a later run of the same work finds it.
        """
        count = -(-len(jobs) // self.size(task.name).per_task)
        asset = context.asset_key.to_user_string().replace("/", "-")
        batches = []
        for numbers in (list(range(start, len(jobs), count)) for start in range(count)):
            wired = [to_wire(jobs[number]) for number in numbers]
            made = [{name: value for name, value in job.items() if name not in EXECUTION_FIELDS} for job in wired]
            files = [_stamp(path) for number in numbers for path in task.inputs(jobs[number])]
            folder = JobFolder(self.jobs / f"{asset}-{fingerprint(asset, task.name, made, files)}")
            work = Work(task.name, wired, version=version())
            outputs = [task.output(jobs[number]) for number in numbers]
            batches.append(Batch(numbers, folder=folder, work=work, outputs=outputs))
        return batches


class _Run:
    """The cluster jobs of one Dagster run: adopted or submitted, then followed to their end."""

    def __init__(self, settings: SlurmSettings, context: Context, batches: list[Batch]) -> None:
        self.settings, self.context, self.batches = settings, context, batches
        self.log, self.instance = context.log, context.instance
        self.commands = SlurmCommands(settings.login)
        self.lock = FileLock(settings.jobs / ".lock")
        """Held while submissions are written."""
        self.queue = Queue(settings.jobs, lambda: self.commands.states(settings.name_prefix))

    def start(self, task: str, env: Mapping[str, str]) -> None:
        """Adopt the jobs that exist and submit the rest."""
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        threads = str(self.settings.size(task).cpus)
        environment = {**passed, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **env}
        self._retry(lambda: self._adopt_or_submit(task, environment))
        ids = ", ".join(batch.submission.id for batch in self.batches)
        self.instance.add_run_tags(self.context.run_id, {JOBS_TAG: ids[:1000]})

    def follow(self) -> Iterator[Batch]:
        """Each batch whenever it may have something new, until each job has a result or an error."""
        asked = time.monotonic()
        backoff = Backoff(self.settings.patience_s, self.settings.poll_s, self.log)
        while waiting := {batch.submission.id: batch for batch in self.batches if batch.is_open}:
            for batch in waiting.values():
                batch.read(self.log)
                yield batch
            if time.monotonic() - asked < backoff.wait_s:
                time.sleep(READ_S)
                continue
            asked = time.monotonic()
            try:
                states = self.queue.states(self.settings.poll_s)
                backoff.succeeded()
            except SlurmUnavailable as error:  # jobs may end meanwhile: their messages show it
                backoff.failed(error)
                continue
            for job, batch in waiting.items():
                if states is not None and batch.is_open:
                    self._apply(batch, states.get(job, State("unknown")))
                    yield batch

    def interrupt(self) -> dg.Failure:
        """End the jobs if a person terminated the run. If only this process stops, they continue for the next run."""
        run = self.instance.get_run_by_id(self.context.run_id)
        ending = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
        by_person = run is not None and (run.status in ending or PROCESS_TAG in run.tags)
        live = [batch.submission for batch in self.batches if batch.is_open and batch.submission.name]
        names = ", ".join(submission.id or submission.name for submission in live) or "none"
        if not by_person:
            text = f"This process was stopped. Its jobs continue: {names}. A new run of the same work adopts them."
            return JobsContinue(text, allow_retries=False)
        try:
            self.commands.cancel([job for submission in live if (job := self._id(submission))])
        except SlurmUnavailable as error:
            text = f"The run was terminated, but its jobs may continue: {names}. {error}"
            return dg.Failure(text, allow_retries=False)
        text = f"The run was terminated and its jobs were cancelled: {names}. A new run resumes."
        return dg.Failure(text, allow_retries=False)

    def _adopt_or_submit(self, task: str, environment: Mapping[str, str]) -> None:
        with self.lock:
            states = cache(self.queue.refresh)  # asked only if a job has not reported everything
            new = [batch for batch in self.batches if not self._adopt(batch, states)]
            for start in range(0, len(new), MAX_ARRAY):
                self._submit(task, new[start : start + MAX_ARRAY], environment)

    def _submit(self, task: str, batches: Sequence[Batch], environment: Mapping[str, str]) -> None:
        name = f"drive-assets-{uuid.uuid4().hex[:12]}"
        for index, batch in enumerate(batches):
            earlier = batch.folder.submission()
            done = batch.valid_reports(batch.folder.reports(), earlier) if self._is_available(earlier) else []
            submission = Submission(name, index, self.context.run_id)
            batch.folder.prepare(submission, batch.work, environment, done)
            batch.follow(submission)
        ids = submit(self.settings, task, name, [batch.folder.path for batch in batches])
        self.queue.invalidate()
        for batch, job in zip(batches, ids, strict=True):
            batch.follow(replace(batch.submission, id=job))
            batch.folder.write_submission(batch.submission)
            self.log.info(f"Job {job} is submitted; log: {batch.folder.log(name)}")

    def _is_available(self, submission: Submission | None) -> TypeGuard[Submission]:
        """Whether there is a submission whose result this run may take: no successful run has taken it."""
        if submission is None:
            return False
        taker = self.instance.get_run_by_id(submission.taken_by) if submission.taken_by else None
        return taker is None or taker.status != dg.DagsterRunStatus.SUCCESS

    def _adopt(self, batch: Batch, states: Callable[[], Mapping[str, State]]) -> bool:
        """Follow the job of an earlier run if it still runs, or left a result that may be taken."""
        submission = batch.folder.submission()
        if not self._is_available(submission):
            return False
        reports, origin = batch.folder.reports(), f"submitted by run {submission.run}"
        if len(reports) == len(batch.work.jobs):
            failed = any(report.failed for report in reports.values())
            valid = len(batch.valid_reports(reports, submission)) == len(reports)
            if (failed and submission.taken_by) or not (failed or valid):
                return False
            self.log.info(f"Job {submission.id or submission.name}, {origin}, has ended: its result is taken.")
            batch.follow(submission)
            return True
        job = self._id(submission)
        state = states().get(job, State("unknown"))
        if state.phase not in ("waiting", "running"):
            if len(batch.folder.reports()) > len(reports):  # the job ended since its reports were read
                return self._adopt(batch, states)
            done = f"{len(reports)} of {len(batch.work.jobs)} have a result."
            reason = self._explain(job, state).reason
            self.log.info(f"Job {job or submission.name}, {origin}, {reason} {done} The rest is submitted again.")
            return False
        if job != submission.id:
            submission = replace(submission, id=job)
            batch.folder.write_submission(submission)
        self.log.info(f"Job {job}, {origin}, is {state.phase}: this run adopts it.")
        batch.follow(submission)
        return True

    def _apply(self, batch: Batch, state: State) -> None:
        """Act on Slurm's state of a job that has not reported everything."""
        if state.phase == "stuck":
            self._retry(partial(self.commands.cancel, [batch.submission.id]))
            batch.fail(state)
        elif state.phase in ("ended", "unknown"):
            batch.ended_at = batch.ended_at or time.monotonic()
            if time.monotonic() - batch.ended_at >= self.settings.grace_s:
                batch.read(self.log)
                if batch.is_open:
                    batch.fail(self._retry(partial(self._explain, batch.submission.id, state)))
        else:
            batch.ended_at = None
            if state.phase == "waiting" and state.reason != batch.waiting_for:
                batch.waiting_for = state.reason
                self.log.info(f"Job {batch.submission.id} waits: {state.reason}")

    def _id(self, submission: Submission) -> str:
        """Slurm's id of a submission, which the run that submitted it may not have recorded; empty if there is none."""
        return submission.id or self.commands.ids(self.settings.name_prefix + submission.name).get(submission.index, "")

    def _explain(self, job: str, state: State) -> State:
        """How a job ended that has not reported everything. SlurmUnavailable if Slurm does not answer."""
        if state.phase == "unknown":
            return State("unknown", "is unknown to Slurm and left no result: it is lost.")
        return self.commands.explain(job, state, UNSEEN_STATUS, self.settings.jobs)

    def _retry(self, do: Callable[[], T]) -> T:
        """Repeat until Slurm answers. Raises JobsContinue once `patience_s` is over."""
        backoff = Backoff(self.settings.patience_s, self.settings.poll_s, self.log)
        while True:
            try:
                return do()
            except SlurmUnavailable as error:
                backoff.failed(error)
            time.sleep(backoff.wait_s)


def _stamp(path: Path) -> tuple[str, int, int] | None:
    """Path, size and time of a file, which stand for its content; None if it is absent."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime_ns
