"""sources -> recordings"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import dagster as dg

from drive_assets.asset import Column, asset, bound_checks
from drive_assets.partitions import RECORDINGS
from drive_assets.recordings.checks import few_faults, find_implausible, plausible_drive
from drive_assets.recordings.ingest import IngestReport, ingest
from drive_assets.recordings.sources import lookup
from drive_assets.reports.drives import recording_page
from drive_assets.reports.links import report_link
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_partition
from drive_assets.running.launchpad import Launchpad
from model.recording.dialect import ReadingConfig
from model.recording.folder import Recording
from model.recording.schema import CHANNELS, TIME


class RecordingLaunchpad(ReadingConfig, Launchpad):
    """How recordings are read."""


def _columns() -> Iterator[Column]:
    yield TIME, "text", "YYYY-MM-DD HH-MM-SS-d, the name of the row's frame"
    types = {"number": "float", "flag": "bool", "gear": "int"}
    for channel in CHANNELS.values():
        limits = "; rows outside {:g} to {:g} are dropped".format(*channel.plausible) if channel.plausible else ""
        yield channel.name, types[channel.kind], f"{channel.unit or channel.kind}{limits}"


@asset(
    group_name="1_recordings",
    partitions_def=RECORDINGS,
    output=Storage.recording,
    page=recording_page,
    checks=[few_faults, plausible_drive],
    columns=_columns(),
    example="recordings/2024-05-31_08-15-00/2024-05-31 08-15-00-5.jpg",
    backfill_policy=dg.BackfillPolicy.multi_run(50),
    code_version="1",
    kinds={"csv", "jpeg"},
    # Only errors that may pass are retried (see `batches`): a service that does not respond, not invalid input.
    retry_policy=dg.RetryPolicy(max_retries=3),
)
def recording(context: dg.AssetExecutionContext, config: RecordingLaunchpad, storage: Storage) -> Iterator[Event]:
    """A recorded drive, validated. **In:** a folder or zip from a source (inbox, command line, library) with
    `telemetry.csv` and a JPEG or PNG per row, twice a second. **Out:** a copy in the data root. Rows with recorder
    faults are counted; unusable recordings are rejected, naming file and row. Sources are never changed."""

    def take(name: str) -> dg.MaterializeResult:
        report = ingest(storage, lookup(storage, name), context.log.info, config)
        doubts = [finding.text for finding in find_implausible(storage, name)]
        return _result(storage.recording(name), report, doubts)

    yield from each_partition(context, take, bound_checks(context, storage), retry_wait_s=60.0)


def _result(folder: Path, report: IngestReport, doubts: Sequence[str]) -> dg.MaterializeResult:
    content, telemetry = report.content, report.content.telemetry
    notes = Recording(folder).imported.get("notes", [])
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.version),
        metadata={
            "report": report_link("recording", folder.name, report.version),
            "summary": f"{content.usable_frames:,} usable frames; {telemetry.share_lost * telemetry.rows:.0f} of "
            f"{telemetry.rows:,} rows dropped, {content.truncated_frames} frames truncated, "
            f"{content.rows_without_frame} missing"
            + ("" if report.change == "new" else f" ({report.change})")
            + "".join(f"\n    {note}" for note in notes),
            **({"doubtful": "; ".join(doubts)} if doubts else {}),
            "change": report.change,
            "source": report.source,
            **{key: round(value, 3) if isinstance(value, float) else value for key, value in report.transfer.items()},
            **{key: value for key, value in vars(content).items() if isinstance(value, int) and key != "frame_bytes"},
            "megabytes": round(content.frame_bytes / 1e6, 1),
            "telemetry": dg.MetadataValue.table(
                [dg.TableRecord({"rows": key, "count": value}) for key, value in telemetry.to_dict().items()]
            ),
            "dialect": dg.MetadataValue.json(asdict(telemetry.dialect)),
            "examples": dg.MetadataValue.json(content.examples),
            "path": dg.MetadataValue.path(folder),
        },
    )
