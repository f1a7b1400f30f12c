"""The checkpoint of one architecture on a Slurm cluster, as a program that a test may kill.

    python -m drive_assets_tests.cluster.training ROOT

Until ROOT/go exists, its worker stops in the third step of the fourth epoch, and one that resumes in the third step of
its own, until it is signalled that its time is up. ROOT/stopped-<restarts> marks that it has stopped.
"""

import json
import sys
from pathlib import Path

import dagster as dg

from drive_assets.resources.cluster.settings import Size
from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.resources.compute import Compute
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets_tests.cluster.small_graph import run_graph
from drive_assets_tests.model.split_files import write_split_file
from model.recording.schema import BINARY_LABELS

EPOCHS = 5
CONFIG = {"epochs": EPOCHS, "batch_size": 32, "warmup_epochs": 0, "embedding_dim": 16, "hidden_dim": 16}
GATE = """
import itertools, os, time
from pathlib import Path
if gate := os.environ.get("DRIVE_ASSETS_TEST_GATE"):
    from drive_assets.resources.mlflow import tracking
    begin, restarts = tracking.EpochLog.begin, os.environ.get("SLURM_RESTART_COUNT", "0")
    def begun(self, epochs_done):
        from drive_assets.tasks import STOP_REQUESTED
        from model.training.step import Step
        step, numbers = Step.__call__, itertools.count(1)
        def stopped(*arguments):
            if next(numbers) == (3 if epochs_done else 3 * 7 + 3) and not Path(gate).exists():
                Path(gate).with_name("stopped-" + restarts).touch()
                while not STOP_REQUESTED.is_set():
                    time.sleep(0.05)
            return step(*arguments)
        Step.__call__ = stopped
        begin(self, epochs_done)
    tracking.EpochLog.begin = begun
"""


def write_data(root: Path) -> None:
    """Splits and their manifest, as little as the training asks for."""
    storage = Storage(data_root=str(root), inbox_root=str(root / "inbox"))
    storage.splits.mkdir(parents=True)
    for seed, name in enumerate(("train", "val", "test")):
        write_split_file(storage.split(name), seed=seed, version="1")
    rates = dict.fromkeys(BINARY_LABELS, 0.5)
    splits = {name: {"windows": 221, "label_rates": rates} for name in ("train", "val", "test")}
    storage.manifest.write_text(json.dumps({"fingerprint": "1", "splits": splits}))


def slurm(root: Path) -> Compute:
    size = Size(cpus=1, memory="3G", gres="", time="20")
    return SlurmCompute(data_root=str(root), poll_s=0.5, grace_s=1.0, train=size)


def train(root: Path, instance: dg.DagsterInstance, compute: Compute) -> bool:
    return run_graph(root, instance, compute, "checkpoint", {"checkpoint": CONFIG})


if __name__ == "__main__":
    with open_instance() as ours:
        sys.exit(0 if train(Path(sys.argv[1]), ours, slurm(Path(sys.argv[1]))) else 1)
