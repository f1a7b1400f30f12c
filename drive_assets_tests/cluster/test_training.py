"""A real training on a real Slurm cluster that loses its run, is asked to end early, is pre-empted, and resumes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import EPOCH
from drive_assets.running.instance import open_instance
from drive_assets_tests.cluster.slurm import LocalCluster
from drive_assets_tests.cluster.small_graph import ARCHITECTURE
from drive_assets_tests.cluster.training import EPOCHS, GATE, slurm, train, write_data
from drive_assets_tests.startup import at_start
from drive_assets_tests.waiting import until
from model.training.published import read_history


def history(root: Path) -> list[dict[str, Any]]:
    epochs = read_history(root / "models" / "multimodal" / ARCHITECTURE)["epochs"]
    return [{key: value for key, value in epoch.items() if key != "epoch_seconds"} for epoch in epochs]


@pytest.mark.timeout(900)
def test_a_training_outlives_its_run_ends_at_slurms_signals_and_resumes_as_if_undisturbed(
    on_cluster: LocalCluster, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(data_root)
    for name, value in {"OMP_NUM_THREADS": "1", **at_start(tmp_path / "site", GATE)}.items():
        monkeypatch.setenv(name, value)
    with open_instance() as instance:
        assert train(data_root, instance, LocalCompute(threads=1))
    undisturbed = history(data_root)
    assert len(undisturbed) == EPOCHS

    monkeypatch.setenv("DRIVE_ASSETS_TEST_GATE", str(data_root / "go"))
    (data_root / "models").rename(data_root / "undisturbed")
    mlflow = Mlflow.from_environment()
    client = mlflow.client()

    def tracked() -> Any:
        return client.search_runs([mlflow.experiment_id(client)], max_results=1)[0]

    first = tracked().info.run_id
    command = subprocess.Popen([sys.executable, "-m", "drive_assets_tests.cluster.training", str(data_root)])
    third = "the third epoch ends"
    until(lambda: tracked().info.run_id != first and tracked().data.metrics.get(EPOCH) == 2, third, 240)
    command.kill()
    command.wait()
    with open_instance() as instance:  # which ends the lost run
        assert all(run.is_finished for run in instance.get_runs())
    assert tracked().info.status == "RUNNING"  # its job lives

    (job,) = on_cluster.call("squeue", "--noheader", "--format=%i").split()
    until((data_root / "stopped-0").exists, "the third step of the fourth epoch runs")
    on_cluster.call("scancel", "--signal=USR1", "--batch", job)
    until((data_root / "stopped-1").exists, "Slurm requeues the job, which resumes")
    (data_root / "go").touch()
    on_cluster.call("scontrol", "requeue", job)  # as a pre-emption does: SIGTERM to all its processes, then SIGKILL
    until(lambda: "Restarts=2" in on_cluster.call("scontrol", "show", "job", job), "Slurm requeues the job again")
    with open_instance() as instance:
        assert train(data_root, instance, slurm(data_root))
        (record, *_) = instance.get_runs()
        assert record.tags["drive_assets/jobs"] == job
    assert history(data_root) == undisturbed
    assert tracked().info.status == "FINISHED"
    log = next(data_root.glob("jobs/checkpoint-*/*.log")).read_text()
    assert log.count("resumes after epoch 4 of 5") == 2
