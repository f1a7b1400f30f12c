"""The limit of pool `gpu`: the compute's, until somebody sets another."""

from pathlib import Path

import dagster as dg

from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.resources.compute import LocalCompute
from drive_assets.running.pools import GPU_POOL, set_default_limit


def limit(instance: dg.DagsterInstance) -> int | None:
    return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}.get(GPU_POOL)


def test_the_limit_is_the_computes_until_somebody_sets_one(tmp_path: Path) -> None:
    slurm = SlurmCompute(data_root=str(tmp_path), runs_at_once=30)
    with dg.instance_for_test() as instance:
        for compute, expected in ((slurm, 30), (LocalCompute(), 1), (slurm, 30)):
            set_default_limit(instance, compute)
            assert limit(instance) == expected
        instance.event_log_storage.set_concurrency_slots(GPU_POOL, 5)  # as the UI does
        for compute in (LocalCompute(), slurm):
            set_default_limit(instance, compute)
            assert limit(instance) == 5
