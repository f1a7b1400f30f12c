"""Which outputs exist, are missing, outdated, in progress or failed, from Dagster's records and the files on disk.

Dagster alone does not notice that a file is gone, that one of more than a hundred inputs changed, or that a checkpoint
was trained on older splits.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import dagster as dg

from drive_assets.asset import Declaration, declaration
from drive_assets.reports.records import failed_checks
from drive_assets.resources.storage import Storage
from drive_assets.running.versions import latest, outdated
from drive_assets.splits.manifest import current_version
from model.common.errors import DataError

CURRENT = "is_current"
"""The check of `outdated`."""
MAX_LISTED = 6
MAX_NAMED = 3
"""Partitions that a line names which have the same reason."""


@dataclass(frozen=True)
class AssetStatus:
    """Partition keys of an asset by their state; "" stands for an asset without partitions."""

    asset: str
    materialised: Sequence[str]
    missing: Sequence[str] = ()
    outdated: Mapping[str, str] = field(default_factory=dict)
    """Materialised, but from other inputs or code than the current ones, or gone from the disk; with the reason."""
    running: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    """Missing or outdated, and the last run failed; with the reason."""
    doubtful: Mapping[str, str] = field(default_factory=dict)
    """Materialised, and a check other than `is_current` failed; with what it found."""


def read_status(instance: dg.DagsterInstance, graph: Any, storage: Storage) -> list[AssetStatus]:
    """The status of all assets, upstream first."""
    return [
        asset_status(instance, graph, storage, key)
        for level in graph.toposorted_asset_keys_by_level
        for key in sorted(level)
    ]


def lines(statuses: Sequence[AssetStatus]) -> list[str]:
    """The status as text: a line per asset, then what needs attention, by name."""
    width = max(len(status.asset) for status in statuses)
    text = [f"{status.asset:{width}}  {_counts(status)}" for status in statuses]
    for status in statuses:
        for kind, reasons in (
            ("failed", status.failed),
            ("out of date", status.outdated),
            ("doubtful", status.doubtful),
        ):
            if reasons:
                text += [f"\n{status.asset}, {kind}:", *(f"  {line}" for line in listed(reasons, MAX_LISTED))]
    if any(status.failed for status in statuses if status.asset == "recording"):
        text.append("\nCorrect the recording and ingest it again, or `drive-assets forget NAME`.")
    return text


def listed(reasons: Mapping[str, str], count: int) -> list[str]:
    """A line for each of the first reasons with its partitions, and how many more partitions there are."""
    keys = defaultdict[str, list[str]](list)
    for key, reason in reasons.items():
        keys[reason].append(key)
    texts = [f"{named(names)}: {reason}" if any(names) else reason for reason, names in list(keys.items())[:count]]
    more = sum(map(len, list(keys.values())[count:]))
    return texts + ([f"and {more:,} more"] if more else [])


def named(names: Sequence[str], count: int = MAX_NAMED) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:count]) + (f" and {len(names) - count:,} more" if len(names) > count else "")


def _counts(status: AssetStatus) -> str:
    failed = status.failed.keys() & set(status.missing)
    counts = {"out of date": len(status.outdated), "running": len(status.running), "failed": len(failed)}
    counts["doubtful"] = len(status.doubtful)
    text = f"{len(status.materialised):,} of {len(status.materialised) + len(status.missing):,} materialised"
    text += "".join(f", {count:,} {kind}" for kind, count in counts.items() if count)
    missing = [key for key in status.missing if key and key not in failed | set(status.running)]
    return text + (f"; missing: {named(missing, MAX_LISTED)}" if missing else "")


def asset_status(instance: dg.DagsterInstance, graph: Any, storage: Storage, key: dg.AssetKey) -> AssetStatus:
    """The status of one asset."""
    partitions, declared = graph.get(key).partitions_def, declaration(graph.get(key).assets_def)
    running, failed = _attempts(instance, key)
    stale: dict[str, str] = {}
    if partitions is None:
        keys = [""]
        materialised = [""] if instance.get_latest_materialization_event(key) else []
    else:
        keys = list(partitions.get_partition_keys(dynamic_partitions_store=instance))
        events = latest(instance, key, keys)
        materialised = sorted(events)
        stale = outdated(instance, graph, key, materialised, events)
    if declared is not None:
        stale |= _outdated_outputs(instance, declared, storage, materialised)
    done = set(materialised)
    missing = [each for each in keys if each not in done]
    return AssetStatus(
        key.to_user_string(),
        materialised,
        missing,
        dict(sorted(stale.items())),
        sorted(set(keys) & set(running)),
        {each: failed[each] for each in sorted((set(keys) & failed.keys()) - set(running))},
        _doubtful(instance, graph, key, materialised),
    )


def _doubtful(
    instance: dg.DagsterInstance, graph: Any, key: dg.AssetKey, materialised: Sequence[str]
) -> dict[str, str]:
    """Partitions whose latest check results failed, with the descriptions of these results."""
    checks = [each for each in sorted(graph.asset_check_keys) if each.asset_key == key and each.name != CURRENT]
    failed = failed_checks(instance, checks)
    return {each: "; ".join(failed[each]) for each in sorted(failed.keys() & set(materialised))}


def _attempts(instance: dg.DagsterInstance, key: dg.AssetKey) -> tuple[list[str], dict[str, str]]:
    """Partitions whose last attempt is running, and those whose last attempt failed, with the reason."""
    storage = instance.event_log_storage
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
    running, failed, reason = [], dict[str, str](), cache(partial(failure_reason, instance))
    for partition, (run_id, _) in attempts.items():
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            running.append(partition)
        elif run is not None and run.status == dg.DagsterRunStatus.FAILURE:
            failed[partition] = _of_partition(reason(run_id), partition)
    return running, failed


def failure_reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """The error of the step that failed in a run; of a run that was ended from outside, why."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        data = entry.get_dagster_event().step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return str(data.user_failure_data.description)
        if data.error is not None:
            return str(data.error.message).strip()
    ended = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    return ended[-1].message if ended else "its run failed before it began"


def _of_partition(reason: str, partition: str) -> str:
    """The line of a partition in the error of a batch, where each begins with its partition."""
    lines = [line for line in reason.splitlines() if line.startswith(f"{partition}: ")]
    return lines[0].removeprefix(f"{partition}: ") if lines else reason.splitlines()[0]


def _outdated_outputs(
    instance: dg.DagsterInstance, declared: Declaration, storage: Storage, materialised: Sequence[str]
) -> dict[str, str]:
    """Partitions whose output is gone or unreadable, was made from older splits, or is declared out of date."""
    reasons: dict[str, str] = {}
    current = cache(partial(current_version, storage))
    for key in materialised:
        try:
            path = declared.path(storage, key)
        except DataError:  # an invalid key, which anybody can add, has no path
            continue
        try:
            if not path.exists():
                reasons[key] = f"{path} is gone"
            elif declared.data_version and declared.data_version(path) != current():
                reasons[key] = "made from older splits"
            elif declared.outdated and (reason := declared.outdated(instance, storage)):
                reasons[key] = reason
        except DataError as error:
            reasons[key] = str(error)
    return reasons
