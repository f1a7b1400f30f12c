"""Whether a recording is good enough to learn from."""

import dagster as dg

from drive_assets.batches import PartitionCheck
from drive_assets.partitions import RECORDINGS
from drive_assets.resources.storage import Storage
from model.recording.folder import inspect_recording

MOST_LOST = 0.2
"""A recording that lost more of its rows or frames than this deserves a look at the recorder."""
FEW_FAULTS = dg.AssetCheckSpec(
    "few_faults",
    asset="recording",
    partitions_def=RECORDINGS,
    description="Rows that the recorder failed on, and rows without a usable frame, are few.",
)


def few_faults(storage: Storage) -> PartitionCheck:
    """The check of `FEW_FAULTS` on recordings of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        report = inspect_recording(storage.recording(name), most_unreadable=1.0)
        lost = max(report.telemetry.share_lost, 1 - report.usable_frames / max(report.telemetry.valid, 1))
        passed = lost <= MOST_LOST
        return dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=""
            if passed
            else f"{name} lost {lost:.1%}, more than {MOST_LOST:.0%}. Look at the recorder or the upload.",
            metadata={"share_lost": round(lost, 4)},
        )

    return PartitionCheck(FEW_FAULTS, evaluate)
