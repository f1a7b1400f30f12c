"""The job that has the sensor list the whole library anew, by the clock."""

import os

import dagster as dg

from drive_assets.recordings.sharepoint.drive_map import open_map
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import cron_from_environment


@dg.op(description="Have the SharePoint sensor list the whole library anew and compare it by id.")
def ask_for_a_full_round(context: dg.OpExecutionContext, storage: Storage) -> None:
    with open_map(storage) as known:
        known.want_full_round()
    context.log.info("The next ticks of sharepoint_sensor list the whole library, and say what they find.")


@dg.job(description="List the whole SharePoint library anew: finds what the list of changes lost. Deletes nothing.")
def sharepoint_reconciliation() -> None:
    ask_for_a_full_round()


SCHEDULE = dg.ScheduleDefinition(
    name="sharepoint_reconciliation_schedule",
    job=sharepoint_reconciliation,
    cron_schedule=cron_from_environment("DRIVE_ASSETS_RECONCILIATION_CRON", "0 3 * * 0"),
    default_status=(
        dg.DefaultScheduleStatus.RUNNING if os.environ.get("SHAREPOINT_TENANT_ID") else dg.DefaultScheduleStatus.STOPPED
    ),
    description="Once a week; on where SharePoint is set up.",
)
