"""A code location for a real daemon: the asset of four partitions, and a sensor that asks for runs of all of them."""

import json
import os
from pathlib import Path

import dagster as dg

from drive_assets_tests.cluster.graph import GIVEN, WANTED, EchoCompute, echoes, sized

given = json.loads(os.environ[GIVEN])
job = dg.define_asset_job("all", [echoes])


@dg.sensor(job=job, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def asks(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    path = Path(given["settings"]["data_root"]) / WANTED
    if not path.is_file():
        return dg.SkipReason("Nothing is wanted.")
    ends = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "d"}
    return dg.RunRequest(
        path.read_text(),
        run_config={"ops": {"echoes": {"config": given["config"]}}},
        tags={**ends, "dagster/max_retries": "2"},
    )


defs = dg.Definitions(
    [echoes],
    jobs=[job],
    sensors=[asks],
    executor=dg.in_process_executor,
    resources={"compute": EchoCompute(**sized(given["settings"]))},
)
