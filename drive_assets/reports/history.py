"""What Dagster knows of an asset or a partition: its materialisations so far, and what its checks found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from drive_assets.reports.page import Cell, Section, Table
from drive_assets.running.dagster_private import PartitionKeyFilter

SHOWN = 10
"""Materialisations, the latest first."""
MOST_COLUMNS = 8
VERSION_TAG = "dagster/data_version"


@dataclass(frozen=True)
class History:
    """Reads a Dagster instance."""

    instance: dg.DagsterInstance
    checks: Mapping[str, Sequence[str]]
    """Names of checks by asset"""

    def sections(self, asset: str, partition: str | None) -> list[Section]:
        """What the checks found, and the materialisations with the figures of each."""
        return [self._checks(asset, partition), self._made(asset, partition)]

    def latest(self, asset: str, partition: str | None) -> dg.AssetMaterialization | None:
        records = self._records(asset, partition, 1)
        return records[0].asset_materialization if records else None

    def version(self, asset: str, partition: str | None) -> str:
        """The data version that was made last; empty if that is not known."""
        made = self.latest(asset, partition)
        return (made.tags or {}).get(VERSION_TAG, "") if made else ""

    def facts(self, asset: str, partition: str | None) -> dict[str, Cell]:
        """Numbers and short texts of the latest materialisation's metadata."""
        made = self.latest(asset, partition)
        return {
            name: value.value
            for name, value in (made.metadata if made else {}).items()
            if isinstance(
                value, (dg.IntMetadataValue, dg.FloatMetadataValue, dg.TextMetadataValue, dg.BoolMetadataValue)
            )
        }

    def mappings(self, asset: str, partition: str | None) -> list[Section]:
        """What of the latest materialisation's metadata is a mapping by name, a table each."""
        made = self.latest(asset, partition)
        return [
            Section(name.replace("_", " ").capitalize(), table=Table.of(value.value))
            for name, value in (made.metadata if made else {}).items()
            if isinstance(value, dg.JsonMetadataValue) and isinstance(value.value, dict) and value.value
        ]

    def _records(self, asset: str, partition: str | None, limit: int) -> Sequence[dg.EventLogRecord]:
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
        return self.instance.fetch_materializations(wanted, limit=limit).records

    def _made(self, asset: str, partition: str | None) -> Section:
        records = self._records(asset, partition, SHOWN)
        made = [record.asset_materialization for record in records]
        numeric = (dg.IntMetadataValue, dg.FloatMetadataValue)
        names = list(
            dict.fromkeys(
                name for event in made if event for name, value in event.metadata.items() if isinstance(value, numeric)
            )
        )[:MOST_COLUMNS]
        rows: list[list[Cell]] = []
        for record, event in zip(records, made, strict=True):
            values = event.metadata if event else {}
            version = (event.tags or {}).get(VERSION_TAG, "") if event else ""
            figures = [values[name].value if name in values else "" for name in names]
            rows.append([_time(record.timestamp), record.run_id[:8], version[:12], *figures])
        columns = ["made", "run", "data version", *names]
        return Section(
            "History", f"The last {SHOWN} times it was made, as Dagster recorded them.", Table(columns, rows)
        )

    def _checks(self, asset: str, partition: str | None) -> Section:
        keys = [dg.AssetCheckKey(dg.AssetKey(asset), name) for name in self.checks.get(asset, ())]
        storage = self.instance.event_log_storage
        chosen = PartitionKeyFilter(key=partition) if partition else None
        rows: list[list[Cell]] = []
        for key, record in storage.get_latest_asset_check_execution_by_key(keys, chosen).items():
            event = record.event.dagster_event if record.event else None
            if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                continue
            found = event.asset_check_evaluation_data
            state = "passed" if found.passed else "failed" if found.severity == dg.AssetCheckSeverity.ERROR else "warns"
            rows.append([key.name.replace("_", " "), state, found.description or "", _time(record.create_timestamp)])
        return Section("Checks", table=Table(("check", "", "what it found", "when"), rows))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
