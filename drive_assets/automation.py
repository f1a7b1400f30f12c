"""What runs by itself: what follows a new recording, and by the clock the refresh.

Per recording, sensors and the assets' automation conditions do it. The refresh is one job that does what the command
line does, not a chain of conditions: nothing is trained because somebody made a split by hand.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.operations import REFRESH, op_name
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, check_known, recording_keys
from drive_assets.presets import FULL
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import Count, Cron, setting
from drive_assets.running.run_config import read_config
from drive_assets.splits.manifest import changed_recordings, read_manifest
from model.training.published import BEST

ENOUGH, CHOSEN = "DRIVE_ASSETS_REFRESH_AFTER", "DRIVE_ASSETS_REFRESH_ARCHITECTURES"
REFRESHED = ("split_manifest", "checkpoint", "evaluation")
"""Assets with options that the refresh makes."""


@dg.schedule(
    name="refresh_schedule",
    job_name=REFRESH,
    cron_schedule=setting("DRIVE_ASSETS_REFRESH_CRON", Cron, "0 2 * * *"),
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Trains. Off until you switch it on here. At its time (DRIVE_ASSETS_REFRESH_CRON, by default 2 at "
    f"night) it looks whether enough recordings are new, changed or gone ({ENOUGH}, by default 1). If so, the data set "
    f"is built anew, and the architectures that {CHOSEN} names (by default those that have a checkpoint, or all) "
    "are trained, evaluated and compared. Options: those that the jobs fill in; the YAML file that "
    "DRIVE_ASSETS_REFRESH_CONFIG names gives others by asset.",
)
def refresh_schedule(context: dg.ScheduleEvaluationContext, storage: Storage) -> dg.RunRequest | dg.SkipReason:
    known, enough = recording_keys(context.instance), setting(ENOUGH, Count, 1)
    if not storage.manifest.is_file():
        ready = [n for n in known if storage.annotations(n).is_file() and storage.future_labels(n).is_file()]
        if len(ready) >= enough:
            return _request(storage, f"{len(ready)} recordings")
        return dg.SkipReason(f"{len(ready) or 'No'} recording is annotated and labelled yet; waits for {enough}.")
    changes = changed_recordings(storage, known, trust_times=True)
    if len(changes) < enough:
        held = len(read_manifest(storage)["recordings"])
        return dg.SkipReason(
            f"{len(changes) or 'None'} of the {held} recordings of the split manifest changed, or is new; waits for "
            f"{enough}."
        )
    return _request(storage, ", ".join(f"{name} ({what})" for name, what in list(changes.items())[:20]))


def _request(storage: Storage, changed: str) -> dg.RunRequest:
    path = os.environ.get("DRIVE_ASSETS_REFRESH_CONFIG")
    options: Mapping[str, Any] = read_config(Path(path)) if path else {}
    config = {"architectures": _chosen(storage), **{asset: FULL[asset] for asset in REFRESHED}, **options}
    return dg.RunRequest(
        run_config={"ops": {op_name(REFRESH): {"config": config}}}, tags={"drive_assets/changed": changed[:500]}
    )


def _chosen(storage: Storage) -> list[str]:
    """The architectures to train; none for all."""
    every = ARCHITECTURE_PARTITIONS.get_partition_keys()
    named = [name.strip() for name in os.environ.get(CHOSEN, "").split(",") if name.strip()]
    check_known(named, list(every), f"architecture in {CHOSEN}")
    return named or [name for name in every if (storage.checkpoint(name) / BEST).is_file()]


AUTOMATION = dg.AutomationConditionSensorDefinition(
    "automation_sensor",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Annotates and labels each recording that arrives, and evaluates each checkpoint.",
)

defs = dg.Definitions(schedules=[refresh_schedule], sensors=[AUTOMATION])
