"""What runs by itself: the nightly refresh. Per recording, the assets' automation conditions do it."""

import dagster as dg

REFRESH = dg.define_asset_job(
    "refresh_splits",
    selection=dg.AssetSelection.assets("split_manifest"),
    description="Make the split manifest anew from all recordings that are annotated and labelled.",
)

JOBS = [REFRESH]
SCHEDULES = [
    dg.ScheduleDefinition(
        name="nightly_splits",
        job=REFRESH,
        cron_schedule="0 2 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="At 02:00, when switched on.",
    )
]
