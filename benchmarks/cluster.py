"""Twelve small trainings on a local Slurm cluster, against two local workers side by side; and the overhead of a job.

    python -m benchmarks.cluster

Needs root and Debian's packages slurm-wlm and munge.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.resources.cluster.slurm import Size, SlurmCompute
from drive_assets.resources.compute import Compute, LocalCompute
from drive_assets.tasks import TRAIN, TrainJob
from drive_assets_tests.cluster.slurm import local_cluster
from drive_assets_tests.model.split_files import write_split_file
from model.network.architectures import ARCHITECTURES
from model.training.recipes import TrainingConfig

EPOCHS = 4


def jobs(root: Path, epochs: int, names: Sequence[str]) -> list[TrainJob]:
    config = TrainingConfig(epochs=epochs, warmup_epochs=0, batch_size=32, embedding_dim=16, hidden_dim=16,
                            attention_num_heads=4, decoder_num_layers=1)  # fmt: skip
    return [TrainJob(name, root / "splits", root / "out" / str(time.time_ns()) / name, config, "1") for name in names]


def run(compute: Compute, work: list[TrainJob]) -> None:
    @dg.asset
    def trained(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        results = compute.run(context, TRAIN, work)
        if errors := [result for result in results if isinstance(result, Exception)]:
            raise errors[0]
        return dg.MaterializeResult()

    assert dg.materialize([trained], run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}}).success


def locally(root: Path, epochs: int, names: Sequence[str]) -> None:
    """One local worker in a process of its own: Dagster runs one job a process that hears signals."""
    run(LocalCompute(threads=1), jobs(root, epochs, names))


def seconds(do: Callable[[], Any]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def main() -> None:
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        os.environ.update({"SLURM_CONF": str(cluster.config), "OMP_NUM_THREADS": "1"})
        root = Path(folder)
        (root / "splits").mkdir()
        for seed, split in enumerate(("train", "val", "test")):
            write_split_file(root / "splits" / f"{split}.h5", frames=2000, seed=seed)
        local, names = LocalCompute(threads=1), list(ARCHITECTURES)

        def slurm(per_task: int) -> SlurmCompute:
            size = Size(cpus=1, memory="1G", gres="", time="30", per_task=per_task, at_once=2)
            return SlurmCompute(data_root=folder, train=size, poll_s=1.0)

        run(slurm(1), jobs(root, 1, names[:1]))  # the probe, and warm files
        one = seconds(lambda: run(local, jobs(root, 1, names[:1])))
        other = seconds(lambda: run(slurm(1), jobs(root, 1, names[:1])))
        print(f"one short training: local {one:.1f} s, Slurm {other:.1f} s: {other - one:.1f} s more")

        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            list(pool.map(locally, [root] * 2, [1] * 2, [names[:1], names[1:2]]))  # started, and Dagster imported
            halves = names[::2], names[1::2]
            base = seconds(lambda: list(pool.map(locally, [root] * 2, [EPOCHS] * 2, halves)))
        print(f"12 trainings: two local workers {base:.1f} s")
        for per_task in (6, 1):
            took = seconds(lambda n=per_task: run(slurm(n), jobs(root, EPOCHS, names)))  # type: ignore[misc]
            print(f"12 trainings: array on two slots, {per_task} a task: {took:.1f} s, {took / base:.2f} of that")


if __name__ == "__main__":
    main()
