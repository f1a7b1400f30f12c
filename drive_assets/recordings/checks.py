"""Whether a recording is good enough to learn from."""

import dagster as dg

from drive_assets.partitions import RECORDINGS
from drive_assets.resources.storage import Storage
from model.recording.folder import inspect_recording

MOST_LOST = 0.2
"""A recording that lost more of its rows or frames than this deserves a look at the recorder."""


@dg.asset_check(asset="recording", partitions_def=RECORDINGS)
def few_faults(context: dg.AssetCheckExecutionContext, storage: Storage) -> dg.AssetCheckResult:
    """Rows that the recorder failed on, and rows without a usable frame, are few."""
    lost = {}
    for name in context.partition_keys:
        report = inspect_recording(storage.recording(name))
        rows = report.telemetry.rows
        lost[name] = max(1 - report.telemetry.valid / rows, 1 - report.usable_frames / max(report.telemetry.valid, 1))
    bad = {name: round(share, 3) for name, share in lost.items() if share > MOST_LOST}
    return dg.AssetCheckResult(
        passed=not bad,
        severity=dg.AssetCheckSeverity.WARN,
        description="" if not bad else f"More than {MOST_LOST:.0%} lost: {bad}. Look at the recorder or the upload.",
        metadata={"largest_share_lost": max(lost.values())},
    )
