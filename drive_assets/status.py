"""What is there, missing, out of date, running and refused: of each asset, by Dagster's records and the files on disk.

Dagster itself does not notice that a file is gone, that one of more than a hundred inputs changed, or that a checkpoint
is of older splits.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.partitions import (
    ARCHITECTURE_PARTITIONS,
    NO_NAME,
    RECORDINGS,
    SPLITS,
    is_recording_name,
    recording_keys,
)
from drive_assets.recordings.sources import lookup
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import UNFINISHED
from drive_assets.running.versions import latest, outdated
from drive_assets.splits.manifest import changed_recordings, read_manifest
from model.common.errors import DataError
from model.dataset.split_file import read_fingerprint
from model.evaluation.results import EVALUATION
from model.training.published import BEST, HISTORY

SHOWN = 6
"""Names of each kind that a line lists."""
MOST_LOOKED_UP = 20
"""Recordings that are not taken of which the source is looked for: it may be in a zip."""
OLDER = "of older splits"


@dataclass(frozen=True)
class AssetStatus:
    """Partitions of an asset; "" for the one of an asset without partitions."""

    asset: str
    made: Sequence[str]
    missing: Sequence[str] = ()
    stale: Mapping[str, str] = field(default_factory=dict)
    """Made, but of other inputs or code than there are now, or gone from the disk; and why."""
    running: Sequence[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    """Of those that are missing, or were to be made anew: why the last run failed."""

    @property
    def is_current(self) -> bool:
        return not self.stale


def read_status(instance: dg.DagsterInstance, graph: Any, storage: Storage) -> list[AssetStatus]:
    """The status of all assets, in the order of the graph."""
    return [
        asset_status(instance, graph, storage, key)
        for level in graph.toposorted_asset_keys_by_level
        for key in sorted(level)
    ]


def lines(statuses: Sequence[AssetStatus]) -> list[str]:
    """The status as text: a line an asset, then what needs somebody, by name."""
    width = max(len(status.asset) for status in statuses)
    shown = [f"{status.asset:{width}}  {_counts(status)}" for status in statuses]
    for status in statuses:
        for kind, found in (("refused", status.refused), ("out of date", status.stale)):
            names = [f"{key}: {reason}" if key else reason for key, reason in list(found.items())[:SHOWN]]
            more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
            shown += [f"\n{status.asset}, {kind}:", *(f"  {text}" for text in names + more)] if names else []
    if any(status.refused for status in statuses if status.asset == "recording"):
        shown.append("\nPut it right and take it again, or `drive-assets forget NAME`.")
    return shown


def _counts(status: AssetStatus) -> str:
    wanted = len(status.made) + len(status.missing)
    refused = status.refused.keys() & set(status.missing)
    parts = [
        f"{len(status.made):,} of {wanted:,} made",
        *([f"{len(status.stale):,} out of date"] if status.stale else []),
        *([f"{len(status.running):,} running"] if status.running else []),
        *([f"{len(refused):,} refused"] if refused else []),
    ]
    running = set(status.running)
    missing = [key for key in status.missing if key and key not in refused and key not in running]
    names = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else "")
    return ", ".join(parts) + (f"; missing: {names}" if missing else "")


def asset_status(instance: dg.DagsterInstance, graph: Any, storage: Storage, key: dg.AssetKey) -> AssetStatus:
    """The status of one asset."""
    name, definition = key.to_user_string(), graph.get(key).partitions_def
    running, failed = _attempts(instance, key)
    if definition is None:
        event = instance.get_latest_materialization_event(key)
        made = [""] if event else []
        stale = {"": reason} if event and (reason := _single(storage, instance, name)) else {}
    else:
        wanted = list(definition.get_partition_keys(dynamic_partitions_store=instance))
        events = latest(instance, key, wanted)
        made = sorted(events)
        stale = outdated(instance, graph, key, made, events) | _files(storage, name, made)
    keys, done = [""] if definition is None else wanted, set(made)
    missing = [each for each in keys if each not in done]
    if definition == RECORDINGS and name == "recording":
        failed |= _without_source(storage, [each for each in missing if each not in failed])
    known = set(keys)
    return AssetStatus(
        name,
        made,
        missing,
        dict(sorted(stale.items())),
        sorted(known.intersection(running)),
        {each: reason for each, reason in sorted(failed.items()) if each in known and each not in running},
    )


def _attempts(instance: dg.DagsterInstance, key: dg.AssetKey) -> tuple[list[str], dict[str, str]]:
    """Partitions whose last attempt is running, and those whose last attempt failed, with the reason."""
    storage = instance.event_log_storage
    found = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
    running, failed, reasons = [], dict[str, str](), dict[str, str]()
    for partition, (run_id, _) in found.items():
        run = instance.get_run_by_id(run_id)
        if run is None:
            continue
        if run.status in UNFINISHED or run.status == dg.DagsterRunStatus.QUEUED:
            running.append(partition)
        elif run.status == dg.DagsterRunStatus.FAILURE:
            if run_id not in reasons:
                reasons[run_id] = failure_reason(instance, run_id)
            failed[partition] = _own(reasons[run_id], partition)
    return running, failed


def failure_reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """What the step of a run that failed said, for people; of one that was ended from outside, why."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        data = entry.get_dagster_event().step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return str(data.user_failure_data.description)
        if data.error is not None:
            return str(data.error.message).strip()
    ended = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    return ended[-1].message if ended else "its run failed before it began"


def _own(reason: str, partition: str) -> str:
    """Of the reasons of a batch, each in a line that begins with its partition, that of one."""
    lines = [line for line in reason.splitlines() if line.startswith(f"{partition}: ")]
    return lines[0].removeprefix(f"{partition}: ") if lines else reason.splitlines()[0]


def _without_source(storage: Storage, names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        if not is_recording_name(name):
            found[name] = NO_NAME
    for name in [name for name in names if name not in found][:MOST_LOOKED_UP]:
        try:
            lookup(storage, name)
        except DataError as error:
            found[name] = str(error)
    return found


def _single(storage: Storage, instance: dg.DagsterInstance, name: str) -> str:
    """Why an asset without partitions is not current; empty if it is."""
    paths = {
        "boxy_dataset": storage.boxy_dataset,
        "nuimages_dataset": storage.nuimages_dataset,
        "boxy_detector": storage.boxy_detector,
        "nuimages_detector": storage.nuimages_detector,
        "split_manifest": storage.manifest,
        "model_comparison": storage.evaluations / "comparison.json",
    }
    path = paths[name]
    if not path.exists():
        return f"{path} is gone"
    if name == "split_manifest":
        changes = changed_recordings(storage, recording_keys(instance), trust_times=True)
        return f"{len(changes)} recordings are new, changed or gone" if changes else ""
    return OLDER if name == "model_comparison" and _version(path) != _current(storage) else ""


def _files(storage: Storage, name: str, made: Sequence[str]) -> dict[str, str]:
    """Partitions whose file is gone, or is of older splits."""
    paths: dict[str, Callable[[str], Path]] = {
        "recording": storage.recording,
        "annotations": storage.annotations,
        "future_labels": storage.future_labels,
        "h5_split": storage.split,
        "checkpoint": lambda key: storage.checkpoint(key) / BEST,
        "evaluation": lambda key: storage.evaluation(key) / EVALUATION,
    }
    versions: dict[str, Callable[[str], str]] = {
        "h5_split": lambda key: read_fingerprint(storage.split(key)),
        "checkpoint": lambda key: _version(storage.checkpoint(key) / HISTORY),
        "evaluation": lambda key: _version(storage.evaluation(key) / EVALUATION),
    }
    gone = {key: "its file is gone" for key in made if is_made_name(name, key) and not paths[name](key).exists()}
    if name not in versions:
        return gone
    return {key: OLDER for key in made if key not in gone and versions[name](key) != _current(storage)} | gone


def is_made_name(asset: str, key: str) -> bool:
    """Whether paths can be made of a partition's key: anybody may add one."""
    known = {"h5_split": SPLITS, "checkpoint": ARCHITECTURE_PARTITIONS, "evaluation": ARCHITECTURE_PARTITIONS}
    return key in known[asset].get_partition_keys() if asset in known else is_recording_name(key)


def _version(path: Path) -> str:
    """The data version that a JSON file of results tells."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("data_version", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _current(storage: Storage) -> str:
    return str(read_manifest(storage)["fingerprint"]) if storage.manifest.is_file() else ""
