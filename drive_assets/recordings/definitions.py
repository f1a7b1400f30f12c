"""What recordings add to the asset graph: the asset, its checks, and the sensors and jobs of each kind of source."""

import dagster as dg

from drive_assets.recordings.arrivals import ArrivalRules
from drive_assets.recordings.assets import recording
from drive_assets.recordings.forget import forget_job
from drive_assets.recordings.inbox import inbox_sensor
from drive_assets.recordings.sharepoint import definitions as sharepoint

defs = dg.Definitions.merge(
    dg.Definitions(
        assets=[recording],
        jobs=[forget_job],
        sensors=[inbox_sensor],
        resources={"arrival_rules": ArrivalRules.from_environment()},
    ),
    sharepoint.defs,
)
