"""sources -> validated recordings"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import dagster as dg

from drive_assets.partitions import RECORDINGS
from drive_assets.recordings.checks import FEW_FAULTS, PLAUSIBLE_DRIVE, few_faults, plausible_drive
from drive_assets.recordings.ingest import IngestReport, ingest
from drive_assets.recordings.sources import lookup
from drive_assets.reports.links import report_link
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_partition
from drive_assets.running.launchpad import Launchpad
from model.recording.dialect import ReadingConfig


class RecordingLaunchpad(ReadingConfig, Launchpad):
    """How a recording is read."""


@dg.asset(
    partitions_def=RECORDINGS,
    backfill_policy=dg.BackfillPolicy.multi_run(50),
    check_specs=[FEW_FAULTS, PLAUSIBLE_DRIVE],
    group_name="recordings",
    code_version="1",
    kinds={"csv", "jpeg"},
    # Only what may pass by itself is retried (see `batches`): a service that does not answer, not wrong input.
    retry_policy=dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
)
def recording(context: dg.AssetExecutionContext, config: RecordingLaunchpad, storage: Storage) -> Iterator[Event]:
    """A drive: telemetry.csv and a JPEG a row, checked and copied, unpacked or downloaded into the data root."""

    def take(name: str) -> dg.MaterializeResult:
        return _result(storage.recording(name), ingest(storage, lookup(storage, name), context.log.info, config))

    yield from each_partition(context, take, [few_faults(storage), plausible_drive(storage)])


def _result(folder: Path, report: IngestReport) -> dg.MaterializeResult:
    content, telemetry = report.content, report.content.telemetry
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.version),
        metadata={
            "report": report_link("recording", folder.name, report.version),
            "summary": f"{content.usable_frames:,} usable frames; {telemetry.share_lost * telemetry.rows:.0f} of "
            f"{telemetry.rows:,} rows dropped, {content.truncated_frames} frames truncated, "
            f"{content.rows_without_frame} missing",
            "change": report.change,
            "source": report.source,
            **{key: round(value, 3) if isinstance(value, float) else value for key, value in report.transfer.items()},
            "frames": content.frames,
            "usable_frames": content.usable_frames,
            "frames_without_row": content.frames_without_row,
            "rows_without_frame": content.rows_without_frame,
            "truncated_frames": content.truncated_frames,
            "repeated_frames": content.repeated_frames,
            "megabytes": round(content.frame_bytes / 1e6, 1),
            "telemetry": dg.MetadataValue.table(
                [dg.TableRecord({"rows": key, "count": value}) for key, value in telemetry.to_dict().items()]
            ),
            "dialect": dg.MetadataValue.json(asdict(telemetry.dialect)),
            "examples": dg.MetadataValue.json(content.examples),
            "path": dg.MetadataValue.path(folder),
        },
    )
