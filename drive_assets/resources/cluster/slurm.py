"""Jobs on a Slurm cluster, which outlive the Dagster process that submitted them. No accounting is needed.

A job reports its results in its folder. Slurm only explains why a result is missing.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import dagster as dg
from filelock import FileLock

from drive_assets.resources.cluster.commands import UNKNOWN, SlurmCommands, SlurmUnavailable, State
from drive_assets.resources.cluster.job_folder import Batch, JobFolder, Submission
from drive_assets.resources.cluster.script import submit
from drive_assets.resources.cluster.settings import SlurmSettings
from drive_assets.resources.compute import Context, Env, JobsContinue, Results, thread_limits
from drive_assets.running.instance import PROCESS_TAG
from drive_assets.running.interrupts import INTERRUPTIONS
from drive_assets.tasks import Task
from drive_assets.wire import Work, to_wire, version
from model.common.config import fingerprint
from model.common.errors import DataError, PassingError

J = TypeVar("J")
R = TypeVar("R")

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
                yield from batch.new_results(task, context.log)
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
            batches.append(Batch(numbers=numbers, folder=folder, work=work, outputs=outputs))
        return batches


class _Run:
    """The cluster jobs of one Dagster run: adopted or submitted, then followed to their end."""

    def __init__(self, settings: SlurmSettings, context: Context, batches: list[Batch]) -> None:
        self.settings, self.context, self.batches = settings, context, batches
        self.log, self.instance = context.log, context.instance
        self.commands = SlurmCommands(settings.login)
        self.lock = FileLock(settings.jobs / ".lock")
        """Held while submissions are written."""
        self.away_since: float | None = None
        """When Slurm did not answer for the first time since it did."""

    def start(self, task: str, env: Mapping[str, str]) -> None:
        """Adopt the jobs that exist and submit the rest."""
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        environment = {**passed, **thread_limits(self.settings.size(task).cpus), **env}
        while not self._asked(lambda: self._adopt_or_submit(task, environment)):
            time.sleep(self.settings.poll_s)
        ids = ", ".join(batch.submission.id for batch in self.batches)
        self.instance.add_run_tags(self.context.run_id, {JOBS_TAG: ids[:1000]})

    def follow(self) -> Iterator[Batch]:
        """Each batch whenever it may have something new, until each job has a result or an error."""
        asked = time.monotonic()
        while waiting := [batch for batch in self.batches if batch.is_open]:
            yield from waiting
            if time.monotonic() - asked < self.settings.poll_s:
                time.sleep(READ_S)
                continue
            asked = time.monotonic()
            self._asked(self._apply_states)  # if Slurm is away, messages still show which jobs end
            yield from waiting

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
            ended = f"and its jobs were cancelled: {names}."
        except SlurmUnavailable as error:
            ended = f"but its jobs may continue: {names}. {error}"
        return dg.Failure(f"The run was terminated {ended} A new run resumes.", allow_retries=False)

    def _asked(self, ask: Callable[[], None]) -> bool:
        """Call `ask` -> whether Slurm answered. Raises JobsContinue if it has not for `patience_s`."""
        try:
            ask()
        except SlurmUnavailable as error:
            now, patience_s = time.monotonic(), self.settings.patience_s
            if self.away_since is None:
                self.away_since = now
                self.log.warning(f"{error} Retrying for up to {patience_s:.0f} s; jobs continue.")
            if (away_s := now - self.away_since) > patience_s:
                text = f"Gave up after {away_s:.0f} s: {error} Jobs continue; a retry adopts them."
                raise JobsContinue(text) from None
            return False
        self.away_since = None
        return True

    def _adopt_or_submit(self, task: str, environment: Mapping[str, str]) -> None:
        with self.lock:
            states = cache(self._states)  # asked only if there is an earlier submission
            new = [batch for batch in self.batches if not self._adopt(batch, states)]
            for start in range(0, len(new), MAX_ARRAY):
                self._submit(task, new[start : start + MAX_ARRAY], environment)

    def _states(self) -> Mapping[str, State]:
        return self.commands.states(self.settings.name_prefix)

    def _submit(self, task: str, batches: Sequence[Batch], environment: Mapping[str, str]) -> None:
        name = f"drive-assets-{uuid.uuid4().hex[:12]}"
        for index, batch in enumerate(batches):
            earlier = self._available(batch)
            done = batch.valid_reports(batch.folder.reports(), earlier) if earlier else []
            submission = Submission(name, index, self.context.run_id)
            batch.folder.prepare(submission, batch.work, environment, done)
            batch.follow(submission)
        ids = submit(self.settings, task, name, [batch.folder.path for batch in batches])
        for batch, job in zip(batches, ids, strict=True):
            batch.follow(replace(batch.submission, id=job))
            batch.folder.write_submission(batch.submission)
            self.log.info(f"Job {job} is submitted; log: {batch.folder.log(name)}")

    def _available(self, batch: Batch) -> Submission | None:
        """The newest submission if this run may take its result: no successful run has taken it."""
        submission = batch.folder.submission()
        taker = self.instance.get_run_by_id(submission.taken_by) if submission and submission.taken_by else None
        return None if taker is not None and taker.status == dg.DagsterRunStatus.SUCCESS else submission

    def _adopt(self, batch: Batch, states: Callable[[], Mapping[str, State]]) -> bool:
        """Follow the job of an earlier run if it still runs, or left a result that may be taken."""
        if (submission := self._available(batch)) is None:
            return False
        job, state, reports = submission.id, UNKNOWN, batch.folder.reports()
        if len(reports) < len(batch.work.jobs):  # a complete result is taken even if Slurm is away
            job = self._id(submission)
            state = states().get(job, UNKNOWN)
            reports = batch.folder.reports()  # it may have ended meanwhile
        name = f"Job {job or submission.name}, submitted by run {submission.run},"
        if len(reports) == len(batch.work.jobs):
            failed = any(report.error for report in reports.values())
            valid = len(batch.valid_reports(reports, submission)) == len(reports)
            if (failed and submission.taken_by) or not (failed or valid):
                return False
            self.log.info(f"{name} has ended: its result is taken.")
        elif state.phase in ("waiting", "running"):
            self.log.info(f"{name} is {state.phase}: this run adopts it.")
        else:
            ending = self.commands.explain(job, state, self.settings.jobs).reason
            done = f"{len(reports)} of {len(batch.work.jobs)} have a result."
            self.log.info(f"{name} {ending} {done} The rest is submitted again.")
            return False
        batch.follow(replace(submission, id=job))
        batch.folder.write_submission(batch.submission)
        return True

    def _apply_states(self) -> None:
        """Act on Slurm's states of the jobs that have not reported everything."""
        states = self._states()
        for batch in self.batches:
            if not batch.is_open:
                continue
            job = batch.submission.id
            state = states.get(job, UNKNOWN)
            if state.phase == "stuck":
                self.commands.cancel([job])
                batch.fail(state)
            elif state.phase in ("ended", "unknown"):
                batch.ended_at = batch.ended_at or time.monotonic()
                if time.monotonic() - batch.ended_at >= self.settings.grace_s:
                    batch.read(self.log)
                    if batch.is_open:
                        batch.fail(self.commands.explain(job, state, self.settings.jobs))
            else:
                batch.ended_at = None
                if state.phase == "waiting" and state.reason != batch.waiting_for:
                    batch.waiting_for = state.reason
                    self.log.info(f"Job {job} waits: {state.reason}")

    def _id(self, submission: Submission) -> str:
        """Slurm's id of a submission, which the run that submitted it may not have recorded; empty if there is none."""
        return submission.id or self.commands.ids(self.settings.name_prefix + submission.name).get(submission.index, "")


def _stamp(path: Path) -> tuple[str, int, int] | None:
    """Path, size and time of a file, which stand for its content; None if it is absent."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime_ns
