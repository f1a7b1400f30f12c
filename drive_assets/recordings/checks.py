"""Checks of recordings: are they good enough to learn from?"""

from dataclasses import asdict
from functools import lru_cache

import dagster as dg

from drive_assets.checks import ERROR, WARN, check_result, partition_check
from drive_assets.resources.storage import Storage
from model.recording.folder import TELEMETRY, Recording, inspect_recording
from model.recording.frame_files import repeated_frames
from model.recording.plausibility import Finding, implausible_camera, implausible_drive, implausible_start

MAX_LOST = 0.2
"""Share of rows or frames that a recording may lose without a warning."""


def find_implausible(storage: Storage, name: str) -> list[Finding]:
    """What is implausible about a recording."""
    folder = storage.recording(name)
    return _findings(Recording(folder), max(path.stat().st_ctime_ns for path in (folder, folder / TELEMETRY)))


@lru_cache(maxsize=1)
def _findings(recording: Recording, changed: int) -> list[Finding]:
    """Cached: the ingestion reports them, and the check after it."""
    telemetry, report = recording.telemetry()
    frames = recording.frames()
    findings = [*implausible_drive(telemetry, report), *implausible_start(recording.name, telemetry)]
    return findings + implausible_camera(frames, telemetry, repeated_frames(frames))


@partition_check()
def plausible_drive(storage: Storage, name: str) -> dg.AssetCheckResult:
    """Finds stuck or saturated sensors, a pedal that never rests, a brake that is always on, a black or frozen camera.
    Recordings that would teach false labels are left out of data sets unless accept_implausible names them."""
    findings = find_implausible(storage, name)
    return check_result(
        [f"{name}: {finding.text}" for finding in findings],
        severity=ERROR if any(finding.blocks_training for finding in findings) else WARN,
        metadata={"findings": dg.MetadataValue.json([asdict(finding) for finding in findings])},
    )


@partition_check()
def few_faults(storage: Storage, name: str) -> dg.AssetCheckResult:
    """Few rows have recorder faults or lack a usable frame."""
    report = inspect_recording(storage.recording(name), most_unreadable=1.0)
    lost = max(report.telemetry.share_lost, 1 - report.usable_frames / max(report.telemetry.valid, 1))
    return check_result(
        [f"{name} lost {lost:.1%}, more than {MAX_LOST:.0%}"] if lost > MAX_LOST else [],
        "Check the recorder and the upload.",
        metadata={"share_lost": round(lost, 4)},
    )
