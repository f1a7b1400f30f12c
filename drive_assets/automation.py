"""What runs by itself: what follows a new recording, and by the clock the refresh.

Per recording, sensors and the assets' automation conditions do it. The refresh is one job that does what the command
line does, not a chain of conditions: nothing is trained because somebody made a split by hand.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from drive_assets.environment import cron_from_environment
from drive_assets.manifest import changed_recordings, read_manifest
from drive_assets.materialize import materialize
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, recording_keys
from drive_assets.resources.storage import Storage
from drive_assets.run_config import read_config
from model.common.errors import DataError

REFRESHED = "split_manifest,h5_split,checkpoint,evaluation,model_comparison"


class RefreshConfig(dg.Config):
    """What a refresh makes."""

    architectures: list[str] = Field(
        default=[],
        description="Architectures to train; empty: those that have a checkpoint, or all twelve if none has.",
    )
    assets: dict[str, Any] = Field(default={}, description="Config by asset name, as in the launchpad of each.")


@dg.op(description="Make splits, checkpoints, evaluations and the comparison anew, each in a run of its own.")
def refresh_dataset_and_models(context: dg.OpExecutionContext, config: RefreshConfig, storage: Storage) -> None:
    trained = [
        name
        for name in ARCHITECTURE_PARTITIONS.get_partition_keys()
        if (storage.checkpoint(name) / "best_model.pt").is_file()
    ]
    try:
        succeeded = materialize(
            context.repository_def,
            context.instance,
            REFRESHED,
            architectures=config.architectures or trained,
            config=config.assets,
            tell=context.log.info,
        )
    except DataError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if not succeeded:
        raise dg.Failure("Some could not be made: the log above names each, and why.", allow_retries=False)


@dg.job(description="Make the data set anew from all recordings, train on it, evaluate and compare.")
def refresh() -> None:
    refresh_dataset_and_models()


@dg.schedule(
    name="refresh_schedule",
    job=refresh,
    cron_schedule=cron_from_environment("DRIVE_ASSETS_REFRESH_CRON", "0 2 * * *"),
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Refreshes dataset and models if recordings changed since; off until it is switched on.",
)
def refresh_schedule(context: dg.ScheduleEvaluationContext, storage: Storage) -> dg.RunRequest | dg.SkipReason:
    known = recording_keys(context.instance)
    if not storage.manifest.is_file():
        ready = [n for n in known if storage.annotations(n).is_file() and storage.future_labels(n).is_file()]
        return (
            _request(f"{len(ready)} recordings")
            if ready
            else dg.SkipReason("No recording is annotated and labelled yet.")
        )
    changes = changed_recordings(storage, known, trust_times=True)
    if not changes:
        held = len(read_manifest(storage)["recordings"])
        return dg.SkipReason(f"None of the {held} recordings of the split manifest changed, and none is new.")
    return _request(", ".join(f"{name} ({what})" for name, what in list(changes.items())[:20]))


def _request(changed: str) -> dg.RunRequest:
    config: Mapping[str, Any] = {}
    path = os.environ.get("DRIVE_ASSETS_REFRESH_CONFIG")
    if path:
        config = {"assets": read_config(Path(path))}
    return dg.RunRequest(
        run_config={"ops": {refresh_dataset_and_models.name: {"config": config}}},
        tags={"drive_assets/changed": changed[:500]},
    )


AUTOMATION = dg.AutomationConditionSensorDefinition(
    "automation_sensor",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Annotates and labels each recording that arrives, and evaluates each checkpoint.",
)

defs = dg.Definitions(jobs=[refresh], schedules=[refresh_schedule], sensors=[AUTOMATION])
