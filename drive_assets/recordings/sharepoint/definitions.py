"""SharePoint as a kind of source: its sensor, and the job that lists the whole library."""

import os

import dagster as dg

from drive_assets.recordings.sharepoint.known import full_listing_request
from drive_assets.recordings.sharepoint.sensor import sharepoint_sensor
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import Cron, setting
from model.common.files import write_text


@dg.op(description="Have the SharePoint sensor list the whole library and compare it by id.")
def request_full_round(context: dg.OpExecutionContext, storage: Storage) -> None:
    write_text(full_listing_request(storage), "")
    context.log.info("The next ticks of sharepoint_sensor list the whole library and report the differences.")


@dg.job(description="List the whole SharePoint library, to find what the list of changes missed. Deletes nothing.")
def sharepoint_reconciliation() -> None:
    request_full_round()


SCHEDULE = dg.ScheduleDefinition(
    name="sharepoint_reconciliation_schedule",
    job=sharepoint_reconciliation,
    cron_schedule=setting("DRIVE_ASSETS_RECONCILIATION_CRON", Cron, "0 3 * * 0"),
    default_status=(
        dg.DefaultScheduleStatus.RUNNING if os.environ.get("SHAREPOINT_TENANT_ID") else dg.DefaultScheduleStatus.STOPPED
    ),
    description="Once a week; on where SharePoint is set up.",
)
defs = dg.Definitions(jobs=[sharepoint_reconciliation], schedules=[SCHEDULE], sensors=[sharepoint_sensor])
