"""Runs over several partitions: what is recorded and when, and what an error or a retry does to other partitions."""

import hashlib
import importlib
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from drive_assets.running import batches
from drive_assets.running.batches import RESUME_RETRY_TAG, Event, each_partition, each_result
from drive_assets.running.versions import outdated
from model.common.code import code_version
from model.common.errors import DataError, PassingError

KEYS = ["a", "b", "c"]
PARTS = dg.StaticPartitionsDefinition(KEYS)
SPEC = dg.AssetCheckSpec("small", asset="thing", partitions_def=PARTS)
RANGE = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
Work = Callable[[dg.AssetExecutionContext, str], dg.MaterializeResult]
Found = tuple[str, str | None, object]


def run(
    instance: dg.DagsterInstance,
    work: Work,
    tags: dict[str, str],
    retries: int = 1,
    in_check: Callable[[str], object] = lambda key: None,
) -> tuple[dg.ExecuteInProcessResult, list[Found]]:
    """The result, and (kind, partition, value) of each event as it is stored."""

    def check(key: str) -> dg.AssetCheckResult:
        in_check(key)
        return dg.AssetCheckResult(passed={"a": True, "c": False}[key], metadata={"of": key})

    @dg.asset(
        partitions_def=PARTS,
        check_specs=[SPEC],
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=dg.RetryPolicy(max_retries=retries),
    )
    def thing(context: dg.AssetExecutionContext) -> Iterator[Event]:
        yield from each_partition(context, lambda key: work(context, key), {"small": check}, retry_wait_s=60)

    @dg.asset(deps=[thing], partitions_def=PARTS, backfill_policy=dg.BackfillPolicy.single_run())
    def after(context: dg.AssetExecutionContext) -> None: ...

    job = dg.Definitions([thing, after]).resolve_implicit_global_asset_job_def()
    single = tags.get("dagster/partition")
    result = job.execute_in_process(instance=instance, tags=tags, partition_key=single, raise_on_error=False)
    return result, stored(instance, result.run_id)


def stored(instance: dg.DagsterInstance, run_id: str) -> list[Found]:
    found: list[Found] = []
    for record in instance.get_records_for_run(run_id).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            made = event.step_materialization_data.materialization
            if made.asset_key == dg.AssetKey("thing"):
                found.append(("made", made.partition, made.metadata["of"].value))
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            found.append(("checked", check.partition, check.passed))
    return found


def made(key: str) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"of": key}, data_version=dg.DataVersion(f"version of {key}"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def test_each_partition_is_recorded_once_and_before_the_next_begins(instance: dg.DagsterInstance) -> None:
    seen: list[list[Found]] = []

    def work(context: dg.AssetExecutionContext, key: str) -> dg.MaterializeResult:
        seen.append(stored(instance, context.run_id))
        return made(key)

    result, events = run(instance, work, RANGE)
    a, b, c = [("made", key, key) for key in KEYS]
    # The check of b raises an error: it fails with a warning, and the others are evaluated.
    assert events == [a, ("checked", "a", True), b, ("checked", "b", False), c, ("checked", "c", False)]
    assert seen == [[], events[:2], events[:4]]
    assert result.success
    assert result.asset_materializations_for_node("after")
    record = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("thing"), asset_partitions=["b"]), limit=1
    ).records[0]
    assert record.asset_materialization is not None
    assert (record.asset_materialization.tags or {})["dagster/data_version"] == "version of b"


@pytest.mark.parametrize("error", [DataError("b.csv, row 3"), KeyError("SPEED"), MemoryError()])
def test_an_error_of_one_partition_stops_no_other_and_is_not_retried(
    instance: dg.DagsterInstance, error: Exception
) -> None:
    tries: list[str] = []

    def work(context: dg.AssetExecutionContext, key: str) -> dg.MaterializeResult:
        tries.append(key)
        if key == "b":
            raise error
        return made(key)

    result, events = run(instance, work, RANGE)
    assert not result.success
    assert events == [("made", "a", "a"), ("checked", "a", True), ("made", "c", "c"), ("checked", "c", False)]
    assert tries == KEYS
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    reason = failure.step_failure_data.user_failure_data.description
    assert reason.startswith("1 of 3 failed.\nb: ")
    assert ("b.csv, row 3" if isinstance(error, DataError) else f"{type(error).__name__}: ") in reason
    assert ("test_batches.py:" in reason) == (not isinstance(error, DataError))


def test_a_transient_failure_is_retried_after_a_wait_and_what_is_made_is_kept(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, waits = list[str](), list[float]()
    monkeypatch.setattr(batches, "sleep", waits.append)

    def work(context: dg.AssetExecutionContext, key: str) -> dg.MaterializeResult:
        tries.append(key)
        if tries.count("b") <= 2 and key == "b":
            raise PassingError("the service is busy")
        return made(key)

    result, _ = run(instance, work, RANGE, retries=2)
    assert result.success
    assert (tries, waits) == (["a", "b", "c", "b", "b"], [60, 120])
    logs = [record.event_log_entry.user_message for record in instance.get_records_for_run(result.run_id).records]
    assert "Retrying in 60 s, because that may succeed then. b: the service is busy" in logs


@pytest.mark.parametrize("place", ["work", "check", "wait"])
def test_a_termination_ends_the_batch_and_is_not_retried(
    place: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "sleep", lambda seconds: terminated("b", "wait"))

    def terminated(key: str, here: str) -> None:
        if key == "b" and place == here:
            signal.raise_signal(signal.SIGINT)

    def work(context: dg.AssetExecutionContext, key: str) -> dg.MaterializeResult:
        terminated(key, "work")
        if place == "wait" and key == "b":
            raise PassingError("the service is busy")
        return made(key)

    result, events = run(instance, work, RANGE, in_check=lambda key: terminated(key, "check"))
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.description.startswith("The run was terminated.")
    expected = {"work": ["a"], "check": ["a", "b"], "wait": ["a", "c"]}[place]
    assert [key for kind, key, _ in events if kind == "made"] == expected
    assert "STEP_UP_FOR_RETRY" not in [event.event_type_value for event in result.all_events]


def test_a_termination_while_a_result_is_recorded_ends_the_jobs_too(instance: dg.DagsterInstance) -> None:
    ended: list[bool] = []

    def jobs() -> Generator[tuple[int, str | DataError]]:
        try:
            yield from enumerate(KEYS)
        finally:
            ended.append(True)

    @dg.asset(partitions_def=PARTS, backfill_policy=dg.BackfillPolicy.single_run())
    def thing(context: dg.AssetExecutionContext) -> Iterator[Event]:
        def describe(key: str, result: str) -> dg.MaterializeResult:
            signal.raise_signal(signal.SIGTERM)
            return made(key)

        try:
            yield from each_result(context, jobs(), describe)
        except dg.Failure:
            assert ended == [True]  # before whoever called tidies up
            raise

    job = dg.Definitions([thing]).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, tags=RANGE, raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.description.startswith("The run was terminated.")


def test_a_batch_records_the_provenance_of_each_partition(instance: dg.DagsterInstance) -> None:
    """Without it, Dagster would take what a batch made as fresh forever."""

    def asset(name: str, deps: list[str]) -> dg.AssetsDefinition:
        @dg.asset(
            name=name,
            deps=deps,
            partitions_def=PARTS,
            code_version="1",
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def one(context: dg.AssetExecutionContext) -> Iterator[Event]:
            yield from each_partition(context, made)

        return one

    definitions = dg.Definitions([asset("above", []), asset("below", ["above"])])
    job, graph = definitions.resolve_implicit_global_asset_job_def(), definitions.resolve_asset_graph()
    above, below = dg.AssetKey("above"), dg.AssetKey("below")
    for tags in (RANGE, {"dagster/partition": "a"}):
        assert job.execute_in_process(instance=instance, tags=tags, partition_key=tags.get("dagster/partition")).success
        assert outdated(instance, graph, below, KEYS) == {}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(above, partition="b", tags={"dagster/data_version": "another"})
    )
    assert outdated(instance, graph, below, KEYS) == {"b": "above changed"}
    newer = dg.Definitions(
        [dg.AssetSpec("above", partitions_def=PARTS), dg.AssetSpec("below", partitions_def=PARTS, code_version="2")]
    ).resolve_asset_graph()
    assert outdated(instance, newer, below, KEYS) == dict.fromkeys(KEYS, "made by other code than this version has")


def test_the_version_of_code_is_of_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "one": "def f(x):\n    return x + 1\n",
        "told": '"""A text."""\n\n\ndef f(x):\n    """Another."""\n\n    return x + 1  # why\n',
        "other": "def f(x):\n    return x + 2\n",
        "words": 'def f(x):\n    return x + "1"\n',
    }
    for name, text in texts.items():
        (tmp_path / f"code_{name}.py").write_text(text)
    importlib.invalidate_caches()
    versions = {name: code_version(f"code_{name}") for name in texts}
    assert versions["one"] == versions["told"]
    assert len(set(versions.values())) == 3
    # Of the text that every version of Python writes.
    assert versions["one"] == hashlib.sha256(b"def f(x):\n    return x + 1").hexdigest()[:12]


@pytest.mark.parametrize("lost", ["", "a"])
def test_reexecution_from_failure_makes_what_failed_and_what_a_kill_lost(
    lost: str, instance: dg.DagsterInstance
) -> None:
    """Dagster records an event with its run, then with the asset: a process may be killed in between."""
    tries: list[str] = []

    def work(key: str) -> dg.MaterializeResult:
        tries.append(key)
        if tries.count("b") == 1 and key == "b":
            raise DataError("b.csv, row 3")
        return made(key)

    @dg.asset(name="thing", partitions_def=PARTS, backfill_policy=dg.BackfillPolicy.single_run())
    def thing(context: dg.AssetExecutionContext) -> Iterator[Event]:
        yield from each_partition(context, work)

    job = dg.Definitions([thing], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
    first = job.execute_in_process(instance=instance, tags=RANGE, raise_on_error=False)
    assert not first.success and tries == KEYS
    log = instance.event_log_storage
    with log.index_connection() as index:  # type: ignore[attr-defined]
        index.execute(sqlalchemy.text("DELETE FROM event_logs WHERE partition = :lost"), {"lost": lost})
    resume = {**RANGE, RESUME_RETRY_TAG: "true"}
    again = instance.create_run_for_job(
        job, tags=resume, parent_run_id=first.run_id, root_run_id=first.run_id, repository_load_data=None
    )
    assert execute_run(InMemoryJob(job), again, instance).success
    assert tries == [*KEYS, *([lost] if lost else []), "b"]
    assert instance.get_materialized_partitions(thing.key) == set(KEYS)
