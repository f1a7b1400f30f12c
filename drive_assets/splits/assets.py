"""recordings -> split manifest -> train.h5, val.h5, test.h5"""

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import dagster as dg
from pydantic import Field

from drive_assets.asset import Column, asset, bound_checks
from drive_assets.partitions import SPLITS, recording_keys
from drive_assets.reports.data_sets import manifest_page, split_page
from drive_assets.reports.links import report_link
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_partition, fail_on_data_error, warn
from drive_assets.running.launchpad import Launchpad
from drive_assets.splits.checks import of_the_manifest
from drive_assets.splits.manifest import check_unchanged, outdated_manifest, read_manifest
from model.common.code import code_version
from model.common.config import changed_options
from model.common.files import write_json
from model.dataset.assignment import SplitConfig
from model.dataset.review import Review, ReviewConfig, read_tags
from model.dataset.split_file import read_fingerprint, write_split
from model.dataset.splits import build_manifest, grouped
from model.dataset.windows import WindowConfig
from model.recording.schema import DEFAULT_TASKS

CHANGES = {
    "skipped": "left out",
    "accepted": "implausible, and used because accept_implausible names them",
    "no_longer_used": "in the previous data set and not in this one",
    "moved": "moved to another split",
}
"""What a manifest lists by recording, in words."""
MAX_LOGGED = 50
"""Recordings of each kind in the log of a run."""
MAX_LISTED = 1000
"""Recordings up to which the event of a manifest lists all: of more it would be megabytes."""
SPLIT_COLUMNS: list[Column] = [
    ("telemetry", "float (F, channels)", "raw values of the input channels"),
    ("detections", "float (F, 12, 7)", "class, confidence, x1, y1, x2, y2, area of the twelve most confident"),
    ("detection_mask", "bool (F, 12)", "which of the twelve exist"),
    ("labels", "int (F, 10)", "1 yes, 0 no, -1 unknown"),
    ("slow", "int (F, 6)", "whether the car slows now, and 1 to 5 s later: 1 yes, 0 no, -1 unknown"),
    ("window_start", "int (W,)", "first frame of each window"),
    ("recording", "int (F,)", "index of the frame's recording"),
]


class WindowLaunchpad(WindowConfig, Launchpad):
    """Which frames form windows."""

    stride: int = Field(default=1, ge=1, description="Frames from one window's start to the next")


class SplitLaunchpad(SplitConfig, Launchpad):
    """How recordings are assigned to splits."""


class ReviewLaunchpad(ReviewConfig, Launchpad):
    """What tags of the review, and frequent situations, do to train and val."""


class ManifestLaunchpad(Launchpad):
    """What the data set consists of."""

    window: WindowLaunchpad = WindowLaunchpad()
    split: SplitLaunchpad = SplitLaunchpad()
    review: ReviewLaunchpad = ReviewLaunchpad()


@asset(
    group_name="5_splits",
    deps=["annotations", "future_labels"],
    output=attrgetter("manifest"),
    page=manifest_page,
    outdated=outdated_manifest,
    code_version=code_version(
        "model.dataset.splits", "model.dataset.summaries", "model.dataset.assignment", "model.recording.schema"
    ),
    kinds={"json"},
)
def split_manifest(
    context: dg.AssetExecutionContext, config: ManifestLaunchpad, storage: Storage
) -> dg.MaterializeResult:
    """Which recording is in which split, and why. **In:** all annotated and labelled recordings. **Out:** the splits'
    sizes, what each recording contributes, which are left out and why, and the data version. No recording is in two
    splits; each keeps its split when the manifest is rebuilt."""
    storage.check_writable()
    previous = None
    with fail_on_data_error(context):
        if storage.manifest.is_file():
            previous = read_manifest(storage)
        known = recording_keys(context.instance)
        used = previous["recordings"] if previous else {}
        names = [name for name in known if storage.recording(name).is_dir() or name in used]
        manifest = build_manifest(
            storage.recordings,
            names,
            config.window,
            config.split,
            previous,
            storage.summaries,
            ReviewConfig(**config.review.model_dump()),
            read_tags(storage.tags),
        )
    for part in ("window", "split"):
        if changes := changed_options((previous or {}).get(part, {}), manifest[part]):
            warn(context, f"Replaces the data set, with other options of {part}: {changes}")
    write_json(storage.manifest, manifest)
    for key, words in CHANGES.items():
        names = manifest[key]
        lines = [f"  {line}" for line in grouped(dict(list(names.items())[:MAX_LOGGED]))]
        if len(names) > MAX_LOGGED:
            lines.append(f"  and {len(names) - MAX_LOGGED:,} more: see {storage.manifest}")
        if names:
            context.log.warning("\n".join([f"{len(names):,} recordings {words}:", *lines]))
    if unmatched := manifest.get("review", {}).get("without_window"):
        moments = ", ".join(f"{recording} {time}" for recording, time, _ in unmatched[:MAX_LOGGED])
        context.log.warning(f"{len(unmatched):,} tags of {storage.tags} have no window now, and are kept: {moments}")
    return _manifest_result(manifest, storage)


def _manifest_result(manifest: Mapping[str, Any], storage: Storage) -> dg.MaterializeResult:
    parts = manifest["splits"]
    numbers: dict[str, float | int] = {"recordings": len(manifest["recordings"]), "left_out": len(manifest["skipped"])}
    table, counts = list[dg.TableRecord](), list[str]()
    for name, part in parts.items():
        recordings, windows, share = len(part["recordings"]), part["windows"], round(part["share_of_windows"], 4)
        rates = {task: round(part["label_rates"][task], 4) for task in DEFAULT_TASKS}
        numbers |= {f"{name}_windows": windows, f"{name}_share": share}
        numbers |= {f"{name}_{task}_rate": rate for task, rate in rates.items()}
        shown = {f"{task} rate": rates[task] for task in ("brake_1s", "coast_1s")}
        table.append(
            dg.TableRecord(
                {"split": name, "recordings": recordings, "windows": windows, "share of windows": share, **shown}
            )
        )
        counts.append(f"{name} {recordings} recordings, {windows:,} windows")
    lists: dict[str, Any] = {key: manifest[key] for key in ("skipped", "accepted", "moved", "no_longer_used")}
    if len(manifest["recordings"]) <= MAX_LISTED:
        lists["assignment"] = {name: part["recordings"] for name, part in parts.items()}
    left_out = f"; {len(manifest['skipped'])} skipped" if manifest["skipped"] else ""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest["fingerprint"]),
        metadata={
            "report": report_link("split_manifest", version=manifest["fingerprint"]),
            "summary": ", ".join(counts) + left_out,
            "splits": dg.MetadataValue.table(table),
            **numbers,
            **{key: dg.MetadataValue.json(manifest[key]) for key in ("review", "similar") if key in manifest},
            **{key: dg.MetadataValue.json(value) for key, value in lists.items()},
            "path": dg.MetadataValue.path(storage.manifest),
        },
    )


@asset(
    group_name="5_splits",
    deps=[
        split_manifest,
        dg.AssetDep("annotations", partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("future_labels", partition_mapping=dg.AllPartitionMapping()),
    ],
    partitions_def=SPLITS,
    output=Storage.split,
    page=split_page,
    checks=[of_the_manifest],
    columns=SPLIT_COLUMNS,
    data_version=read_fingerprint,
    backfill_policy=dg.BackfillPolicy.single_run(),
    code_version=code_version("model.dataset.windows", "model.dataset.split_file", "model.recording.schema"),
    kinds={"hdf5"},
)
def h5_split(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[Event]:
    """The frames of a split's recordings, each stored once (F), and its windows as start rows (W). **In:**
    `split_manifest`, annotations and labels. **Out:** one HDF5 file per split."""

    def build(name: str) -> dg.MaterializeResult:
        manifest = read_manifest(storage)
        check_unchanged(storage, manifest, name)
        members = [storage.recording(recording) for recording in manifest["splits"][name]["recordings"]]
        window = WindowConfig(**manifest["window"])
        write_split(storage.split(name), members, window, manifest["fingerprint"], Review.of(manifest))
        part = manifest["splits"][name]
        rates = [
            dg.TableRecord({"label": label, "positives": count, "rate": round(part["label_rates"][label], 4)})
            for label, count in part["positives"].items()
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(manifest["fingerprint"]),
            metadata={
                "report": report_link("h5_split", name, manifest["fingerprint"]),
                "recordings": len(members),
                "frames": part["frames"],
                "windows": part["windows"],
                "megabytes": round(storage.split(name).stat().st_size / 1e6, 3),
                **{f"{task}_rate": round(part["label_rates"][task], 4) for task in DEFAULT_TASKS},
                "label_rates": dg.MetadataValue.table(rates),
                "path": dg.MetadataValue.path(storage.split(name)),
            },
        )

    yield from each_partition(context, build, bound_checks(context, storage))
