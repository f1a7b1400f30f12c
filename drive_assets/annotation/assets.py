"""recording, detector -> annotations.csv"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import dagster as dg
from pydantic import Field

from drive_assets.annotation.checks import plausible_detections, steady_detections
from drive_assets.asset import Column, asset, bound_checks
from drive_assets.conditions import when_inputs_are_there
from drive_assets.partitions import RECORDINGS
from drive_assets.reports.drives import annotations_page
from drive_assets.reports.links import report_link
from drive_assets.resources.compute import Compute
from drive_assets.resources.storage import Storage, own_detector
from drive_assets.running.batches import Event, each_result, partition_keys
from drive_assets.running.launchpad import Launchpad
from drive_assets.tasks import ANNOTATE, AnnotateJob
from model.annotation.config import AnnotationConfig
from model.annotation.plots import framed_boxes
from model.annotation.report import AnnotationReport
from model.common.files import sha256
from model.common.images import contact_sheet, evenly
from model.common.pages import picture
from model.recording.folder import Recording

DETECTOR = dg.AssetSelection.assets("boxy_detector")
PREVIEW_TILES, PREVIEW_WIDTH, PREVIEW_BYTES = 6, 320, 70_000
"""Of the metadata, where Dagster shows images of up to 100 kB, in base64. Faces and plates are too small to be read."""
COLUMNS: list[Column] = [
    ("Time", "text", "time of the frame"),
    ("filename", "text", "file of the frame"),
    ("vehicle_count", "int", "0: no vehicle was detected"),
    ("class_ids", "JSON list", "class of each vehicle, by descending confidence"),
    ("confidences", "JSON list", "0 to 1"),
    ("bboxes", "JSON list", "[x1, y1, x2, y2], px of the region of interest"),
    ("areas", "JSON list", "px2"),
]


class AnnotationLaunchpad(AnnotationConfig, Launchpad):
    """How frames are annotated."""

    weights: str = Field(
        "",
        description="Weights file of the detector; empty: that of DRIVE_ASSETS_WEIGHTS, otherwise what boxy_detector "
        "trained",
    )


@asset(
    group_name="3_annotation",
    deps=["recording", "boxy_detector"],
    partitions_def=RECORDINGS,
    output=Storage.annotations,
    page=annotations_page,
    checks=[plausible_detections, steady_detections],
    columns=COLUMNS,
    example="2, [0, 0], [0.94, 0.71], [[812.4, 101.0, 930.8, 188.2], ...]",
    backfill_policy=dg.BackfillPolicy.multi_run(20),
    # A new detector does not trigger annotating everything again: that is a person's decision, and a backfill.
    automation_condition=when_inputs_are_there(later=DETECTOR),
    pool="gpu",
    retry_policy=dg.RetryPolicy(max_retries=1),
    code_version="1",
    kinds={"yolo", "csv"},
)
def annotations(
    context: dg.AssetExecutionContext, config: AnnotationLaunchpad, storage: Storage, compute: Compute
) -> Iterator[Event]:
    """The vehicles in each frame. **In:** the recording's frames, and the weights of `boxy_detector` or those that the
    launchpad names. **Out:** a row per frame, also for frames without vehicles; `annotations.json` records how they
    were annotated. An interrupted run resumes where it stopped."""
    named = config.weights or own_detector()
    weights = storage.root / Path(named).expanduser() if named else storage.boxy_detector
    chosen = AnnotationConfig(**config.model_dump(exclude={"weights"}))
    jobs = [AnnotateJob(storage.recording(name), weights, storage.cache, chosen) for name in partition_keys(context)]
    results = compute.run_each(context, ANNOTATE, jobs)
    yield from each_result(context, results, partial(_result, storage), bound_checks(context, storage))


def _result(storage: Storage, name: str, report: AnnotationReport) -> dg.MaterializeResult:
    recording = Recording(storage.recording(name))
    path, annotations = recording.annotations_path, recording.annotations()
    tiles = framed_boxes(recording, annotations, evenly(len(annotations), PREVIEW_TILES), PREVIEW_WIDTH)
    version = sha256(path)[:12]
    counts = {key: value for key, value in asdict(report).items() if isinstance(value, int)}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata={
            "report": report_link("annotations", name, version),
            "summary": f"{report.vehicles_per_frame:.1f} vehicles a frame in {report.frames:,} frames",
            **counts,
            "vehicles_per_frame": round(report.vehicles_per_frame, 3),
            "frames_per_s": round(report.frames_per_s, 2),
            "preview": dg.MetadataValue.md(f"![]({picture(contact_sheet(tiles, 2, PREVIEW_BYTES))})"),
            "weights": report.weights,
            "trained_on": report.trained_on or "unknown",
            "backend": report.backend,
            "classes": ", ".join(report.class_names),
            "path": dg.MetadataValue.path(path),
        },
    )
