"""The materialisations and check results of an asset or a partition, from Dagster's records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from drive_assets.reports.page import Cell, Section, Table
from drive_assets.running.dagster_private import PartitionKeyFilter

MAX_ROWS, MAX_COLUMNS = 10, 8
"""Of the table of materialisations, the latest first."""
VERSION_TAG = "dagster/data_version"


@dataclass(frozen=True)
class History:
    """Reads a Dagster instance."""

    instance: dg.DagsterInstance
    checks: Iterable[dg.AssetCheckKey]

    def sections(self, asset: str, partition: str | None) -> list[Section]:
        """The check results, and the materialisations with their figures."""
        return [self._check_results(asset, partition), self._materialisations(asset, partition)]

    def latest(self, asset: str, partition: str | None) -> dg.AssetMaterialization | None:
        records = self._records(asset, partition, 1)
        return records[0].asset_materialization if records else None

    def version(self, asset: str, partition: str | None) -> str:
        """The data version of the latest materialisation; empty if unknown."""
        latest = self.latest(asset, partition)
        return (latest.tags or {}).get(VERSION_TAG, "") if latest else ""

    def facts(self, asset: str, partition: str | None) -> dict[str, Cell]:
        """Numbers and short texts in the latest materialisation's metadata."""
        latest = self.latest(asset, partition)
        return {
            name: value.value
            for name, value in (latest.metadata if latest else {}).items()
            if isinstance(
                value, (dg.IntMetadataValue, dg.FloatMetadataValue, dg.TextMetadataValue, dg.BoolMetadataValue)
            )
        }

    def mappings(self, asset: str, partition: str | None) -> list[Section]:
        """A table for each mapping in the latest materialisation's metadata."""
        latest = self.latest(asset, partition)
        return [
            Section(name.replace("_", " ").capitalize(), table=Table.of(value.value))
            for name, value in (latest.metadata if latest else {}).items()
            if isinstance(value, dg.JsonMetadataValue) and isinstance(value.value, dict) and value.value
        ]

    def _records(self, asset: str, partition: str | None, limit: int) -> Sequence[dg.EventLogRecord]:
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
        return self.instance.fetch_materializations(wanted, limit=limit).records

    def _materialisations(self, asset: str, partition: str | None) -> Section:
        records = self._records(asset, partition, MAX_ROWS)
        events = [record.asset_materialization for record in records]
        numeric = (dg.IntMetadataValue, dg.FloatMetadataValue)
        names = list(
            dict.fromkeys(
                name
                for event in events
                if event
                for name, value in event.metadata.items()
                if isinstance(value, numeric)
            )
        )[:MAX_COLUMNS]
        rows: list[list[Cell]] = []
        for record, event in zip(records, events, strict=True):
            values = event.metadata if event else {}
            version = (event.tags or {}).get(VERSION_TAG, "") if event else ""
            figures = [values[name].value if name in values else "" for name in names]
            rows.append([_time(record.timestamp), record.run_id[:8], version[:12], *figures])
        columns = ["materialised", "run", "data version", *names]
        return Section(
            "History", f"The last {MAX_ROWS} materialisations, from Dagster's records.", Table(columns, rows)
        )

    def _check_results(self, asset: str, partition: str | None) -> Section:
        keys = sorted(key for key in self.checks if key.asset_key == dg.AssetKey(asset))
        storage = self.instance.event_log_storage
        chosen = PartitionKeyFilter(key=partition) if partition else None
        rows: list[list[Cell]] = []
        for key, record in storage.get_latest_asset_check_execution_by_key(keys, chosen).items():
            event = record.event.dagster_event if record.event else None
            if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                continue
            data = event.asset_check_evaluation_data
            state = "passed" if data.passed else "failed" if data.severity == dg.AssetCheckSeverity.ERROR else "warns"
            rows.append([key.name.replace("_", " "), state, data.description or "", _time(record.create_timestamp)])
        return Section("Checks", table=Table(("check", "", "result", "when"), rows))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
