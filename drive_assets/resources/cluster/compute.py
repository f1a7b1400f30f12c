"""Jobs that outlive the Dagster process that asked for them, on whatever cluster a team has.

A backend says four things: how to submit, what state jobs are in, how to cancel, and how to find what was submitted.
What came of a job is told by its own messages, in its folder; the cluster tells only why there is no result.
"""

import os
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Self, TypeGuard, TypeVar

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.pipes.context import build_external_execution_context_data
from filelock import FileLock
from pydantic import Field

from drive_assets.resources.cluster.batch import Batch, NotNow, Patience, State, output_stands, stamp
from drive_assets.resources.cluster.job_folder import JobFolder, Submission
from drive_assets.resources.cluster.queue import Queue
from drive_assets.resources.compute import Compute, check_names
from drive_assets.resources.failures import JobsGoOn
from drive_assets.resources.storage import data_root
from drive_assets.running.instance import PROCESS_TAG
from drive_assets.tasks import Task
from drive_assets.wire import Work, to_wire, version
from model.common.config import fingerprint
from model.common.errors import DataError, PassingError

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")

AT_MOST = 1000
"""Jobs submitted at once: Slurm's arrays have no more by default (MaxArraySize)."""
READ_S = 0.3
"""How often the folders are looked at."""
JOBS_TAG = "drive_assets/jobs"
HOW = ("run", "anew")
"""Fields of jobs that do not decide on what is made, so that a retry takes over what its first try submitted."""
PASSED_ON = ("DRIVE_ASSETS_", "MLFLOW_", "PYTHONPATH")
"""Beginnings of the names of what a job gets of this process's environment."""


class JobSize(dg.Config):
    """What a job asks for, on any cluster."""

    cpus: int = Field(default=4, ge=1, description="CPUs a job; also the threads of torch.")
    per_task: int = Field(default=1, ge=1, description="Partitions that one job does, one after the other, at most.")


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

    runs_at_once: int = Field(
        default=20, ge=1, description="Runs that may have jobs in the queue at a time: the default of pool `gpu`."
    )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Settings of a file; a task's size there replaces the fields that it names, and leaves the preset's others."""
        chosen = {"data_root": str(data_root()), **settings}
        for name, field in cls.model_fields.items():
            preset = field.default
            if isinstance(preset, JobSize) and isinstance(given := chosen.get(name), Mapping):
                check_names(given, type(preset))
                chosen[name] = type(preset)(**{**preset.model_dump(), **given})
        return super().from_settings(chosen)

    @property
    def pool_limit(self) -> int:
        return self.runs_at_once

    @abstractmethod
    def submit(self, task: str, name: str, folders: Sequence[JobFolder]) -> list[str]:
        """Submit a job a folder, all at once; return their ids. DataError if refused, NotNow if that may pass."""

    @abstractmethod
    def states(self) -> Mapping[str, State]:
        """State, by id, of each job submitted from this data root that the cluster still knows; NotNow as above."""

    @abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs; those that have ended already are no error. NotNow if the cluster does not answer."""

    @abstractmethod
    def adopt(self, name: str) -> dict[int, str]:
        """Ids, by place, of the jobs submitted under a name: whoever did so died before it noted them."""

    def explained(self, job: str, state: State) -> State:
        """The state of a job that has ended without a result, with what the cluster can tell of the reason."""
        return state

    def size(self, task: str) -> JobSize:
        """What a job of a task asks for: the field of the task's name."""
        size = getattr(self, task, None)
        if not isinstance(size, JobSize):
            raise DataError(f"There is no size for task {task!r}.")
        return size

    def per_task(self, task: str) -> int:
        """How many jobs of a task one process does."""
        return self.size(task).per_task

    def check(self, task: str, log: dg.DagsterLogManager) -> None:
        """Whatever must hold before a job is submitted. DataError says what does not, NotNow as above."""

    def environment(self, task: str) -> dict[str, str]:
        """Environment of the worker besides what is passed on."""
        threads = str(self.size(task).cpus)
        return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    @property
    def jobs(self) -> Path:
        return Path(self.data_root) / "jobs"

    @property
    def queue(self) -> Queue:
        return Queue(self.jobs, self.states)

    def run_each(
        self,
        context: dg.AssetExecutionContext,
        task: Task[J, R],
        jobs: Sequence[J],
        env: Mapping[str, str] | None = None,
    ) -> Generator[tuple[int, R | DataError]]:
        """As Compute.run_each. What an earlier run submitted and nobody took is taken."""
        self.jobs.mkdir(parents=True, exist_ok=True)
        batches = self._batches(context, task, jobs)
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        settings = {**passed, **self.environment(task.name), **(env or {})}
        try:
            self._patiently(context, lambda: self._start(context, task.name, batches, settings))
            ids = ", ".join(batch.submission.id for batch in batches)
            context.instance.add_run_tags(context.run_id, {JOBS_TAG: ids[:1000]})
            for batch in self._news(context, batches):
                yield from batch.news(task)
                if not batch.is_open:
                    batch.folder.take(context.run_id)
        except (DagsterExecutionInterruptedError, KeyboardInterrupt) as error:
            raise self._interrupted(context, batches) from error
        except GeneratorExit:  # it came while the caller had a result in hand
            context.log.warning(str(self._interrupted(context, batches).description))
            raise
        except DataError as error:
            raise dg.Failure(str(error), allow_retries=isinstance(error, PassingError)) from error

    def _batches(self, context: dg.AssetExecutionContext, task: Task[J, R], jobs: Sequence[J]) -> list[Batch]:
        """The jobs in as few processes of about equal length as `per_task` allows, each with its folder."""
        count = -(-len(jobs) // max(1, self.per_task(task.name)))
        places = [list(range(len(jobs)))[start::count] for start in range(count)]
        batches = []
        for numbers in places:
            wired = [to_wire(jobs[number]) for number in numbers]
            made = [{name: value for name, value in job.items() if name not in HOW} for job in wired]
            files = [stamp(path) for number in numbers for path in task.inputs(jobs[number])]
            asset = context.asset_key.to_user_string().replace("/", "-")
            key = f"{asset}-{fingerprint(asset, task.name, made, files)}"
            work = Work(task.name, wired, version=version())
            batches.append(
                Batch(JobFolder(self.jobs / key), numbers, work, [task.output(jobs[number]) for number in numbers])
            )
        return batches

    def _start(
        self,
        context: dg.AssetExecutionContext,
        task: str,
        batches: Sequence[Batch],
        settings: Mapping[str, str],
    ) -> None:
        """Follow what is there already, and submit the rest."""
        if not all(self._is_free(batch.folder.submission(), context) for batch in batches):
            self.check(task, context.log)
        data = build_external_execution_context_data(context.op_execution_context, {})
        with FileLock(self.jobs / ".lock"):
            states = cache(self.queue.now)  # asked only where a job has not reported everything
            new = [batch for batch in batches if not self._is_there(context, batch, states)]
            for batch in batches:
                if batch.found:
                    context.log.info(f"Job {batch.found}")
            for start in range(0, len(new), AT_MOST):
                self._submit(context, task, new[start : start + AT_MOST], data, settings)

    def _submit(
        self,
        context: dg.AssetExecutionContext,
        task: str,
        batches: Sequence[Batch],
        data: Mapping[str, Any],
        settings: Mapping[str, str],
    ) -> None:
        name = f"drive-assets-{uuid.uuid4().hex[:12]}"
        for index, batch in enumerate(batches):
            submission = Submission(name, index, context.run_id)
            batch.folder.prepare(submission, batch.work, data, settings, batch.kept)
            batch.follow(submission)
        ids = self.submit(task, name, [batch.folder for batch in batches])
        self.queue.forget()
        for batch, job in zip(batches, ids, strict=True):
            batch.follow(replace(batch.submission, id=job))
            batch.folder.note(batch.submission)
            context.log.info(f"Job {job} is submitted; log: {batch.folder.log(name)}")

    def _is_free(self, submission: Submission | None, context: dg.AssetExecutionContext) -> TypeGuard[Submission]:
        """Whether a job was submitted before, and what comes of it is for this run.

        A run that took it and was killed or failed afterwards is to be made good; one that succeeded has it.
        """
        if submission is None:
            return False
        taker = context.instance.get_run_by_id(submission.taken_by) if submission.taken_by else None
        return taker is None or taker.status != dg.DagsterRunStatus.SUCCESS

    def _is_there(
        self, context: dg.AssetExecutionContext, batch: Batch, states: Callable[[], Mapping[str, State]]
    ) -> bool:
        """Whether the job was submitted before, and runs, or has a result that may be taken; then it is followed."""
        submission, batch.kept, batch.found = batch.folder.submission(), [], ""
        if not self._is_free(submission, context):
            return False
        reports = batch.folder.reports()
        messages, by = batch.folder.messages(submission.name), f", submitted by run {submission.run}"
        batch.kept = [
            report
            for report in reports.values()
            if not report.failed and output_stands(batch.outputs[report.job], messages)
        ]
        if len(reports) == len(batch.work.jobs):
            failed = any(report.failed for report in reports.values())
            if (failed and submission.taken_by) or (not failed and len(batch.kept) < len(reports)):
                return False
            batch.found = f"{submission.id or submission.name}{by}, has ended: its result is taken."
        else:
            job = submission.id or self.adopt(submission.name).get(submission.index, "")
            state = states().get(job, State("gone"))
            if state.phase not in ("waiting", "running"):
                if len(batch.folder.reports()) > len(reports):  # it has ended since they were read
                    return self._is_there(context, batch, states)
                done = f"{len(reports)} of {len(batch.work.jobs)} have a result."
                reason = self._reason(job, state).reason
                batch.found = f"{job or submission.name}{by}, {reason} {done} It is submitted again for the rest."
                return False
            if job != submission.id:
                submission = replace(submission, id=job)
                batch.folder.note(submission)
            batch.found = f"{job}{by}, is {state.phase}: this run takes it over."
        batch.follow(submission)
        return True

    def _news(self, context: dg.AssetExecutionContext, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Each whenever there may be something new, until each job has a result or an error.

        New messages go to the log; now and then the cluster is asked.
        """
        asked, patience = time.monotonic(), Patience(self.patience_s, self.poll_s, context.log)
        while waiting := {batch.submission.id: batch for batch in batches if batch.is_open}:
            for batch in waiting.values():
                batch.read(context.log)
                yield batch
            if time.monotonic() - asked < patience.wait_s:
                time.sleep(READ_S)
                continue
            asked = time.monotonic()
            try:
                states = self.queue.states(self.poll_s)
                patience.ended()
            except NotNow as error:  # jobs may end meanwhile: their messages tell
                states = None
                patience.bear(error)
            for job, batch in waiting.items():
                if states is not None and batch.is_open:
                    self._judge(context, batch, states.get(job, State("gone")))
                    yield batch

    def _judge(self, context: dg.AssetExecutionContext, batch: Batch, state: State) -> None:
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
                    batch.fail(self._patiently(context, partial(self._reason, batch.submission.id, state)))
        else:
            batch.ended_at = None
            if state.phase == "waiting" and state.reason != batch.reason:
                batch.reason = state.reason
                context.log.info(f"Job {batch.submission.id} waits: {state.reason}")

    def _reason(self, job: str, state: State) -> State:
        """How a job ended that has not reported everything. NotNow if the cluster does not answer."""
        lost = "is not known to the cluster any more and left no result: it is lost, not done."
        return State("gone", lost) if state.phase == "gone" else self.explained(job, state)

    def _patiently(self, context: dg.AssetExecutionContext, do: Callable[[], T]) -> T:
        """Do it again until the cluster answers. JobsGoOn when patience is at its end."""
        patience = Patience(self.patience_s, self.poll_s, context.log)
        while True:
            try:
                return do()
            except NotNow as error:
                patience.bear(error)
            time.sleep(patience.wait_s)

    def _interrupted(self, context: dg.AssetExecutionContext, batches: Sequence[Batch]) -> dg.Failure:
        """The run was terminated, by a person: jobs end. Or its process is stopped: they go on, for the next run."""
        run = context.instance.get_run_by_id(context.run_id)
        ending = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
        by_person = run is not None and (run.status in ending or PROCESS_TAG in run.tags)
        live = [batch for batch in batches if batch.is_open and batch.submission.name]
        named = ", ".join(batch.submission.id or batch.submission.name for batch in live) or "none"
        if not by_person:
            text = f"This process was stopped. Jobs go on: {named}. Run it again: that takes them over."
            return JobsGoOn(text, allow_retries=False)
        try:
            ids = [b.submission.id or self.adopt(b.submission.name).get(b.submission.index, "") for b in live]
            self.cancel([job for job in ids if job])
        except NotNow as error:
            return dg.Failure(f"The run was terminated, but its jobs may go on: {named}. {error}", allow_retries=False)
        text = f"The run was terminated and its jobs cancelled: {named}. Run it again: it resumes there."
        return dg.Failure(text, allow_retries=False)
