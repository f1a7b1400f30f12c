"""Which code and inputs a partition was made from, and which partitions are out of date."""

import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import dagster as dg

MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION
CODE_VERSION, DATA_VERSION = "dagster/code_version", "dagster/data_version"
IS_USER_PROVIDED = "dagster/data_version_is_user_provided"
INPUT_VERSION, INPUT_EVENT = "dagster/input_data_version", "dagster/input_event_pointer"
"""Dagster's tags of a materialisation; those of inputs end with the input's key."""
MAX_NAMED = 1000
"""Partitions that a query names; for more than these, it asks for all."""
Tags = dict[str, str]
Latest = dict[str, tuple[str, int]]
"""Data version and event id of the latest materialisation, by partition."""


def provenance(context: dg.AssetExecutionContext) -> Callable[[str, dg.DataVersion | None], Tags]:
    """Tags for the materialisations of a batch, which Dagster itself adds only in runs of one partition.

    Without them, Dagster takes what a batch made as fresh, whatever happens to its inputs.
    """
    step, keys = context.get_step_execution_context(), set(context.partition_keys)
    graph = step.job_def.asset_layer.asset_graph
    node = graph.get(context.asset_key)
    shared: Tags = {CODE_VERSION: node.code_version or context.run_id}
    own: dict[str, Tags] = {key: {} for key in keys}
    for parent in node.parent_keys:
        if graph.get(parent).partitions_def == node.partitions_def:
            for key, (version, event) in latest(context.instance, parent, keys).items():
                own[key] |= _input(parent, version, event)
        elif (info := step.maybe_fetch_and_get_input_asset_version_info(parent)) is not None:
            shared |= _input(parent, info.data_version.value if info.data_version else "", info.storage_id)

    def tags(key: str, version: dg.DataVersion | None) -> Tags:
        given = {DATA_VERSION: version.value, IS_USER_PROVIDED: "true"} if version else {}
        return shared | own[key] | given

    return tags


def _input(parent: dg.AssetKey, version: str, event: int) -> Tags:
    name = parent.to_user_string()
    return {f"{INPUT_VERSION}/{name}": version, f"{INPUT_EVENT}/{name}": str(event)}


def latest(instance: dg.DagsterInstance, asset: dg.AssetKey, keys: Collection[str]) -> Latest:
    """The latest materialisation of those of `keys` that have one."""
    storage, wanted = instance.event_log_storage, set(keys)
    if not wanted:  # Dagster would return all
        return {}
    named = sorted(wanted) if len(wanted) <= MAX_NAMED else None
    versions = storage.get_latest_tags_by_partition(asset, MATERIALIZATION, [DATA_VERSION], named)
    events = storage.get_latest_storage_id_by_partition(asset, MATERIALIZATION, set(named or ()))
    return {key: (versions.get(key, {}).get(DATA_VERSION, ""), event) for key, event in events.items() if key in wanted}


def outdated(
    instance: dg.DagsterInstance, graph: Any, asset: dg.AssetKey, keys: Collection[str], made: Latest | None = None
) -> dict[str, str]:
    """Partitions that were made by older code, or from older inputs of the same partition, and why.

    Args:
        made: what `latest` returns for `keys`, where that is known already.
    """
    node, made = graph.get(asset), latest(instance, asset, keys) if made is None else made
    first = _first_by_code(instance, sorted(event for _, event in made.values()), node.code_version)
    reasons = {
        key: "made by other code than this version has"
        for key, (_, event) in made.items()
        if node.code_version and event < first
    }
    for parent in node.parent_keys:
        if graph.get(parent).partitions_def == node.partitions_def:
            now = latest(instance, parent, made)
            newer = {made[key][1] for key, (_, event) in now.items() if event > made[key][1]}
            for event in materializations(instance, newer):
                key = str(event.partition)
                if (event.tags or {}).get(f"{INPUT_VERSION}/{parent.to_user_string()}") != now[key][0]:
                    reasons[key] = f"{parent.to_user_string()} changed"
    return reasons


def _first_by_code(instance: dg.DagsterInstance, events: list[int], version: str) -> int:
    """The first of these events that today's code made, found by bisection; past the last if there is none."""

    def is_current(event: int) -> bool:
        return any((made.tags or {}).get(CODE_VERSION) == version for made in materializations(instance, [event]))

    place = bisect_left(events, True, key=is_current)
    return events[place] if place < len(events) else sys.maxsize


def materializations(instance: dg.DagsterInstance, ids: Iterable[int]) -> Iterator[dg.AssetMaterialization]:
    """Materialisations by their event ids, with all their tags, which no table of Dagster has."""
    wanted = list(ids)
    filter_ = dg.EventRecordsFilter(MATERIALIZATION, storage_ids=wanted)
    for record in instance.event_log_storage.get_event_records(filter_) if wanted else ():
        if record.asset_materialization is not None:
            yield record.asset_materialization
