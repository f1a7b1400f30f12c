"""Whether a recording is good enough to learn from."""

from dataclasses import asdict

import dagster as dg

from drive_assets.partitions import RECORDINGS
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import PartitionCheck
from model.recording.folder import Recording, inspect_recording
from model.recording.frame_files import repeated_frames
from model.recording.plausibility import implausible_camera, implausible_drive, implausible_start

MOST_LOST = 0.2
"""A recording that lost more of its rows or frames than this deserves a look at the recorder."""
FEW_FAULTS = dg.AssetCheckSpec(
    "few_faults",
    asset="recording",
    partitions_def=RECORDINGS,
    description="Rows that the recorder failed on, and rows without a usable frame, are few.",
)


PLAUSIBLE_DRIVE = dg.AssetCheckSpec(
    "plausible_drive",
    asset="recording",
    partitions_def=RECORDINGS,
    description="Sensors that hang or saturate, a pedal that never rests, a brake that is always on, a camera that is "
    "black or hangs. What blocks training keeps a recording out of data sets, unless accept_implausible names it.",
)


def plausible_drive(storage: Storage) -> PartitionCheck:
    """The check of `PLAUSIBLE_DRIVE` on recordings of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        recording = Recording(storage.recording(name))
        telemetry, report = recording.telemetry()
        frames = recording.frames()
        found = [*implausible_drive(telemetry, report), *implausible_start(name, telemetry)]
        found += implausible_camera(frames, telemetry, repeated_frames(frames))
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.ERROR
            if any(finding.blocks_training for finding in found)
            else dg.AssetCheckSeverity.WARN,
            description="; ".join(f"{name}: {finding.text}" for finding in found),
            metadata={"findings": dg.MetadataValue.json([asdict(finding) for finding in found])},
        )

    return PartitionCheck(PLAUSIBLE_DRIVE, evaluate)


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
