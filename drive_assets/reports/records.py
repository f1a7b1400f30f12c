"""What Dagster recorded about an output: the metadata of its latest materialisation, and the results of its checks."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import dagster as dg

from drive_assets.reports.page import Cell, Page, Section, Table
from drive_assets.running.dagster_private import PartitionKeyFilter

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


def check_results(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey], partition: str | None) -> Section:
    """The latest result of each check."""
    chosen = PartitionKeyFilter(key=partition) if partition else None
    rows: list[list[Cell]] = []
    for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(keys, chosen).items():
        event = record.event.dagster_event if record.event else None
        if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue
        data = event.asset_check_evaluation_data
        state = "passed" if data.passed else "failed" if data.severity == dg.AssetCheckSeverity.ERROR else "warns"
        when = datetime.fromtimestamp(record.create_timestamp).strftime("%Y-%m-%d %H:%M")
        rows.append([key.name.replace("_", " "), state, data.description or "", when])
    return Section("Checks", table=Table(("check", "", "result", "when"), rows))
