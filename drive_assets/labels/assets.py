"""recording -> future_labels.csv"""

from collections.abc import Iterator

import dagster as dg

from drive_assets.batches import Event, each_partition
from drive_assets.partitions import RECORDINGS
from drive_assets.pictures import inline
from drive_assets.resources.storage import Storage
from model.common.files import sha256
from model.recording.folder import Recording
from model.recording.labels import LabelConfig, future_labels, write_future_labels
from model.recording.plots import label_timeline
from model.recording.schema import BINARY_LABELS


class LabelLaunchpad(LabelConfig, dg.Config):
    """How the future is looked up."""


@dg.asset(
    name="future_labels",
    deps=["recording"],
    partitions_def=RECORDINGS,
    backfill_policy=dg.BackfillPolicy.multi_run(50),
    automation_condition=dg.AutomationCondition.eager(),
    group_name="labels",
    code_version="1",
    kinds={"pandas", "csv"},
)
def future_labels_asset(context: dg.AssetExecutionContext, config: LabelLaunchpad, storage: Storage) -> Iterator[Event]:
    """Whether the driver brakes or coasts one to five seconds after each row; unknown past the end and in gaps."""

    def label(name: str) -> dg.MaterializeResult:
        own = Recording(storage.recording(name))
        telemetry, _ = own.telemetry()
        labels = future_labels(telemetry, config)
        path = own.labels_path
        write_future_labels(path, labels)
        known = labels[list(BINARY_LABELS)]
        table = []
        for label in BINARY_LABELS:
            unknown = int(known[label].isna().sum())
            rate = int(known[label].sum()) / max(len(known) - unknown, 1)
            table.append(dg.TableRecord({"label": label, "rate": rate, "unknown": unknown}))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(sha256(path)[:12]),
            metadata={
                "rows": len(labels),
                "labels": dg.MetadataValue.table(table),
                "timeline": inline(label_timeline(telemetry, labels, name)),
                "path": dg.MetadataValue.path(path),
            },
        )

    yield from each_partition(context, label)
