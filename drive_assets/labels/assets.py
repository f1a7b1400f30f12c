"""recording -> future_labels.csv"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from drive_assets.conditions import when_inputs_are_there
from drive_assets.labels.checks import FITS_TELEMETRY, PLAUSIBLE_RATES, fits_telemetry, plausible_rates
from drive_assets.partitions import RECORDINGS
from drive_assets.reports.links import report_link
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_partition
from drive_assets.running.launchpad import Launchpad
from model.common.code import code_version
from model.common.files import sha256
from model.recording.folder import Recording
from model.recording.labels import LabelConfig, future_labels, write_future_labels
from model.recording.schema import BINARY_LABELS, DEFAULT_TASKS


class LabelLaunchpad(LabelConfig, Launchpad):
    """How the future is looked up."""


@dg.asset(
    name="future_labels",
    deps=["recording"],
    partitions_def=RECORDINGS,
    check_specs=[FITS_TELEMETRY, PLAUSIBLE_RATES],
    backfill_policy=dg.BackfillPolicy.multi_run(250),  # a process costs as much as a hundred small recordings
    automation_condition=when_inputs_are_there(),
    group_name="labels",
    code_version=code_version("model.recording.labels", "model.recording.schema"),
    kinds={"pandas", "csv"},
)
def future_labels_asset(context: dg.AssetExecutionContext, config: LabelLaunchpad, storage: Storage) -> Iterator[Event]:
    """Whether the driver brakes or coasts one to five seconds after each row; unknown past the end and in gaps."""

    def label(name: str) -> dg.MaterializeResult:
        own = Recording(storage.recording(name))
        telemetry, _ = own.telemetry()
        labels = future_labels(telemetry, config)
        path = own.labels_path
        write_future_labels(path, labels, config)
        version = sha256(path)[:12]
        link = {"report": report_link("future_labels", name, version)}
        return dg.MaterializeResult(data_version=dg.DataVersion(version), metadata=link | _metadata(path, labels))

    yield from each_partition(context, label, [fits_telemetry(storage), plausible_rates(storage)])


def _metadata(path: Path, labels: pd.DataFrame) -> dict[str, Any]:
    known = {label: labels[label].dropna() for label in BINARY_LABELS}
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
