"""An asset of four partitions that jobs on a cluster make.

As a program it does one run, which a test may kill. As a code location of a real daemon it has a sensor that requests
runs of all partitions.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg

from drive_assets.resources.cluster.settings import Size
from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.resources.compute import Compute
from drive_assets.running.batches import Event, each_result
from drive_assets_tests.cluster.worker import ECHO, EchoJob, EchoResult

GIVEN = "DRIVE_ASSETS_TEST_CLUSTER"
"""Environment variable with `settings` of the compute and `config` of the asset, as JSON, for the code location."""
REQUEST = "request"
"""File in the data root; the location's sensor requests a run whenever its content has changed."""
PARTITIONS = dg.StaticPartitionsDefinition(["a", "b", "c", "d"])


class EchoCompute(SlurmCompute):
    """A Slurm cluster whose workers know the task `echo`."""

    echo: Size = Size()

    worker_module: ClassVar[str] = "drive_assets_tests.cluster.worker"


class EchoConfig(dg.Config):
    wait: str = ""
    fault: str = ""
    faulty: str = "b"
    seconds: float = 0.0


@dg.asset(partitions_def=PARTITIONS)
def echoes(context: dg.AssetExecutionContext, config: EchoConfig, compute: Compute) -> Iterator[Event]:
    root = Path(compute.data_root)  # type: ignore[attr-defined]
    keys = context.partition_keys
    wait = Path(config.wait) if config.wait else None
    faults = {k: config.fault if k == config.faulty else "" for k in keys}
    waits = {k: wait if faults[k] or not config.fault else None for k in keys}
    jobs = [EchoJob(root / f"{k}.txt", k, waits[k], faults[k], config.seconds) for k in keys]
    results = compute.run_each(context, ECHO, jobs, {"SECRET": "it's"})
    yield from each_result(context, results, materialized)


def materialized(key: str, result: EchoResult) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"begun": result.begun, "process": result.process})


def settings(root: Path, **changed: Any) -> dict[str, Any]:
    """Quick settings for the local cluster."""
    size = {"cpus": 1, "memory": "500M", "gres": "", "time": "10", **changed.pop("size", {})}
    return {"data_root": str(root), "poll_s": 0.5, "grace_s": 1.0, "echo": size, **changed}


def compute_with(chosen: dict[str, Any]) -> EchoCompute:
    return EchoCompute(**{**chosen, "echo": Size(**chosen["echo"])})


def range_tags(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def run_config(config: dict[str, Any]) -> dict[str, Any]:
    return {"ops": {"echoes": {"config": config}}}


def execute(
    instance: dg.DagsterInstance, chosen: dict[str, Any], config: dict[str, Any], first: str, last: str
) -> dg.ExecuteInProcessResult:
    defs = dg.Definitions(assets=[echoes], resources={"compute": compute_with(chosen)})
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, tags=range_tags(first, last), run_config=run_config(config), raise_on_error=False
    )


@dg.definitions
def location() -> dg.Definitions:
    given = json.loads(os.environ[GIVEN])
    job = dg.define_asset_job("all", [echoes])

    @dg.sensor(job=job, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
    def requests(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        path = Path(given["settings"]["data_root"]) / REQUEST
        if not path.is_file():
            return dg.SkipReason("Nothing is requested.")
        tags = {**range_tags("a", "d"), "dagster/max_retries": "2"}
        return dg.RunRequest(path.read_text(), run_config=run_config(given["config"]), tags=tags)

    return dg.Definitions(
        [echoes],
        jobs=[job],
        sensors=[requests],
        executor=dg.in_process_executor,
        resources={"compute": compute_with(given["settings"])},
    )


if __name__ == "__main__":
    with dg.DagsterInstance.get() as ours:
        sys.exit(0 if execute(ours, **json.loads(sys.argv[1])).success else 1)
