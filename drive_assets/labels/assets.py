"""recording -> future_labels.csv"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from drive_assets.asset import Column, asset, bound_checks
from drive_assets.conditions import when_inputs_are_there
from drive_assets.labels.checks import fits_telemetry, plausible_rates
from drive_assets.partitions import RECORDINGS
from drive_assets.reports.drives import labels_page
from drive_assets.reports.links import report_link
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_partition
from drive_assets.running.launchpad import Launchpad
from model.common.code import code_version
from model.common.files import sha256
from model.recording.folder import Recording
from model.recording.labels import LabelConfig, brake_source, future_labels, row_reasons, write_future_labels
from model.recording.schema import DEFAULT_TASKS, LABEL_COLUMNS, LABELS, TASKS, TIME


class LabelLaunchpad(LabelConfig, Launchpad):
    """How labels are derived."""


QUANTITIES = {
    "brake": "whether the driver brakes then; empty: unknown",
    "coast": "whether the accelerator is below the coasting threshold then; empty: unknown",
    "brake_force": "deceleration by the brake then, share of 9.81 m/s2; empty: unknown",
    "acc_pos": "accelerator position then, %; empty: unknown",
}


def _columns() -> Iterator[Column]:
    yield TIME, "text", "time of the row"
    for label in LABELS:
        quantity = label.name.removesuffix(f"_{label.horizon_s}s")
        yield label.name, "bool" if label.binary else "float", QUANTITIES.get(quantity, "empty: unknown")


@asset(
    name="future_labels",
    group_name="4_labels",
    deps=["recording"],
    partitions_def=RECORDINGS,
    output=Storage.future_labels,
    page=labels_page,
    checks=[fits_telemetry, plausible_rates],
    columns=_columns(),
    example="2024-05-31 08-15-00-5, False, True, 0.0, 0.0, ...",
    backfill_policy=dg.BackfillPolicy.multi_run(250),  # starting a process takes as long as a hundred small recordings
    automation_condition=when_inputs_are_there(),
    code_version=code_version("model.recording.labels", "model.recording.schema"),
    kinds={"pandas", "csv"},
)
def future_labels_asset(context: dg.AssetExecutionContext, config: LabelLaunchpad, storage: Storage) -> Iterator[Event]:
    """What the driver does one to five seconds after each row. **In:** the recording's telemetry. **Out:** braking,
    coasting, brake force and accelerator position for each horizon, looked up by time. Cells past the end of the drive,
    in gaps, and where driver assistance drives are empty (unknown), never False. Those of imported recordings say, too,
    whether the car slows (slow_{h}s)."""

    def label(name: str) -> dg.MaterializeResult:
        own = Recording(storage.recording(name))
        telemetry, _ = own.telemetry()
        labels = future_labels(telemetry, config)
        path = own.labels_path
        columns = [*labels] if own.imported else [*LABEL_COLUMNS]
        write_future_labels(path, labels[columns], config, brake_source(telemetry))
        version = sha256(path)[:12]
        link = {"report": report_link("future_labels", name, version)}
        reasons = row_reasons(telemetry, config.coast_threshold)
        about = {"brake_labels": brake_source(telemetry), "unknown_as": dg.MetadataValue.json(reasons)}
        metadata = link | _metadata(path, labels) | about
        return dg.MaterializeResult(data_version=dg.DataVersion(version), metadata=metadata)

    yield from each_partition(context, label, bound_checks(context, storage))


def _metadata(path: Path, labels: pd.DataFrame) -> dict[str, Any]:
    known = {label: labels[label].dropna() for label in TASKS}
    rates = {label: round(float(values.mean()), 4) if len(values) else 0.0 for label, values in known.items()}
    table = [
        dg.TableRecord({"label": label, "rate": rates[label], "unknown": len(labels) - len(values)})
        for label, values in known.items()
    ]
    return {
        "rows": len(labels),
        **{f"{label}_rate": rates[label] for label in DEFAULT_TASKS},
        "labels": dg.MetadataValue.table(table),
        "path": dg.MetadataValue.path(path),
    }
