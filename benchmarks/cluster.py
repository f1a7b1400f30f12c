"""A local Slurm cluster of two nodes against local workers: trainings as an array, annotation as an array, one job.

    python -m benchmarks.cluster [--rounds 3] [--recordings 200]

Rounds are interleaved, so that other load affects both sides. Needs root and Debian's packages slurm-wlm and munge.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg

from drive_assets.resources.cluster.settings import Size
from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.resources.compute import Compute, LocalCompute
from drive_assets.tasks import ANNOTATE, TRAIN, AnnotateJob, Task, TrainJob
from drive_assets_tests.cluster.slurm import local_cluster
from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.split_files import write_split_file
from drive_assets_tests.startup import counting, loads
from model.annotation.config import AnnotationConfig
from model.detection.detector import BUNDLED
from model.network.architectures import ARCHITECTURES
from model.training.recipes import TrainingConfig

EPOCHS = 4


def trainings(root: Path, epochs: int, names: Sequence[str]) -> list[TrainJob]:
    config = TrainingConfig(epochs=epochs, warmup_epochs=0, batch_size=32, embedding_dim=16, hidden_dim=16,
                            attention_num_heads=4, decoder_num_layers=1)  # fmt: skip
    return [TrainJob(name, root / "splits", root / "out" / str(time.time_ns()) / name, config, "1") for name in names]


def run(compute: Compute, task: Task[Any, Any], work: Sequence[Any]) -> None:
    @dg.asset
    def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        if errors := [result for result in compute.run(context, task, work) if isinstance(result, Exception)]:
            raise errors[0]
        return dg.MaterializeResult()

    assert dg.materialize([made], run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}}).success


def locally(root: Path, epochs: int, names: Sequence[str]) -> None:
    """One local worker in its own process: Dagster handles signals of one job per process."""
    run(LocalCompute(threads=1), TRAIN, trainings(root, epochs, names))


def seconds(do: Callable[[], Any]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def array_of_trainings(root: Path, slurm: Callable[[int], SlurmCompute], rounds: int) -> None:
    names = list(ARCHITECTURES)
    one: dict[str, list[float]] = {"local": [], "Slurm": []}
    all_12: dict[str, list[float]] = {"two local workers": [], "6 a task": [], "1 a task": []}
    run(slurm(1), TRAIN, trainings(root, 1, names[:1]))  # the probe, and warm files
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(locally, [root] * 2, [1] * 2, [names[:1], names[1:2]]))  # started, and Dagster imported
        for number in range(rounds):
            one["local"].append(seconds(lambda: run(LocalCompute(threads=1), TRAIN, trainings(root, 1, names[:1]))))
            one["Slurm"].append(seconds(lambda: run(slurm(1), TRAIN, trainings(root, 1, names[:1]))))
            halves = names[::2], names[1::2]
            all_12["two local workers"].append(
                seconds(lambda h=halves: list(pool.map(locally, [root] * 2, [EPOCHS] * 2, h)))  # type: ignore[misc]
            )
            for per_task in (6, 1):
                took = seconds(lambda n=per_task: run(slurm(n), TRAIN, trainings(root, EPOCHS, names)))  # type: ignore[misc]
                all_12[f"{per_task} a task"].append(took)
            print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}:", {k: round(v[-1], 1) for k, v in one.items()},
                  {k: round(v[-1], 1) for k, v in all_12.items()}, flush=True)  # fmt: skip
    more = [slurm - local for slurm, local in zip(one["Slurm"], one["local"], strict=True)]
    print(f"one short training: median {median(more):.1f} s more on Slurm than in a local worker")
    base = all_12["two local workers"]
    for name in ("6 a task", "1 a task"):
        ratios = [took / local for took, local in zip(all_12[name], base, strict=True)]
        print(f"12 trainings, {name}: median {median(ratios):.2f} of two local workers side by side")


def array_of_annotations(root: Path, slurm: Callable[[int], SlurmCompute], count: int) -> None:
    config = AnnotationConfig(image_size=96, backend="torch")
    first = write_drive(root / "recordings" / "2024-05-01_10-00-00", rows=2)
    jobs = []
    for number in range(count):
        folder = root / "recordings" / f"2024-06-{1 + number // 60:02}_10-{number % 60:02}-00"
        folder.mkdir()
        day = folder.name
        lines = (first / "telemetry.csv").read_text().replace("2024-05-01 10-00", f"{day[:10]} 10-{day[14:16]}")
        (folder / "telemetry.csv").write_text(lines)
        for frame in first.glob("*.jpg"):
            os.link(frame, folder / frame.name.replace("2024-05-01 10-00", f"{day[:10]} 10-{day[14:16]}"))
        jobs.append(AnnotateJob(folder, BUNDLED, root / "cache", config))
    took = seconds(lambda: run(slurm(20), ANNOTATE, jobs))
    done, tasks = len(list(root.glob("recordings/*/annotations.csv"))), -(-count // 20)
    print(f"{count} recordings annotated by {tasks} tasks in {took:.0f} s: {done} done, {len(loads(root))} loads")
    assert (done, len(loads(root))) == (count, tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recordings", type=int, default=200)
    options = parser.parse_args()
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        started = {name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")}
        os.environ.update(started | {"OMP_NUM_THREADS": "1"})
        (root / "splits").mkdir()
        for seed, split in enumerate(("train", "val", "test")):
            write_split_file(root / "splits" / f"{split}.h5", frames=600, seed=seed)

        def slurm(per_task: int) -> SlurmCompute:
            size = Size(cpus=1, memory="3G", gres="", time="60", per_task=per_task, at_once=2)
            return SlurmCompute(data_root=folder, train=size, annotate=size, poll_s=1.0)

        if options.rounds:
            array_of_trainings(root, slurm, options.rounds)
        if options.recordings:
            os.environ.update(counting(root))
            array_of_annotations(root, slurm, options.recordings)


if __name__ == "__main__":
    main()
