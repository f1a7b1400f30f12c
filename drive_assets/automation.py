"""What runs by itself: what follows a new recording; by the clock, the refresh and SharePoint's full reconciliation.

Per recording, sensors and the assets' automation conditions do it. The refresh is one job that does what the command
line does, not a chain of conditions: nothing is trained because somebody made a split by hand.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from drive_assets.manifest import changed_recordings, read_manifest
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS
from drive_assets.recordings.sharepoint.sensor import open_map
from drive_assets.resources.storage import Storage
from model.common.errors import DataError

REFRESHED = "split_manifest,h5_split,checkpoint,evaluation,model_comparison"


def cron_from_environment(variable: str, default: str) -> str:
    """A cron schedule that the environment may replace.

    Raises:
        DataError: it is no cron schedule.
    """
    text = os.environ.get(variable, "").strip() or default
    try:
        dg.ScheduleDefinition(name="probe", job_name="probe", cron_schedule=text)
    except dg.DagsterInvalidDefinitionError as error:
        raise DataError(f"{variable} must be a cron schedule such as {default!r}, not {text!r}.") from error
    return text


class RefreshConfig(dg.Config):
    """What a refresh makes."""

    architectures: list[str] = Field(
        default=[],
        description="Architectures to train; empty: those that have a checkpoint, or all twelve if none has.",
    )
    assets: dict[str, Any] = Field(default={}, description="Config by asset name, as in the launchpad of each.")


@dg.op(description="Make splits, checkpoints, evaluations and the comparison anew, each in a run of its own.")
def refresh_dataset_and_models(context: dg.OpExecutionContext, config: RefreshConfig, storage: Storage) -> None:
    from drive_assets.definitions import defs
    from drive_assets.materialize import materialize

    trained = [
        name
        for name in ARCHITECTURE_PARTITIONS.get_partition_keys()
        if (storage.checkpoint(name) / "best_model.pt").is_file()
    ]
    try:
        succeeded = materialize(
            defs,
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
    known = list(context.instance.get_dynamic_partitions(str(RECORDINGS.name)))
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
        from drive_assets.cli import read_config

        config = {"assets": read_config(Path(path))}
    return dg.RunRequest(
        run_config={"ops": {refresh_dataset_and_models.name: {"config": config}}},
        tags={"drive_assets/changed": changed[:500]},
    )


@dg.op(description="Have the SharePoint sensor list the whole library anew and compare it by id.")
def ask_for_a_full_round(context: dg.OpExecutionContext, storage: Storage) -> None:
    with open_map(storage) as known:
        known.want_full_round()
    context.log.info("The next ticks of sharepoint_sensor list the whole library, and say what they find.")


@dg.job(description="List the whole SharePoint library anew: finds what the list of changes lost. Deletes nothing.")
def sharepoint_reconciliation() -> None:
    ask_for_a_full_round()


AUTOMATION = dg.AutomationConditionSensorDefinition(
    "automation_sensor",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Annotates and labels each recording that arrives, and evaluates each checkpoint.",
)

JOBS = [refresh, sharepoint_reconciliation]
SCHEDULES = [
    refresh_schedule,
    dg.ScheduleDefinition(
        name="sharepoint_reconciliation_schedule",
        job=sharepoint_reconciliation,
        cron_schedule=cron_from_environment("DRIVE_ASSETS_RECONCILIATION_CRON", "0 3 * * 0"),
        default_status=(
            dg.DefaultScheduleStatus.RUNNING
            if os.environ.get("SHAREPOINT_TENANT_ID")
            else dg.DefaultScheduleStatus.STOPPED
        ),
        description="Once a week; on where SharePoint is set up.",
    ),
]
