"""What runs automatically: what follows a new recording, and the scheduled refresh.

Sensors and the assets' automation conditions handle recordings, evaluations and the comparison. Training is never
triggered by new splits alone: only the refresh trains, which is off by default.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.jobs import REBUILD, TRAIN
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, SPLITS, check_known, recording_keys
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import Count, Cron, setting
from drive_assets.running.run_config import check_config, read_config
from drive_assets.splits.manifest import changed_recordings, read_manifest
from model.training.published import BEST

MIN_CHANGED, CHOSEN = "DRIVE_ASSETS_REFRESH_AFTER", "DRIVE_ASSETS_REFRESH_ARCHITECTURES"
OPTIONS = "DRIVE_ASSETS_REFRESH_CONFIG"
REFRESH_TAG = "drive_assets/refresh"
"""Tag of the refresh's runs; its value names the recordings that changed."""
REBUILT, TRAINED = ("split_manifest",), ("checkpoint", "evaluation")
"""Assets with options that each step of the refresh materialises."""


@dg.schedule(
    name="refresh_schedule",
    job=REBUILD,
    cron_schedule=setting("DRIVE_ASSETS_REFRESH_CRON", Cron, "0 2 * * *"),
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Trains models. Off until you switch it on here. At the given time (DRIVE_ASSETS_REFRESH_CRON, by "
    f"default 2 at night) it counts recordings that are new, changed or gone. If there are enough ({MIN_CHANGED}, by "
    f"default 1), it rebuilds the data set; then refresh_training trains and evaluates the architectures that {CHOSEN} "
    f"names (by default those that have a checkpoint, or all). The YAML file named by {OPTIONS} sets options.",
)
def refresh_schedule(context: dg.ScheduleEvaluationContext, storage: Storage) -> dg.RunRequest | dg.SkipReason:
    known, needed = recording_keys(context.instance), setting(MIN_CHANGED, Count, 1)
    if storage.manifest.is_file():
        changes = changed_recordings(storage, known)
        names = [f"{name} ({change})" for name, change in changes.items()]
        total = f"of {len(read_manifest(storage)['recordings'])} recordings are new, changed or gone"
    else:
        names = [
            name for name in known if storage.annotations(name).is_file() and storage.future_labels(name).is_file()
        ]
        total = "recordings are annotated and labelled"
    if len(names) < needed:
        return dg.SkipReason(f"{len(names)} {total}; {needed} are needed.")
    assert context.repository_def is not None
    _chosen(storage)
    first, *_, last = SPLITS.get_partition_keys()
    return dg.RunRequest(
        run_config=_run_config(context.repository_def, REBUILT, context.log.warning),
        tags={
            REFRESH_TAG: ", ".join(names[:20])[:500],
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        },
    )


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[REBUILD],
    request_job=TRAIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Trains and evaluates the chosen architectures after refresh_schedule has rebuilt the data set.",
)
def refresh_training(context: dg.RunStatusSensorContext, storage: Storage) -> Iterator[dg.RunRequest | dg.SkipReason]:
    run = context.dagster_run
    if REFRESH_TAG not in run.tags:
        yield dg.SkipReason(f"Run {run.run_id[:8]} is not from refresh_schedule.")
        return
    assert context.repository_def is not None
    config = _run_config(context.repository_def, TRAINED, context.log.warning)
    for name in _chosen(storage):
        yield dg.RunRequest(
            run_key=f"{run.run_id}/{name}",
            partition_key=name,
            run_config=config,
            tags={REFRESH_TAG: run.tags[REFRESH_TAG]},
        )


def _run_config(repository: dg.RepositoryDefinition, assets: tuple[str, ...], tell: Any) -> dict[str, Any]:
    """The options in the file that the environment names, checked, for these assets."""
    path = os.environ.get(OPTIONS)
    options = read_config(Path(path)) if path else {}
    check_config(repository, options, [dg.AssetKey(name) for name in (*REBUILT, *TRAINED)], tell)
    return {"ops": {name: {"config": options[name]} for name in assets if name in options}}


def _chosen(storage: Storage) -> list[str]:
    """The architectures that the refresh trains."""
    every = list(ARCHITECTURE_PARTITIONS.get_partition_keys())
    named = [name.strip() for name in os.environ.get(CHOSEN, "").split(",") if name.strip()]
    check_known(named, every, f"architecture in {CHOSEN}")
    return named or [name for name in every if (storage.checkpoint(name) / BEST).is_file()] or every


AUTOMATION = dg.AutomationConditionSensorDefinition(
    "automation_sensor",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Annotates and labels new recordings, evaluates new checkpoints, and compares new evaluations.",
)

defs = dg.Definitions(schedules=[refresh_schedule], sensors=[AUTOMATION, refresh_training])
