"""Materialising from the command line what the UI would, on the same instance, so that its runs are seen there."""

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.errors import DagsterExecutionInterruptedError

from drive_assets.instance import process_tag
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, SPLITS, check_known
from model.common.errors import DataError

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
QUIET: dict[str, Any] = {"console": {"config": {"log_level": "CRITICAL"}}}


def materialize(
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    selection: str,
    recordings: Sequence[str] = (),
    architectures: Sequence[str] = (),
    config: Mapping[str, Mapping[str, Any]] | None = None,
    tell: Callable[[str], None] = print,
) -> bool:
    """Materialise the selected assets, upstream first, each for its partitions; return whether all succeeded.

    A failing partition is told and takes only what follows from it along; the rest goes on.

    Args:
        selection: Dagster's selection syntax, such as `annotations` or `+key:checkpoint`; several with commas between.
        recordings: partition keys; all known ones if empty.
        architectures: partition keys; all twelve if empty.
        config: run config by asset name.

    Raises:
        DataError: an unknown partition key, or a selection that selects nothing.
    """
    graph = repository.asset_graph
    try:
        parts = [dg.AssetSelection.from_string(part.strip()) for part in selection.split(",")]
        selected = set().union(*(part.resolve(graph) for part in parts))
    except Exception as error:  # the parser's own kinds
        raise DataError(f"Selection {selection!r} cannot be understood: {error}") from error
    ordered = [key for level in graph.toposorted_asset_keys_by_level for key in sorted(level) if key in selected]
    if not ordered:
        raise DataError(f"Selection {selection!r} selects nothing: name assets such as recording or model_comparison.")
    known = list(instance.get_dynamic_partitions(str(RECORDINGS.name)))
    check_known(list(recordings), known, "recording")
    check_known(list(architectures), list(ARCHITECTURE_PARTITIONS.get_partition_keys()), "architecture")
    _check_config(repository, config or {}, ordered, graph, tell)
    recording = dg.AssetKey("recording")
    if (
        not recordings
        and recording not in selected
        and any(graph.get(key).partitions_def == RECORDINGS for key in ordered)
    ):
        there = instance.get_materialized_partitions(recording)
        if absent := sorted(set(known) - there):
            tell(f"Left out, as they are not taken yet (select recording too): {', '.join(absent)}")
            known = sorted(set(known) & there)
    keys_of: dict[dg.PartitionsDefinition | None, list[str]] = {
        None: [""],
        RECORDINGS: sorted(recordings or known),
        SPLITS: list(SPLITS.get_partition_keys()),
        ARCHITECTURE_PARTITIONS: list(architectures or ARCHITECTURE_PARTITIONS.get_partition_keys()),
    }
    succeeded, failed = True, dict[dg.AssetKey, set[str]]()
    for number, key in enumerate(ordered, 1):
        definition = graph.get(key).partitions_def
        wanted = keys_of[definition]
        lost = set().union(*(failed.get(parent, set()) for parent in graph.get(key).parent_keys))
        todo = [name for name in wanted if name not in lost]
        started, name = time.monotonic(), key.to_user_string()
        what = f" for {len(todo)} partition{'s' * (len(todo) > 1)}" if definition else ""
        tell(f"[{number}/{len(ordered)}] {name}{what}")
        done: set[str] = set()
        for tags in _ranges(todo, definition, instance):
            done |= _run(repository, instance, key, tags, config or {}, tell)
        failed[key] = set(wanted) - done
        if failed[key]:
            succeeded = False
            tell(
                f"[{number}/{len(ordered)}] {name} FAILED{': ' + ', '.join(sorted(failed[key])) if definition else ''}"
            )
        else:
            tell(f"[{number}/{len(ordered)}] {name} done in {time.monotonic() - started:.0f} s")
    return succeeded


def _check_config(
    repository: dg.RepositoryDefinition,
    config: Mapping[str, Mapping[str, Any]],
    ordered: Sequence[dg.AssetKey],
    graph: Any,
    tell: Callable[[str], None],
) -> None:
    """Before anything runs: a misspelt option must not let hours of training run with the default.

    Raises:
        DataError: config of an unknown asset, an unknown option, or a value that is not what the option holds.
    """
    known = [key.to_user_string() for key in graph.get_all_asset_keys()]
    for name, options in config.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise DataError(f"Config for {name!r}: no such asset." + (f" Is {near[0]} meant?" if near else ""))
        if dg.AssetKey(name) not in ordered:
            tell(f"The config of {name} is not used: it is not selected.")
            continue
        job = repository.get_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(name)})
        try:
            dg.validate_run_config(job, {"ops": {name: {"config": dict(options)}}})
        except dg.DagsterInvalidConfigError as error:
            place = f" at path root:ops:{name}:config"
            # Dagster then lists all that it would take, with the types.
            reasons = [
                reason.message.split(". Expected: ")[0].replace(f"{place}:", " at ").replace(place, "").rstrip(". ")
                for reason in error.errors
            ]
            raise DataError(
                f"Config for {name} is wrong: {'; '.join(reasons)}. Its options and their types stand in the launchpad."
            ) from None


def _ranges(
    keys: Sequence[str], definition: dg.PartitionsDefinition | None, instance: dg.DagsterInstance
) -> list[dict[str, str]]:
    """Run tags that cover `keys` with as few contiguous ranges as possible."""
    if definition is None:
        return [{}] if keys else []
    order = list(definition.get_partition_keys(dynamic_partitions_store=instance))
    places = sorted(order.index(key) for key in keys)
    ranges: list[list[int]] = []
    for place in places:
        if ranges and place == ranges[-1][1] + 1:
            ranges[-1][1] = place
        else:
            ranges.append([place, place])
    return [
        {"dagster/partition": order[first]} if first == last else {RANGE_START: order[first], RANGE_END: order[last]}
        for first, last in ranges
    ]


def _run(
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    tags: dict[str, str],
    config: Mapping[str, Mapping[str, Any]],
    tell: Callable[[str], None],
) -> set[str]:
    """Run one asset; return the partition keys that were materialised ("" for an asset without partitions).

    Raises:
        KeyboardInterrupt: the user or the system ended it. Dagster takes the signals of a run for itself.
    """
    name = key.to_user_string()
    ops = {name: {"config": dict(config[name])}} if name in config else {}
    job = repository.get_implicit_global_asset_job_def().get_subset(asset_selection={key})
    try:
        result = job.execute_in_process(
            instance=instance,
            tags={**tags, **process_tag()},
            partition_key=tags.get("dagster/partition"),
            run_config={"ops": ops, "loggers": QUIET},
            raise_on_error=False,
        )
    except DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None
    materialized = [event for event in result.all_events if event.is_step_materialization and event.asset_key == key]
    logged = _logged(instance, result.run_id, key)
    for _, event in sorted({event.partition or "": event for event in [*materialized, *logged]}.items()):
        summary = event.step_materialization_data.materialization.metadata.get("summary")
        if summary is not None:
            tell(f"  {event.partition or name}: {summary.value}")
    for event in result.all_events:
        if event.is_step_failure:
            tell(_reason(event))
            if _was_interrupted(event):
                raise KeyboardInterrupt
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            if not check.passed:
                tell(f"  check {check.check_name}: {check.description}")
    return {event.partition or "" for event in [*materialized, *logged]}


def _logged(instance: dg.DagsterInstance, run_id: str, key: dg.AssetKey) -> list[dg.DagsterEvent]:
    """The events of the run as they are stored, also those that the asset logged itself."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    events = [record.event_log_entry.dagster_event for record in records]
    return [event for event in events if event is not None and event.asset_key == key]


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name in (DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__):
            return True
        error = error.cause
    return False


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None:
        return f"  {data.user_failure_data.description}"
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return f"  {error.message.strip() if error else 'failed'}"


def read_config(path: Path | None) -> dict[str, dict[str, Any]]:
    """Config by asset name from a YAML file; empty without one.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML ({error}): expected config by asset name.") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise DataError(f"{path}: expected a mapping of asset names to config, such as `checkpoint: {{epochs: 5}}`.")
    return content
