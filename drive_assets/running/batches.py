"""Runs over several partitions: each partition is recorded as soon as it is done, and one that fails stops no other."""

import errno
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import dagster as dg

from drive_assets.running.instance import PROCESS_TAG
from drive_assets.running.interrupts import fail_when_terminated
from drive_assets.running.versions import outdated, provenance
from model.common.errors import DataError, PassingError

TRANSIENT_ERRNOS = {
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.ENETDOWN,
}
"""Errors of a file system, often on another machine, that may be gone at the next try."""
PROGRESS_S = 5.0
"""Time between two log lines of a batch. A line is an event, which costs more than the labels of a small recording."""
PARTITION = "dagster/partition"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
"""Dagster's tags of a run: one partition, or a range of them."""
TRANSIENT = "transient"
"""Metadata of a failure that may be gone at the next try without anybody correcting anything."""
TRIES_TAG = "drive_assets/tries"
"""Run tag of a command's retries: how many runs have tried the same before."""
RESUME_RETRY_TAG = "dagster/is_resume_retry"
"""Dagster's tag of a run that *Re-execute from failure* starts."""
ALREADY_RECORDED = "__source_asset_observation__"
"""Metadata of a step's result for which Dagster records no materialisation: ours are recorded already, one by one."""
T = TypeVar("T")
Event = dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output


@dataclass(frozen=True)
class PartitionCheck:
    """A check of one partition, evaluated right after the partition is made, whatever happens to others."""

    spec: dg.AssetCheckSpec
    evaluate: Callable[[str], dg.AssetCheckResult]

    def evaluation(self, key: str) -> dg.AssetCheckEvaluation:
        """The result as an event. A check that raises an error fails with a warning that names it."""
        try:
            result = self.evaluate(key)
        except Exception as error:
            text = f"{key} could not be checked: {error_text(error)}"
            result = dg.AssetCheckResult(passed=False, description=text, severity=dg.AssetCheckSeverity.WARN)
        return dg.AssetCheckEvaluation(
            asset_key=self.spec.asset_key,
            check_name=self.spec.name,
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
            description=result.description,
            partition=key,
            blocking=self.spec.blocking,
        )


def partition_keys(context: dg.AssetExecutionContext) -> Sequence[str]:
    """The partition keys of a run.

    Raises:
        dagster.Failure: the run was launched without a partition, or for one that does not exist.
    """
    name = context.asset_key.to_user_string()
    try:
        return context.partition_keys
    except dg.DagsterInvariantViolationError:
        text = f"{name} has partitions, and this run has none: choose a partition when you launch it."
    except dg.DagsterInvalidInvocationError:
        chosen = [context.run.tags[tag] for tag in (PARTITION, RANGE_START, RANGE_END) if tag in context.run.tags]
        text = (
            f"{name} has no partition {' to '.join(chosen)!r}: choose one that its page lists under Partitions. A "
            "recording is a partition from its ingestion until it is forgotten."
        )
    raise dg.Failure(text, allow_retries=False)


def each_partition(
    context: dg.AssetExecutionContext,
    work: Callable[[str], dg.MaterializeResult],
    checks: Sequence[PartitionCheck] = (),
) -> Iterator[Event]:
    """Call `work` for each partition key of the run, and record its result before the next begins.

    Whatever `work` raises fails that partition alone. A retry skips what an earlier try has made.

    Raises:
        dagster.Failure: partitions failed; names each with its error. Retried, where the asset's policy says so, only
            if one of the errors is transient: wrong input stays wrong.
    """
    numbers: Generator[tuple[int, str | DataError]] = (pair for pair in enumerate(partition_keys(context)))
    yield from each_result(context, numbers, lambda key, _: work(key), checks)


def each_result(
    context: dg.AssetExecutionContext,
    results: Generator[tuple[int, T | DataError]],
    describe: Callable[[str, T], dg.MaterializeResult],
    checks: Sequence[PartitionCheck] = (),
) -> Iterator[Event]:
    """Record the results of jobs, one per partition key of the run, as `each_partition` does.

    Args:
        results: what Compute.run_each yields. It is closed at the end, however that comes, and the jobs end with it.
        describe: the materialisation of a partition whose job has a result.
    """
    with closing(results):
        events = _record(context, results, describe, checks)
        while True:
            with fail_when_terminated():
                event = next(events, None)
            if event is None:
                return
            yield event


def _record(
    context: dg.AssetExecutionContext,
    results: Iterator[tuple[int, T | DataError]],
    describe: Callable[[str, T], dg.MaterializeResult],
    checks: Sequence[PartitionCheck],
) -> Iterator[Event]:
    keys = partition_keys(context)
    done, tags = _made_before(context), provenance(context)
    failures: dict[str, Exception] = {}
    logged_at = time.monotonic()
    for count, (number, result) in enumerate(results, 1):
        key = keys[number]
        if key in done:
            continue
        try:
            if isinstance(result, DataError):
                raise result
            made = describe(key, result)
        except dg.Failure:
            raise
        except Exception as error:
            failures[key] = error
            details = "" if isinstance(error, DataError) else "\n" + "".join(traceback.format_exception(error))
            context.log.error(f"{key}: {error_text(error)}{details}")
        else:
            own = tags(key, made.data_version)
            yield dg.AssetMaterialization(context.asset_key, metadata=made.metadata, partition=key, tags=own)
            yield from (check.evaluation(key) for check in checks)
        if len(keys) > 1 and (time.monotonic() > logged_at + PROGRESS_S or count == len(keys)):
            logged_at = time.monotonic()
            failed = f", {len(failures)} failed" if failures else ""
            context.log.info(f"{count} of {len(keys)} done{failed}; the latest is {key}")
    if failures:
        raise _failure(context, failures)
    yield dg.MaterializeResult(metadata={ALREADY_RECORDED: True})
    yield from (dg.Output(None, check.spec.get_python_identifier()) for check in checks)


def error_text(error: Exception) -> str:
    """An error for people: its message; of an unexpected one also its kind and place."""
    if isinstance(error, DataError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}. This is unexpected: see the log for details."


def is_transient(error: BaseException | None) -> bool:
    """Whether the same may succeed at the next try without anybody correcting anything."""
    if isinstance(error, PassingError) or (isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS):
        return True
    return error is not None and is_transient(error.__cause__)


def _failure(context: dg.AssetExecutionContext, failures: Mapping[str, Exception]) -> dg.Failure:
    count = len(context.partition_keys)
    lines = [f"{len(failures)} of {count} failed."] if count > 1 else []
    lines += [f"{key}: {error_text(error)}" for key, error in failures.items()]
    transient = "; ".join(f"{key}: {error_text(error)}" for key, error in failures.items() if is_transient(error))
    return step_failure(context, "\n".join(lines), transient)


@contextmanager
def fail_on_data_error(context: dg.AssetExecutionContext) -> Iterator[None]:
    """A DataError in the block fails the step with one sentence, and is retried only if it is transient."""
    try:
        yield
    except DataError as error:
        raise step_failure(context, str(error), str(error) if is_transient(error) else "") from error


def step_failure(context: dg.AssetExecutionContext, text: str, transient: str = "") -> dg.Failure:
    """A step's failure. With a `transient` reason it is retried as the asset's policy says."""
    policy = context.op_execution_context.op_def.retry_policy
    # A command retries by itself: it can then be interrupted while it waits.
    by_dagster = bool(transient) and PROCESS_TAG not in context.run.tags
    if by_dagster and policy is not None and context.retry_number < policy.max_retries:
        context.log.warning(f"Retrying in {policy.calculate_delay(context.retry_number + 1):.0f} s. {transient}")
    return dg.Failure(text, metadata={TRANSIENT: True} if transient else {}, allow_retries=by_dagster)


def _made_before(context: dg.AssetExecutionContext) -> set[str]:
    """Partitions that earlier tries of the step have made, in this run or in those that it resumes.

    What an earlier run made from inputs or code that changed since is not among them.
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
    made = {event.partition for event in events if event and event.asset_key == context.asset_key and event.partition}
    # Dagster records an event with its run first, then with the asset: a kill in between must not lose the partition.
    return made & context.instance.get_materialized_partitions(context.asset_key)
