"""A real training on a real Slurm cluster that loses its run, is asked to end early, is pre-empted, and resumes."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import EPOCH
from drive_assets.running.instance import open_instance
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster, reason_against
from drive_assets_tests.cluster.training import ARCHITECTURE, EPOCHS, slurm, train, write_data
from model.training.published import read_history

pytestmark = pytest.mark.skipif(bool(reason_against()), reason=f"no Slurm cluster here: {reason_against()}")
LONG_S = 240


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as started:
        yield started


def until(condition: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < ends, f"not in time: {what}"
        time.sleep(0.2)


def history(root: Path) -> list[dict[str, Any]]:
    epochs = read_history(root / "models" / "multimodal" / ARCHITECTURE)["epochs"]
    return [{key: value for key, value in epoch.items() if key != "epoch_seconds"} for epoch in epochs]


@pytest.mark.timeout(900)
def test_a_training_outlives_its_run_ends_at_slurms_signals_and_resumes_as_if_undisturbed(
    cluster: LocalCluster, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_data(data_root)
    monkeypatch.setenv("PYTHONPATH", f"{data_root / 'site'}:{Path(__file__).parents[2]}")
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
    until(lambda: tracked().info.run_id != first and tracked().data.metrics.get(EPOCH) == 2, "the third epoch ends")
    command.kill()
    command.wait()
    with open_instance() as instance:  # rid of the run that was lost
        assert all(run.is_finished for run in instance.get_runs())
    assert tracked().info.status == "RUNNING"  # its job lives

    (job,) = cluster.call("squeue", "--noheader", "--format=%i").split()
    until((data_root / "stopped-0").exists, "the third step of the fourth epoch runs")
    cluster.call("scancel", "--signal=USR1", "--batch", job)
    until((data_root / "stopped-1").exists, "Slurm requeues the job, which resumes")
    (data_root / "go").touch()
    cluster.call("scontrol", "requeue", job)  # as a pre-emption does: SIGTERM to all its processes, then SIGKILL
    until(lambda: "Restarts=2" in cluster.call("scontrol", "show", "job", job), "Slurm requeues the job again")
    with open_instance() as instance:
        assert train(data_root, instance, slurm(data_root))
        (record, *_) = instance.get_runs()
        assert record.tags["drive_assets/jobs"] == job
    assert history(data_root) == undisturbed
    assert tracked().info.status == "FINISHED"
    log = next(data_root.glob("jobs/checkpoint-*/*.log")).read_text()
    assert log.count("resumes after epoch 4 of 5") == 2
