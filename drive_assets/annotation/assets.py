"""recording + detector -> annotations.csv"""

from collections.abc import Iterator
from functools import partial

import dagster as dg

from drive_assets.annotation.checks import (
    PLAUSIBLE_DETECTIONS,
    STEADY_DETECTIONS,
    plausible_detections,
    steady_detections,
)
from drive_assets.conditions import when_inputs_are_there
from drive_assets.partitions import RECORDINGS
from drive_assets.reports.links import report_link
from drive_assets.resources.compute import Compute
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_result, partition_keys
from drive_assets.running.launchpad import Launchpad
from drive_assets.tasks import ANNOTATE, AnnotateJob
from model.annotation.config import AnnotationConfig
from model.annotation.report import AnnotationReport
from model.common.files import sha256
from model.recording.folder import Recording

DETECTOR = dg.AssetSelection.assets("boxy_detector")
ONCE_A_RECORDING = when_inputs_are_there(later=DETECTOR)
"""By itself when a recording is new or changed and there is a detector. A new detector does not set off the annotation
of everything anew: that is a backfill, and a person's decision."""


class AnnotationLaunchpad(AnnotationConfig, Launchpad):
    """How frames are annotated."""

    weights: str = ""
    """Weights file of the detector; empty: the one that boxy_detector trained."""


@dg.asset(
    deps=["recording", "boxy_detector"],
    partitions_def=RECORDINGS,
    backfill_policy=dg.BackfillPolicy.multi_run(20),
    automation_condition=ONCE_A_RECORDING,
    check_specs=[PLAUSIBLE_DETECTIONS, STEADY_DETECTIONS],
    pool="gpu",
    retry_policy=dg.RetryPolicy(max_retries=1),
    group_name="annotation",
    code_version="1",
    kinds={"yolo", "csv"},
)
def annotations(
    context: dg.AssetExecutionContext, config: AnnotationLaunchpad, storage: Storage, compute: Compute
) -> Iterator[Event]:
    """The vehicles in each frame of a recording."""
    weights = storage.root / config.weights if config.weights else storage.boxy_detector
    chosen = AnnotationConfig(**config.model_dump(exclude={"weights"}))
    jobs = [AnnotateJob(storage.recording(name), weights, storage.cache, chosen) for name in partition_keys(context)]
    results = compute.run_each(context, ANNOTATE, jobs)
    yield from each_result(
        context, results, partial(_result, storage), [plausible_detections(storage), steady_detections(storage)]
    )


def _result(storage: Storage, name: str, report: AnnotationReport) -> dg.MaterializeResult:
    path = Recording(storage.recording(name)).annotations_path
    version = sha256(path)[:12]
    shown = (
        "frames",
        "resumed",
        "without_row",
        "missing",
        "unreadable",
        "other_size",
        "detections",
        "frames_without_vehicle",
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata={
            "report": report_link("annotations", name, version),
            "summary": f"{report.vehicles_per_frame:.1f} vehicles a frame in {report.frames:,} frames",
            **{key: getattr(report, key) for key in shown},
            "vehicles_per_frame": round(report.vehicles_per_frame, 3),
            "frames_per_s": round(report.frames_per_s, 2),
            "weights": report.weights,
            "backend": report.backend,
            "classes": ", ".join(report.class_names),
            "path": dg.MetadataValue.path(path),
        },
    )
