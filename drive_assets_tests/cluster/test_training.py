"""A real training on a real Slurm cluster that loses its run, is asked to end early, and resumes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drive_assets.resources.cluster.slurm import JOBS_TAG
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import EPOCH
from drive_assets.running.instance import open_instance
from drive_assets_tests.cluster.slurm import LocalCluster
from drive_assets_tests.cluster.small_graph import ARCHITECTURE
from drive_assets_tests.model.split_files import write_splits
from drive_assets_tests.startup import at_start
from drive_assets_tests.waiting import until
from model.training.published import read_history

EPOCHS = 5
CONFIG = {"epochs": EPOCHS, "batch_size": 32, "warmup_epochs": 0, "embedding_dim": 16, "hidden_dim": 16}
SETTINGS = {"poll_s": 0.5, "grace_s": 1.0, "train": {"cpus": 1, "memory": "3G", "gres": "", "time": "20"}}

GATE = """
import os, time
from pathlib import Path
if gate := os.environ.get("DRIVE_ASSETS_TEST_GATE"):
    from drive_assets.resources.mlflow.tracking import EpochLog
    logged = EpochLog.__call__
    def gated(self, metrics):
        from drive_assets.tasks import STOP_REQUESTED
        logged(self, metrics)
        while metrics["epoch"] >= 2 and not STOP_REQUESTED.is_set() and not Path(gate).exists():
            time.sleep(0.05)
    EpochLog.__call__ = gated
"""
"""Workers wait after the third epoch and each later one until they are asked to end, or the gate is there."""


def start(data_root: Path) -> "subprocess.Popen[bytes]":
    command = ["run", "--select", "checkpoint", "--architectures", ARCHITECTURE]
    config = data_root / "config.yaml"
    config.write_text(json.dumps({"checkpoint": CONFIG}))
    return subprocess.Popen([sys.executable, "-m", "drive_assets.cli", *command, "--config", str(config)])


def history(data_root: Path) -> list[dict[str, Any]]:
    epochs = read_history(data_root / "models" / "multimodal" / ARCHITECTURE)["epochs"]
    return [{key: value for key, value in epoch.items() if key != "epoch_seconds"} for epoch in epochs]


@pytest.mark.timeout(1500)
def test_a_training_outlives_its_run_ends_at_slurms_signal_and_resumes_as_if_undisturbed(
    on_cluster: LocalCluster, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_splits(data_root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert start(data_root).wait(600) == 0
    undisturbed = history(data_root)
    assert len(undisturbed) == EPOCHS

    (data_root / "models").rename(data_root / "undisturbed")
    (data_root / "slurm.yaml").write_text(json.dumps(SETTINGS))
    gate = data_root / "go"
    for name, value in {"DRIVE_ASSETS_TEST_GATE": str(gate), **at_start(tmp_path / "site", GATE)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DRIVE_ASSETS_COMPUTE", "slurm")
    monkeypatch.setenv("DRIVE_ASSETS_COMPUTE_SETTINGS", str(data_root / "slurm.yaml"))
    mlflow = Mlflow.from_environment()
    client = mlflow.client()

    def tracked() -> Any:
        return client.search_runs([mlflow.experiment_id(client)], "tags.architecture != ''", max_results=1)[0]

    first = tracked().info.run_id
    command = start(data_root)
    until(lambda: tracked().info.run_id != first and tracked().data.metrics.get(EPOCH, 0) >= 2, "three epochs end", 300)
    command.kill()
    command.wait()
    with open_instance() as instance:  # which ends the lost run
        assert all(run.is_finished for run in instance.get_runs())
    assert tracked().info.status == "RUNNING"  # its job lives

    (job,) = on_cluster.call("squeue", "--noheader", "--format=%i").split()
    on_cluster.call("scancel", "--signal=USR1", "--batch", job)
    until(lambda: "Restarts=1" in on_cluster.call("scontrol", "show", "job", job), "Slurm requeues the job")
    command = start(data_root)
    with open_instance() as instance:
        until(
            lambda: [run.tags.get(JOBS_TAG) for run in instance.get_runs()].count(job) == 2,
            "the next run adopts the job",
        )
    gate.touch()
    assert command.wait(600) == 0
    assert history(data_root) == undisturbed
    assert tracked().info.status == "FINISHED"
    log = next(data_root.glob("jobs/checkpoint-*/*.log")).read_text()
    assert log.count(f" resumes after epoch 3 of {EPOCHS}") == 1
