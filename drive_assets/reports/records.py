"""What Dagster recorded about an output: the metadata of its latest materialisation, and the results of its checks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg

from drive_assets.reports.page import Cell, Page, Section, Table
from drive_assets.running import versions
from drive_assets.running.dagster_private import PartitionKeyFilter

PER_QUERY = 1000
FACTS = (dg.IntMetadataValue, dg.FloatMetadataValue, dg.TextMetadataValue, dg.BoolMetadataValue)


def latest(instance: dg.DagsterInstance, asset: str, partition: str | None) -> dg.AssetMaterialization | None:
    """The latest materialisation."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].asset_materialization if records else None


def with_metadata(page: Page, event: dg.AssetMaterialization) -> Page:
    """A page with the numbers and short texts in a materialisation's metadata as facts, and its mappings as tables."""
    facts = {name: value.value for name, value in event.metadata.items() if isinstance(value, FACTS)}
    tables = [
        Section(name.replace("_", " ").capitalize(), table=Table.of(value.value))
        for name, value in event.metadata.items()
        if isinstance(value, dg.JsonMetadataValue) and isinstance(value.value, dict) and value.value
    ]
    return replace(page, facts={**page.facts, **facts}, sections=[*page.sections, *tables])


def latest_metadata(instance: dg.DagsterInstance, asset: str, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The metadata of the latest materialisation of each partition that has one."""
    ids = [event for _, event in versions.latest(instance, dg.AssetKey(asset), keys).values()]
    return {str(event.partition): event.metadata for event in versions.materializations(instance, ids)}


def check_results(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey], partition: str | None) -> Section:
    """The latest result of each check."""
    rows: list[list[Cell]] = []
    for key, (data, when) in _evaluations(instance, keys, partition).items():
        state = "passed" if data.passed else "failed" if data.severity == dg.AssetCheckSeverity.ERROR else "warns"
        rows.append([key.name.replace("_", " "), state, data.description or "", f"{when:%Y-%m-%d %H:%M}"])
    return Section("Checks", table=Table(("check", "state", "result", "when"), rows))


def failed_checks(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]) -> dict[str, list[str]]:
    """The descriptions of failed checks by partition, which they need not name; "" for checks of whole assets."""
    storage, descriptions = instance.event_log_storage, dict[str, list[str]]()
    for key in keys:
        infos = storage.get_asset_check_partition_info([key])
        failed = {info.partition_key or "": info.latest_execution_status for info in infos if _has_failed(info)}
        statuses, last = set(failed.values()), None
        # The failures of all partitions, the latest first: a query for each partition is slow with thousands of them.
        while failed and (records := storage.get_asset_check_execution_history(key, PER_QUERY, last, statuses)):
            for record in records:
                name, last = record.partition or "", record.id
                if failed.pop(name, None) and record.evaluation:
                    text = without_name(record.evaluation.description or key.name, name)
                    descriptions.setdefault(name, []).append(text)
    return descriptions


def without_name(text: str, partition: str) -> str:
    """What a check found, without the name of the partition, which stands beside it."""
    return text.replace(f"{partition}: ", "") if partition else text


def _has_failed(info: Any) -> bool:
    return bool(info.latest_execution_status.name == "FAILED")


def _evaluations(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey], partition: str | None
) -> dict[dg.AssetCheckKey, tuple[dg.AssetCheckEvaluation, datetime]]:
    """The latest evaluation of each check, and when it was."""
    chosen = PartitionKeyFilter(key=partition) if partition else None
    found = {}
    for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(keys, chosen).items():
        event = record.event.dagster_event if record.event else None
        if event and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            found[key] = (event.asset_check_evaluation_data, datetime.fromtimestamp(record.create_timestamp))
    return found
