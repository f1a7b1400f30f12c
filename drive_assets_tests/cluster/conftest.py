"""One local Slurm cluster for all tests of this folder. They are skipped where it cannot be started."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drive_assets_tests.cluster.lab import Lab
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster, reason_against


@pytest.fixture(scope="package")
def cluster() -> Iterator[LocalCluster]:
    if reason := reason_against():
        pytest.skip(f"no Slurm cluster here: {reason}")
    with local_cluster() as started:
        yield started


@pytest.fixture
def on_cluster(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """The cluster, which this process's Slurm commands use. Jobs left by a test are cancelled."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    yield cluster
    cluster.call("scancel", "--user=root")


@pytest.fixture
def lab(on_cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        yield Lab(on_cluster, tmp_path, instance)
