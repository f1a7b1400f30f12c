"""With which code and inputs a partition was made, and which partitions are behind them."""

import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

MADE = dg.DagsterEventType.ASSET_MATERIALIZATION
EVENTS_A_QUERY = 1000
NAMED = 1000
"""Partitions that a query names; those of more are found among all."""
Tags = dict[str, str]


def provenance(context: dg.AssetExecutionContext) -> Callable[[str, dg.DataVersion | None], Tags]:
    """Tags of a partition's materialisation: what Dagster itself notes only of runs over one partition.

    Without them, Dagster takes a partition that was made in a batch for fresh whatever becomes of its inputs.
    """
    step, keys = context.get_step_execution_context(), set(context.partition_keys)
    node = step.job_def.asset_layer.get(context.asset_key)
    graph = step.job_def.asset_layer.asset_graph
    shared: Tags = {CODE_VERSION_TAG: node.code_version or context.run_id}
    own: dict[str, Tags] = {key: {} for key in keys}
    for parent in node.parent_keys:
        if graph.get(parent).partitions_def == node.partitions_def:
            for key, (version, event) in latest(context.instance, parent, keys).items():
                own[key] |= _input(parent, version, event)
        elif (info := step.maybe_fetch_and_get_input_asset_version_info(parent)) is not None:
            shared |= _input(parent, info.data_version.value if info.data_version else "", info.storage_id)

    def tags(key: str, version: dg.DataVersion | None) -> Tags:
        given = {DATA_VERSION_TAG: version.value, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"} if version else {}
        return shared | own[key] | given

    return tags


def _input(parent: dg.AssetKey, version: str, event: int) -> Tags:
    return {get_input_data_version_tag(parent): version, get_input_event_pointer_tag(parent): str(event)}


def latest(instance: dg.DagsterInstance, asset: dg.AssetKey, keys: Collection[str]) -> dict[str, tuple[str, int]]:
    """Data version and event of each partition's last materialisation; those that have one."""
    storage, wanted = instance.event_log_storage, set(keys)
    if not wanted:  # which Dagster takes for all
        return {}
    asked = sorted(wanted) if len(wanted) <= NAMED else None
    versions = storage.get_latest_tags_by_partition(asset, MADE, [DATA_VERSION_TAG], asked)
    events = storage.get_latest_storage_id_by_partition(asset, MADE, set(asked or ()))
    return {
        key: (versions.get(key, {}).get(DATA_VERSION_TAG, ""), event) for key, event in events.items() if key in wanted
    }


def outdated(
    instance: dg.DagsterInstance,
    graph: Any,
    asset: dg.AssetKey,
    keys: Collection[str],
    made: dict[str, tuple[str, int]] | None = None,
) -> dict[str, str]:
    """Materialised partitions that were made by older code or from older inputs of the same partition, and why.

    Args:
        made: what `latest` says of `keys`, where that is known already.
    """
    node, made = graph.get(asset), latest(instance, asset, keys) if made is None else made
    by_now = _first_of_code(instance, sorted(event for _, event in made.values()), node.code_version)
    found = {
        key: "made by other code than this version has"
        for key, (_, event) in made.items()
        if node.code_version and event < by_now
    }
    for parent in node.parent_keys:
        if graph.get(parent).partitions_def == node.partitions_def:
            now = latest(instance, parent, made)
            newer = [key for key, (_, event) in now.items() if event > made[key][1]]
            used = _used(instance, parent, [made[key][1] for key in newer])
            found |= {key: f"{parent.to_user_string()} changed" for key in newer if used.get(key, "") != now[key][0]}
    return found


def _first_of_code(instance: dg.DagsterInstance, events: Sequence[int], version: str) -> int:
    """The first of these events, in order, that today's code made; past the last if none."""

    def is_today(event: int) -> bool:
        return any((made.tags or {}).get(CODE_VERSION_TAG) == version for _, made in _events(instance, [event]))

    place = bisect_left(events, True, key=is_today)
    return events[place] if place < len(events) else sys.maxsize


def _used(instance: dg.DagsterInstance, parent: dg.AssetKey, events: Collection[int]) -> dict[str, str]:
    """Data version of the parent that each of these materialisations was made from, by partition."""
    pointer = get_input_event_pointer_tag(parent)
    made = {str(made.partition): (made.tags or {}).get(pointer, "") for _, made in _events(instance, events)}
    given = _events(instance, {int(event) for event in made.values() if event.isdigit()})
    versions = {str(event): (parent_made.tags or {}).get(DATA_VERSION_TAG, "") for event, parent_made in given}
    return {key: versions[event] for key, event in made.items() if event in versions}


def _events(instance: dg.DagsterInstance, ids: Iterable[int]) -> Iterator[tuple[int, dg.AssetMaterialization]]:
    """Materialisations by their ids, with all tags: those stand in no table. One query a thousand of them."""
    wanted = sorted(ids)
    for start in range(0, len(wanted), EVENTS_A_QUERY):
        filter_ = dg.EventRecordsFilter(MADE, storage_ids=wanted[start : start + EVENTS_A_QUERY])
        for record in instance.event_log_storage.get_event_records(filter_):
            if record.asset_materialization is not None:
                yield record.storage_id, record.asset_materialization
