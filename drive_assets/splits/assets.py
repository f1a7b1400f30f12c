"""recordings -> split manifest -> train.h5, val.h5, test.h5"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from drive_assets.partitions import SPLITS, recording_keys
from drive_assets.reports.links import report_link
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_partition
from drive_assets.running.launchpad import Launchpad
from drive_assets.splits.checks import OF_THE_MANIFEST, of_the_manifest
from drive_assets.splits.manifest import read_manifest
from model.common.code import code_version
from model.common.errors import DataError
from model.common.files import write_json
from model.dataset.assignment import SplitConfig
from model.dataset.split_file import write_split
from model.dataset.splits import build_manifest
from model.dataset.windows import WindowConfig
from model.recording.schema import DEFAULT_TASKS

MOST_TOLD = 200
"""Lines on single recordings in the log of a run."""
MOST_ASSIGNED = 1000
"""Recordings whose names stand in the event of a manifest."""


class WindowLaunchpad(WindowConfig, Launchpad):
    """Which runs of frames are windows."""


class SplitLaunchpad(SplitConfig, Launchpad):
    """How recordings are shared out."""


class ManifestLaunchpad(Launchpad):
    """What the data set is made of."""

    window: WindowLaunchpad = WindowLaunchpad()
    split: SplitLaunchpad = SplitLaunchpad()


@dg.asset(
    deps=["annotations", "future_labels"],
    group_name="splits",
    code_version=code_version(
        "model.dataset.splits", "model.dataset.summaries", "model.dataset.assignment", "model.recording.schema"
    ),
    kinds={"json"},
)
def split_manifest(
    context: dg.AssetExecutionContext, config: ManifestLaunchpad, storage: Storage
) -> dg.MaterializeResult:
    """Which recording goes into which split, why, and what identifies the data set (`dataset_config.json`)."""
    storage.check_writable()
    previous = None
    try:
        if storage.manifest.is_file():
            previous = read_manifest(storage)
        known = recording_keys(context.instance, context.log.warning)
        used = previous["recordings"] if previous else {}
        names = [name for name in known if storage.recording(name).is_dir() or name in used]
        manifest = build_manifest(storage.recordings, names, config.window, config.split, previous, storage.summaries)
    except DataError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    write_json(storage.manifest, manifest)
    changes = list(_changes(manifest))
    for line in changes[:MOST_TOLD]:
        context.log.warning(line)
    if len(changes) > MOST_TOLD:
        context.log.warning(f"{len(changes) - MOST_TOLD:,} more such lines: {storage.manifest} holds all.")
    return _manifest_result(manifest, storage)


def _changes(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What somebody should know of a manifest: who is left out, used no longer, or moved."""
    for name, reason in manifest["skipped"].items():
        yield f"Skipped {name}: {reason}"
    for name, reason in manifest["accepted"].items():
        yield f"{name} is used though it is implausible, as accept_implausible names it: {reason}"
    for name, reason in manifest["no_longer_used"].items():
        yield f"{name} was in the last data set and is not in this one: {reason}"
    for name, (before, now) in manifest["moved"].items():
        yield f"{name} moved from {before} to {now}"


def _manifest_result(manifest: Mapping[str, Any], storage: Storage) -> dg.MaterializeResult:
    parts, left_out = manifest["splits"], len(manifest["skipped"])
    table = [
        dg.TableRecord(
            {
                "split": name,
                "recordings": len(part["recordings"]),
                "windows": part["windows"],
                "share of windows": round(part["share_of_windows"], 4),
                **{f"{label} rate": round(part["label_rates"][label], 4) for label in ("brake_1s", "coast_1s")},
            }
        )
        for name, part in parts.items()
    ]
    counts = [
        f"{name} {len(part['recordings'])} recordings, {part['windows']:,} windows" for name, part in parts.items()
    ]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest["fingerprint"]),
        metadata={
            "report": report_link("split_manifest", version=manifest["fingerprint"]),
            "summary": ", ".join(counts) + (f"; {left_out} skipped" if left_out else ""),
            "splits": dg.MetadataValue.table(table),
            **_numbers(manifest),
            **{key: dg.MetadataValue.json(manifest[key]) for key in ("skipped", "accepted", "moved", "no_longer_used")},
            **_assignment(manifest),
            "path": dg.MetadataValue.path(storage.manifest),
        },
    )


def _assignment(manifest: Mapping[str, Any]) -> dict[str, dg.JsonMetadataValue]:
    """Who is in which split. Of more, the event would be megabytes: the report and the manifest tell."""
    if len(manifest["recordings"]) > MOST_ASSIGNED:
        return {}
    return {
        "assignment": dg.MetadataValue.json({name: part["recordings"] for name, part in manifest["splits"].items()})
    }


def _numbers(manifest: Mapping[str, Any]) -> dict[str, float | int]:
    """What the UI plots over time."""
    found: dict[str, float | int] = {"recordings": len(manifest["recordings"]), "left_out": len(manifest["skipped"])}
    for name, part in manifest["splits"].items():
        found |= {f"{name}_windows": part["windows"], f"{name}_share": round(part["share_of_windows"], 4)}
        found |= {f"{name}_{task}_rate": round(part["label_rates"][task], 4) for task in DEFAULT_TASKS}
    return found


@dg.asset(
    deps=[
        split_manifest,
        dg.AssetDep("annotations", partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("future_labels", partition_mapping=dg.AllPartitionMapping()),
    ],
    partitions_def=SPLITS,
    check_specs=[OF_THE_MANIFEST],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="splits",
    code_version=code_version("model.dataset.windows", "model.dataset.split_file", "model.recording.schema"),
    kinds={"hdf5"},
)
def h5_split(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[Event]:
    """The frames of a split's recordings, each once, and its windows as start rows."""

    def build(name: str) -> dg.MaterializeResult:
        manifest = read_manifest(storage)
        members = [storage.recording(recording) for recording in manifest["splits"][name]["recordings"]]
        window = WindowConfig(**manifest["window"])
        report = write_split(storage.split(name), members, window, manifest["fingerprint"])
        rates = [
            dg.TableRecord({"label": label, "positives": count, "rate": round(count / max(report.windows, 1), 4)})
            for label, count in report.positives.items()
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(manifest["fingerprint"]),
            metadata={
                "report": report_link("h5_split", name, manifest["fingerprint"]),
                "recordings": report.recordings,
                "frames": report.frames,
                "windows": report.windows,
                "megabytes": round(report.bytes / 1e6, 3),
                **{f"{task}_rate": round(report.positives[task] / max(report.windows, 1), 4) for task in DEFAULT_TASKS},
                "label_rates": dg.MetadataValue.table(rates),
                "path": dg.MetadataValue.path(storage.split(name)),
            },
        )

    yield from each_partition(context, build, [of_the_manifest(storage)])
