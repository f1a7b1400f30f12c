"""sources -> validated recordings"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import dagster as dg
import numpy as np

from drive_assets.batches import Event, each_partition
from drive_assets.partitions import RECORDINGS
from drive_assets.pictures import LIMIT_BYTES, inline_image
from drive_assets.recordings.checks import FEW_FAULTS, PLAUSIBLE_DRIVE, few_faults, plausible_drive
from drive_assets.recordings.ingest import IngestReport, ingest
from drive_assets.recordings.sources import lookup
from drive_assets.resources.storage import Storage
from model.common.images import contact_sheet, evenly
from model.recording.folder import Recording
from model.recording.frame_files import is_whole
from model.recording.telemetry import ReadingConfig

SHEET_FRAMES, SHEET_COLUMNS, TILE = 9, 3, (384, 216)


class RecordingLaunchpad(ReadingConfig, dg.Config):
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
            "frames_over_the_drive": inline_image(frames_over_the_drive(folder), "jpeg"),
            "path": dg.MetadataValue.path(folder),
        },
    )


def frames_over_the_drive(folder: Path) -> bytes:
    """JPEG of nine frames, evenly picked over the drive."""
    files = list(Recording(folder).frames().values())
    picked = [files[index] for index in evenly(len(files), SHEET_FRAMES)]
    frames = [cv2.imread(str(path)) for path in picked if is_whole(path)]
    tiles = [np.asarray(cv2.resize(f, TILE, interpolation=cv2.INTER_AREA), np.uint8) for f in frames if f is not None]
    return contact_sheet(tiles, SHEET_COLUMNS, LIMIT_BYTES * 3 // 4)
