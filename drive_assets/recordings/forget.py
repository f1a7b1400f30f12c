"""Forgetting a recording: its partition is removed, its files move aside, its history stays."""

import time
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from drive_assets.partitions import RECORDINGS, is_recording_name
from drive_assets.recordings.ingest import lock_of
from drive_assets.recordings.sources import source_file
from drive_assets.resources.storage import Storage
from drive_assets.running.launchpad import Launchpad
from model.common.errors import DataError
from model.common.files import explained_errors, locked

REMOVED = ".removed"


def forget(instance: dg.DagsterInstance, storage: Storage, name: str, reason: str = "") -> Path | None:
    """Remove a recording from the partitions, and move its files to `recordings/.removed/<name>/<time>/`.

    What was made from it stays until it is made again: checks report that the recording is gone. Its events stay in the
    asset's list.

    Returns:
        The folder of its files now; None if it had none.

    Raises:
        DataError: it does not exist, or a run works on it.
    """
    known = name in instance.get_dynamic_partitions(str(RECORDINGS.name))
    folder = storage.recording(name) if is_recording_name(name) else None
    if not known and (folder is None or not folder.is_dir()):
        raise DataError(f"Recording {name!r} does not exist: `drive-assets status` lists the recordings.")
    aside = None
    _refuse_in_use(instance, name)
    if folder is not None:
        with locked(lock_of(storage, name), wait_s=0, in_use=f"{name} is being ingested: forget it after that"):
            aside = _move_aside(storage, folder)
    metadata: dict[str, Any] = {"forgotten": reason or "no reason given"}
    if aside is not None:
        metadata["path"] = dg.MetadataValue.path(aside)
    instance.report_runless_asset_event(dg.AssetObservation("recording", partition=name, metadata=metadata))
    if known:
        instance.delete_dynamic_partition(str(RECORDINGS.name), name)
    return aside


def _refuse_in_use(instance: dg.DagsterInstance, name: str) -> None:
    """Raises DataError if a run uses the recording: it would write beside files that have moved."""
    for asset in instance.all_asset_keys():
        attempts = (
            instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations(
                asset
            )
        )
        run = instance.get_run_by_id(attempts[name][0]) if name in attempts else None
        if run is not None and not run.is_finished:
            raise DataError(
                f"{name} is in use: run {run.run_id[:8]} makes its {asset.to_user_string()}. Forget it once that run "
                "ends, or terminate the run first."
            )


def _move_aside(storage: Storage, folder: Path) -> Path | None:
    source = source_file(storage, folder.name)
    if not folder.is_dir() and not source.is_file():
        return None
    aside = storage.recordings / REMOVED / folder.name / time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    with explained_errors(aside):
        aside.mkdir(parents=True)
        if source.is_file():
            source.rename(aside / "source.json")
        if folder.is_dir():
            folder.rename(aside / folder.name)
    return aside


class ForgetConfig(Launchpad):
    """The recordings to forget."""

    recordings: list[str] = Field([], min_length=1, description="Recordings by name")
    reason: str = Field("", description="Why; recorded in the history of the recording")


@dg.op(description="Remove recordings from the partitions, and move their files to recordings/.removed.")
def forget_recordings(context: dg.OpExecutionContext, config: ForgetConfig, storage: Storage) -> None:
    failed = []
    for name in config.recordings:
        try:
            aside = forget(context.instance, storage, name, config.reason)
            context.log.info(f"{name} is forgotten" + (f"; its files are in {aside}" if aside else ""))
        except DataError as error:
            failed.append(str(error))
    if failed:
        raise dg.Failure("\n".join(failed), allow_retries=False)


@dg.job(
    name="forget",
    description="Forget recordings, for example refused ones: their partitions are removed, their files move to "
    "recordings/.removed, their history stays. Nothing is deleted.",
    config={"ops": {"forget_recordings": {"config": {"recordings": ["YYYY-MM-DD_HH-MM-SS"], "reason": ""}}}},
)
def forget_job() -> None:
    forget_recordings()
