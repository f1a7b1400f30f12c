"""Forgetting a recording: its partition goes, its files move aside, its history stays."""

import time
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from drive_assets.partitions import RECORDINGS, is_recording_name
from drive_assets.recordings.ingest import lock_of
from drive_assets.recordings.sources import memory_of
from drive_assets.resources.storage import Storage
from drive_assets.running.launchpad import Launchpad
from model.common.errors import DataError
from model.common.files import locked

REMOVED = ".removed"


def forget(instance: dg.DagsterInstance, storage: Storage, name: str, reason: str = "") -> Path | None:
    """Take a recording out of the partitions, and move its files to `recordings/.removed/<name>/<time>/`.

    What was made from it stays until it is made anew: checks say that it is gone. Its events stay in the asset's list.

    Returns:
        Where its files lie now; None if it had none.

    Raises:
        DataError: nothing is known of it, or a run works on it now.
    """
    known = name in instance.get_dynamic_partitions(str(RECORDINGS.name))
    folder = storage.recording(name) if is_recording_name(name) else None
    if not known and (folder is None or not folder.is_dir()):
        raise DataError(
            f"Nothing is known of a recording {name!r}: `drive-assets status` lists those that are not made."
        )
    aside = None
    _refuse_in_use(instance, name)
    if folder is not None:
        with locked(lock_of(storage, name), wait_s=0, in_use=f"{name} is being taken now: forget it after that"):
            aside = _move_aside(storage, folder)
    told: dict[str, Any] = {"forgotten": reason or "no reason given"}
    if aside is not None:
        told["path"] = dg.MetadataValue.path(aside)
    instance.report_runless_asset_event(dg.AssetObservation("recording", partition=name, metadata=told))
    if known:
        instance.delete_dynamic_partition(str(RECORDINGS.name), name)
    return aside


def _refuse_in_use(instance: dg.DagsterInstance, name: str) -> None:
    """Raises DataError if a run makes something of the recording: it would write beside files that have moved."""
    for asset in instance.all_asset_keys():
        attempts = (
            instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations(
                asset
            )
        )
        run = instance.get_run_by_id(attempts[name][0]) if name in attempts else None
        if run is not None and not run.is_finished:
            raise DataError(
                f"{name} is in use: run {run.run_id[:8]} makes its {asset.to_user_string()}. Forget it once that has "
                "ended, or end that run first."
            )


def _move_aside(storage: Storage, folder: Path) -> Path | None:
    memory = memory_of(storage, folder.name)
    if not folder.is_dir() and not memory.is_file():
        return None
    aside = storage.recordings / REMOVED / folder.name / time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    aside.mkdir(parents=True)
    if memory.is_file():
        memory.rename(aside / "source.json")
    if folder.is_dir():
        folder.rename(aside / folder.name)
    return aside


class ForgetConfig(Launchpad):
    """Which recordings are forgotten."""

    recordings: list[str] = Field([], min_length=1, description="Recordings by name")
    reason: str = Field("", description="Why; stands in the history of the recording")


@dg.op(description="Take recordings out of the partitions, and move their files to recordings/.removed.")
def forget_recordings(context: dg.OpExecutionContext, config: ForgetConfig, storage: Storage) -> None:
    failed = []
    for name in config.recordings:
        try:
            aside = forget(context.instance, storage, name, config.reason)
            context.log.info(f"{name} is forgotten" + (f"; its files lie in {aside}" if aside else ""))
        except DataError as error:
            failed.append(str(error))
    if failed:
        raise dg.Failure("\n".join(failed), allow_retries=False)


@dg.job(
    name="forget",
    description="Forget recordings, say those that were refused: their partitions go, their files move to "
    "recordings/.removed, their history stays. Nothing is deleted.",
    config={"ops": {"forget_recordings": {"config": {"recordings": ["YYYY-MM-DD_HH-MM-SS"], "reason": ""}}}},
)
def forget_job() -> None:
    forget_recordings()
