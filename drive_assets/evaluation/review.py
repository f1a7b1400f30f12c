"""train, val -> the moments that people should look at, and tag -> whether the tags help"""

import csv
from collections import Counter
from pathlib import Path

import dagster as dg

from drive_assets.asset import Column, asset
from drive_assets.reports.links import report_link
from drive_assets.reports.review import gain_page, review_page
from drive_assets.resources.compute import Compute
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import fail_on_data_error
from drive_assets.running.launchpad import Launchpad
from drive_assets.splits.manifest import read_current_manifest, recorded_version
from drive_assets.tasks import GAIN, REVIEW, GainJob, ReviewJob
from model.common.code import code_version
from model.common.errors import DataError
from model.common.files import sha256
from model.dataset.review import CLIPS, QUEUE, Review
from model.evaluation.config import BOOSTING, ReviewGainConfig, ReviewQueueConfig
from model.evaluation.results import REVIEW_GAIN, ReviewGain
from model.network.architectures import ARCHITECTURES
from model.training.published import BEST


class ReviewQueueLaunchpad(ReviewQueueConfig, Launchpad):
    """Which moments people look at."""


class ReviewGainLaunchpad(ReviewGainConfig, Launchpad):
    """How the gain of a review is proven."""


QUEUE_COLUMNS: list[Column] = [
    ("recording, time", "text", "the moment, by the recorder's clock"),
    ("split", "text", "train or val"),
    ("task", "text", "label that was predicted"),
    ("kind", "text", "missed, false alarm or doubtful label"),
    ("reason", "text", "a hint: what around the moment may explain it"),
    ("probability, threshold", "float", "predicted out of sample, and where an alarm starts"),
    ("score", "float", "how far off the prediction is; the queue is sorted by it"),
]


@asset(
    group_name="7_evaluation",
    deps=[dg.AssetDep("h5_split", partition_mapping=dg.SpecificPartitionsPartitionMapping(["train", "val"]))],
    output=lambda storage: storage.review / QUEUE,
    page=review_page,
    columns=QUEUE_COLUMNS,
    data_version=lambda path: recorded_version(path.with_name(CLIPS)),
    pool="gpu",
    code_version=code_version("model.evaluation.review_queue", "model.evaluation.events"),
    kinds={"csv"},
)
def review_queue(
    context: dg.AssetExecutionContext, config: ReviewQueueLaunchpad, storage: Storage, compute: Compute
) -> dg.MaterializeResult:
    """Where models fail, for people to tag. **In:** train and val, never test. **Out:** the worst misses, false alarms
    and doubtful labels, predicted by models that were not trained on the drive; its page shows them as clips, where
    tags are set by keyboard. What tags do to the data set: options of `split_manifest`."""
    with fail_on_data_error(context):
        version = read_current_manifest(storage)["fingerprint"]
        job = ReviewJob(
            storage.splits,
            storage.review,
            storage.cache / "review",
            options := ReviewQueueConfig(**config.model_dump()),
            version,
            _checkpoint(storage, options.predictor),
            storage.recordings,
        )
        (path,) = compute.run(context, REVIEW, [job])
        if isinstance(path, DataError):
            raise path
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    kinds, reasons = (Counter(row[name] for row in rows) for name in ("kind", "reason"))
    return dg.MaterializeResult(
        metadata={
            "report": report_link("review_queue"),
            "summary": f"{len(rows)} moments by {options.predictor}: "
            + ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
            **{f"{kind.replace(' ', '_')}s": count for kind, count in kinds.items()},
            "reasons": dg.MetadataValue.table(
                [dg.TableRecord({"reason": r, "moments": n}) for r, n in reasons.items()]
            ),
            "queue": sha256(path)[:12],
            "path": dg.MetadataValue.path(path),
        },
    )


@asset(
    group_name="7_evaluation",
    deps=[dg.AssetDep("h5_split", partition_mapping=dg.AllPartitionMapping())],
    output=lambda storage: storage.evaluations / REVIEW_GAIN,
    page=gain_page,
    data_version=recorded_version,
    pool="gpu",
    code_version=code_version("model.evaluation.review_gain", "model.evaluation.events"),
    kinds={"json"},
)
def review_gain(
    context: dg.AssetExecutionContext, config: ReviewGainLaunchpad, storage: Storage, compute: Compute
) -> dg.MaterializeResult:
    """Whether tags help. **In:** the splits, and what the manifest records of the review. **Out:** three trainings for
    each seed, on train untouched, reviewed, and changed as much at random; and paired intervals of both differences on
    test, at equal false alarms an hour. Without tags nothing is trained."""
    with fail_on_data_error(context):
        manifest = read_current_manifest(storage)
        job = GainJob(
            storage.splits,
            storage.evaluations,
            storage.cache / "review_gain",
            options := ReviewGainConfig(**config.model_dump()),
            manifest["fingerprint"],
            _checkpoint(storage, options.predictor),
            storage.recordings,
            manifest["splits"]["train"]["recordings"],
            Review.of(manifest),
        )
        (path,) = compute.run(context, GAIN, [job])
        if isinstance(path, DataError):
            raise path
        found = ReviewGain.read(path)
    return dg.MaterializeResult(
        metadata={
            "report": report_link("review_gain"),
            "summary": found.verdict,
            "windows_changed": found.changed,
            "path": dg.MetadataValue.path(path),
        }
    )


def _checkpoint(storage: Storage, predictor: str) -> Path:
    """Of a predictor that is an architecture; another one's path, which is not read, for boosting."""
    if predictor not in (BOOSTING, *ARCHITECTURES):
        raise DataError(f"predictor {predictor!r}: expected {BOOSTING} or one of {', '.join(ARCHITECTURES)}.")
    return storage.checkpoint(ARCHITECTURES[0] if predictor == BOOSTING else predictor) / BEST
