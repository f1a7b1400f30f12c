"""Runs over several partitions: one materialisation each, and a failing one does not take the others with it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from model.common.errors import DataError, PassingError

Outcome = dg.MaterializeResult | DataError


@contextmanager
def ended_when_terminated() -> Iterator[None]:
    """A termination ends the step. Dagster would count it as a failure that the asset's policy retries.

    Raises:
        dagster.Failure: the run was terminated in the block; not retried.
    """
    try:
        yield
    except (DagsterExecutionInterruptedError, KeyboardInterrupt) as error:
        raise dg.Failure("The run was terminated. Run it again: it goes on from there.", allow_retries=False) from error


def each_partition(
    context: dg.AssetExecutionContext, work: Callable[[str], dg.MaterializeResult]
) -> Iterator[dg.MaterializeResult]:
    """Do `work` for each partition key of the run, then report as `report_partitions`."""
    outcomes: dict[str, Outcome] = {}
    for number, key in enumerate(context.partition_keys, 1):
        try:
            with ended_when_terminated():
                outcomes[key] = work(key)
        except DataError as error:
            outcomes[key] = error
            context.log.error(f"{key}: {error}")
        if len(context.partition_keys) > 1:
            context.log.info(f"{number} of {len(context.partition_keys)} done: {key}")
    yield from report_partitions(context, outcomes)


def report_partitions(
    context: dg.AssetExecutionContext, outcomes: Mapping[str, Outcome]
) -> Iterator[dg.MaterializeResult]:
    """Report what came of each partition key of the run.

    Dagster turns the one result of a step into equal events for all its partitions. So in a run of several, the true
    events are logged after it, and those of a run in which some failed are logged alone.

    Raises:
        dagster.Failure: some failed; names each and its error. Retried, where the asset's policy says so, only if one
            of the errors may pass by itself: input does not mend itself.
    """
    failures = {key: error for key, error in outcomes.items() if isinstance(error, DataError)}
    results = {key: result for key, result in outcomes.items() if isinstance(result, dg.MaterializeResult)}
    if len(results) == len(outcomes) == 1:
        yield from results.values()
        return
    if not failures:
        yield dg.MaterializeResult()
    for key, result in results.items():
        tags = {"dagster/data_version": result.data_version.value} if result.data_version else None
        event = dg.AssetMaterialization(context.asset_key, metadata=result.metadata, partition=key, tags=tags)
        context.log_event(event)
    if failures:
        heading = f"{len(failures)} of {len(outcomes)} failed." if len(outcomes) > 1 else ""
        lines = [heading, *(f"{key}: {error}" for key, error in failures.items())]
        passing = any(isinstance(error, PassingError) for error in failures.values())
        raise dg.Failure("\n".join(line for line in lines if line), allow_retries=passing)
