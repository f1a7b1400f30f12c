"""Runs over several partitions: each partition is recorded as soon as it is done, and one that fails stops no other."""

import errno
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from time import monotonic, sleep
from typing import TypeVar

import dagster as dg

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
RESUME_RETRY_TAG = "dagster/is_resume_retry"
"""Dagster's tag of a run that *Re-execute from failure* starts."""
ALREADY_RECORDED = "__source_asset_observation__"
"""Metadata of a step's result for which Dagster records no materialisation: ours are recorded already, one by one."""
T = TypeVar("T")
Event = dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output
Checks = Mapping[str, Callable[[str], dg.AssetCheckResult]]
"""By name, the checks of a partition, which are evaluated right after it is made."""


def partition_keys(context: dg.AssetExecutionContext) -> Sequence[str]:
    """The partition keys of a run. A dagster.Failure if it has none, or one that does not exist."""
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
    checks: Checks | None = None,
    retry_wait_s: float = 0.0,
) -> Iterator[Event]:
    """Call `work` for each partition key of the run, and record its result before the next begins.

    Whatever `work` raises fails that partition alone. A retry skips what an earlier try has made.

    Args:
        retry_wait_s: time before the first retry; it doubles with each.

    Raises:
        dagster.Failure: partitions failed; names each with its error. Retried, where the asset's policy says so, only
            if one of the errors is transient: wrong input stays wrong.
    """
    numbers: Generator[tuple[int, str | DataError]] = (pair for pair in enumerate(partition_keys(context)))
    yield from each_result(context, numbers, lambda key, _: work(key), checks, retry_wait_s)


def each_result(
    context: dg.AssetExecutionContext,
    results: Generator[tuple[int, T | DataError]],
    describe: Callable[[str, T], dg.MaterializeResult],
    checks: Checks | None = None,
    retry_wait_s: float = 0.0,
) -> Iterator[Event]:
    """Record the results of jobs, one per partition key of the run, as `each_partition` does.

    Args:
        results: what Compute.run_each yields. It is closed at the end, however that comes, and the jobs end with it.
        describe: the materialisation of a partition whose job has a result.
    """
    keys, done, tags = partition_keys(context), _made_before(context), provenance(context)
    evaluated = [(spec, checks[spec.name]) for spec in context.assets_def.check_specs if checks and spec.name in checks]
    failures: dict[str, Exception] = {}
    logged_at = monotonic()
    with closing(results), fail_when_terminated():
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
                yield from (_evaluation(spec, evaluate, key) for spec, evaluate in evaluated)
            if len(keys) > 1 and (monotonic() > logged_at + PROGRESS_S or count == len(keys)):
                logged_at = monotonic()
                failed = f", {len(failures)} failed" if failures else ""
                context.log.info(f"{count} of {len(keys)} done{failed}; the latest is {key}")
        if failures:
            raise _failure(context, failures, len(keys), retry_wait_s)
    yield dg.MaterializeResult(metadata={ALREADY_RECORDED: True})
    yield from (dg.Output(None, spec.get_python_identifier()) for spec, _ in evaluated)


def _evaluation(
    spec: dg.AssetCheckSpec, evaluate: Callable[[str], dg.AssetCheckResult], key: str
) -> dg.AssetCheckEvaluation:
    """A check's result as an event. A check that raises an error fails with a warning that names it."""
    try:
        result = evaluate(key)
    except Exception as error:
        text = f"{key} could not be checked: {error_text(error)}"
        result = dg.AssetCheckResult(passed=False, description=text, severity=dg.AssetCheckSeverity.WARN)
    return check_event(result, spec.key, key, spec.blocking)


def check_event(
    result: dg.AssetCheckResult, check: dg.AssetCheckKey, partition: str | None = None, blocking: bool = False
) -> dg.AssetCheckEvaluation:
    """The event that records a check's result."""
    return dg.AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        partition=partition,
        blocking=blocking,
    )


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


def _failure(
    context: dg.AssetExecutionContext, failures: Mapping[str, Exception], count: int, retry_wait_s: float
) -> dg.Failure:
    texts = {key: f"{key}: {error_text(error)}" for key, error in failures.items()}
    heading = [f"{len(failures)} of {count} failed."] if count > 1 else []
    transient = "; ".join(texts[key] for key, error in failures.items() if is_transient(error))
    return _step_failure(context, "\n".join([*heading, *texts.values()]), transient, retry_wait_s)


@contextmanager
def fail_on_data_error(context: dg.AssetExecutionContext) -> Iterator[None]:
    """A DataError in the block fails the step with one sentence, and is retried only if it is transient."""
    try:
        yield
    except DataError as error:
        raise _step_failure(context, str(error), str(error) if is_transient(error) else "") from error


def _step_failure(
    context: dg.AssetExecutionContext, text: str, transient: str, retry_wait_s: float = 0.0
) -> dg.Failure:
    """A step's failure, after the wait for a retry if it has a `transient` reason and the asset's policy allows one.

    Dagster's own wait would not react to a termination.
    """
    policy = context.op_execution_context.op_def.retry_policy
    is_retried = bool(transient) and policy is not None and context.retry_number < policy.max_retries
    if is_retried:
        wait_s = retry_wait_s * 2**context.retry_number
        reason = f"Retrying in {wait_s:.0f} s, because that may succeed then. {transient}"
        warn(context, reason)
        sleep(wait_s)
    return dg.Failure(text, allow_retries=is_retried)


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


def warn(context: dg.AssetExecutionContext, text: str) -> None:
    """Warn in the run's log, and on standard output: the user of a command does not see the log."""
    context.log.warning(text)
    print(f"  {text}", flush=True)
