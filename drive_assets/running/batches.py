"""Runs over several partitions: each is recorded when it is done, and a failing one does not take the others along."""

import errno
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import dagster as dg
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.storage.tags import RESUME_RETRY_TAG

from drive_assets.running.instance import PROCESS_TAG
from drive_assets.running.versions import outdated, provenance
from model.common.errors import DataError, PassingError

PASSING_ERRNOS = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENETDOWN}
"""Errors of a file system, often one on another machine, that pass by themselves."""
PROGRESS_S = 5.0
"""Between two lines of a batch: each is an entry of the event log, which costs more than a small recording's labels."""
MAY_PASS = "may_pass"
"""Metadata of a failure: whether the same may succeed later, with nothing put right by anyone."""
TRIES_TAG = "drive_assets/tries"
"""Run tag of a command's retries: how many runs have tried the same before."""
T = TypeVar("T")
Event = dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output


@dataclass(frozen=True)
class PartitionCheck:
    """A check of one partition at a time, evaluated right after it is made, whatever becomes of others."""

    spec: dg.AssetCheckSpec
    evaluate: Callable[[str], dg.AssetCheckResult]

    def result(self, key: str) -> dg.AssetCheckResult:
        """What `evaluate` finds; a check that cannot be evaluated has failed, by name."""
        try:
            found = self.evaluate(key)
        except Exception as error:
            text = f"{key} could not be checked: {told(error)}"
            found = dg.AssetCheckResult(passed=False, description=text, severity=dg.AssetCheckSeverity.WARN)
        return found._replace(asset_key=self.spec.asset_key, check_name=self.spec.name)

    def evaluation(self, key: str) -> dg.AssetCheckEvaluation:
        """The same as an event of a run over several partitions."""
        found = self.result(key)
        return dg.AssetCheckEvaluation(
            asset_key=self.spec.asset_key,
            check_name=self.spec.name,
            passed=found.passed,
            metadata=found.metadata,
            severity=found.severity,
            description=found.description,
            partition=key,
            blocking=self.spec.blocking,
        )


@contextmanager
def ended_when_terminated() -> Iterator[None]:
    """A termination ends the step. Dagster would count it as a failure that the asset's policy retries.

    Raises:
        dagster.Failure: the run was terminated in the block; not retried.
    """
    try:
        yield
    except (DagsterExecutionInterruptedError, KeyboardInterrupt) as error:
        raise dg.Failure("The run was terminated. Run it again: it resumes there.", allow_retries=False) from error


def each_partition(
    context: dg.AssetExecutionContext,
    work: Callable[[str], dg.MaterializeResult],
    checks: Sequence[PartitionCheck] = (),
) -> Iterator[Event]:
    """Do `work` for each partition key of the run, and record what came of it before the next begins.

    Whatever `work` raises is that partition's failure. A retry leaves out what an earlier try has made.

    Raises:
        dagster.Failure: some failed; names each and its error. Retried, where the asset's policy says so, only if one
            of the errors may pass by itself: input does not mend itself.
    """
    yield from _heard(_record(context, ((key, partial(work, key)) for key in context.partition_keys), checks))


def each_result(
    context: dg.AssetExecutionContext,
    results: Generator[tuple[int, T | DataError]],
    describe: Callable[[str, T], dg.MaterializeResult],
    checks: Sequence[PartitionCheck] = (),
) -> Iterator[Event]:
    """Record what came of jobs, one a partition key of the run, as `each_partition` does, as they end.

    Args:
        results: what Compute.run_each yields; closed in the end, whatever ends it, and the jobs with it.
        describe: the record of a partition whose job has a result.
    """
    keys = context.partition_keys

    def described(key: str, result: T | DataError) -> dg.MaterializeResult:
        if isinstance(result, DataError):
            raise result
        return describe(key, result)

    with closing(results):
        works = ((keys[number], partial(described, keys[number], result)) for number, result in results)
        yield from _heard(_record(context, works, checks))


def _record(
    context: dg.AssetExecutionContext,
    works: Iterator[tuple[str, Callable[[], dg.MaterializeResult]]],
    checks: Sequence[PartitionCheck],
) -> Iterator[Event]:
    keys = context.partition_keys
    done = _made_before(context) if len(keys) > 1 else set()
    failures: dict[str, Exception] = {}
    tags = provenance(context) if len(keys) > 1 else None
    told_at = time.monotonic()
    for number, (key, work) in enumerate(works, 1):
        if key in done:
            continue
        try:
            result = work()
        except dg.Failure:
            raise
        except Exception as error:
            failures[key] = error
            details = "" if isinstance(error, DataError) else "\n" + "".join(traceback.format_exception(error))
            context.log.error(f"{key}: {told(error)}{details}")
        else:
            if tags is None:
                yield result._replace(check_results=[check.result(key) for check in checks])
            else:
                yield from _events(context.asset_key, key, result, checks, tags(key, result.data_version))
        if len(keys) > 1 and (time.monotonic() > told_at + PROGRESS_S or number == len(keys)):
            told_at = time.monotonic()
            failed = f", {len(failures)} of them failed" if failures else ""
            context.log.info(f"{number} of {len(keys)} done{failed}, the last {key}")
    if failures:
        raise _failure(context, failures)
    if len(keys) > 1:
        # Dagster would turn the one result of a step into equal events for all its partitions, after the true ones.
        yield dg.MaterializeResult(metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})
        for check in checks:
            yield dg.Output(None, check.spec.get_python_identifier())


def _heard(events: Iterator[Event]) -> Iterator[Event]:
    """The same, with a termination while the next is made as dagster.Failure."""
    while True:
        with ended_when_terminated():
            event = next(events, None)
        if event is None:
            return
        yield event


def told(error: Exception) -> str:
    """What a person reads of an error; of one that was not foreseen also its kind and place."""
    if isinstance(error, DataError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}. This was not foreseen: the log has more."


def may_pass(error: BaseException | None) -> bool:
    """Whether the same may succeed later, with nothing put right by anyone."""
    if isinstance(error, PassingError) or (isinstance(error, OSError) and error.errno in PASSING_ERRNOS):
        return True
    return error is not None and may_pass(error.__cause__)


def _events(
    asset: dg.AssetKey,
    key: str,
    result: dg.MaterializeResult,
    checks: Sequence[PartitionCheck],
    tags: Mapping[str, str],
) -> Iterator[Event]:
    yield dg.AssetMaterialization(asset, metadata=result.metadata, partition=key, tags=tags)
    for check in checks:
        yield check.evaluation(key)


def _failure(context: dg.AssetExecutionContext, failures: Mapping[str, Exception]) -> dg.Failure:
    count = len(context.partition_keys)
    lines = [f"{len(failures)} of {count} failed."] if count > 1 else []
    lines += [f"{key}: {told(error)}" for key, error in failures.items()]
    passing = "; ".join(f"{key}: {told(error)}" for key, error in failures.items() if may_pass(error))
    return failure(context, "\n".join(lines), passing)


def failure(context: dg.AssetExecutionContext, text: str, passing: str = "") -> dg.Failure:
    """A step's failure, retried as its policy says if there is a reason, `passing`, why that may succeed."""
    policy = context.op_execution_context.op_def.retry_policy
    # A command retries by itself: a person can then end it while it waits.
    by_dagster = bool(passing) and PROCESS_TAG not in context.run.tags
    if by_dagster and policy is not None and context.retry_number < policy.max_retries:
        context.log.warning(f"Tried again in {policy.calculate_delay(context.retry_number + 1):.0f} s. {passing}")
    return dg.Failure(text, metadata={MAY_PASS: bool(passing)}, allow_retries=by_dagster)


def _made_before(context: dg.AssetExecutionContext) -> set[str]:
    """What earlier tries of the step made; of a run that is executed again from its failure, also the runs before it.

    What those made from inputs or code that changed since is made anew.
    """
    made = _made_by(context, context.run_id) if context.retry_number else set()
    earlier, run = set[str](), context.run
    while run is not None and run.tags.get(RESUME_RETRY_TAG) == "true" and run.parent_run_id is not None:
        earlier |= _made_by(context, run.parent_run_id)
        run = context.instance.get_run_by_id(run.parent_run_id)
    if earlier:
        graph = context.get_step_execution_context().job_def.asset_layer.asset_graph
        earlier -= outdated(context.instance, graph, context.asset_key, earlier).keys()
    return made | earlier


def _made_by(context: dg.AssetExecutionContext, run_id: str) -> set[str]:
    records = context.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    events = [record.event_log_entry.dagster_event for record in records]
    return {event.partition for event in events if event and event.asset_key == context.asset_key and event.partition}
