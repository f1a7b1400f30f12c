"""The graph's real work on a real Slurm cluster: annotation, a detector, training and evaluation."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.resources.cluster.settings import Size
from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.running.instance import open_instance
from drive_assets_tests.cluster.loads import counting, loads
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster, reason_against
from drive_assets_tests.cluster.small_graph import GPU_WORK, make

pytestmark = pytest.mark.skipif(bool(reason_against()), reason=f"no Slurm cluster here: {reason_against()}")
SELECTED = "recording,annotations,future_labels,split_manifest,h5_split,checkpoint,evaluation,key:nuimages*"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as started:
        yield started


@pytest.mark.timeout(1500)
def test_the_graph_on_a_cluster(
    cluster: LocalCluster, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = {name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")}
    for name, value in (started | counting(tmp_path)).items():
        monkeypatch.setenv(name, value)
    size = Size(cpus=1, memory="3G", gres="", time="20")
    compute = SlurmCompute(
        data_root=str(data_root),
        poll_s=1.0,
        train=size,
        train_detector=size,
        evaluate=size,
        annotate=size.model_copy(update={"per_task": 2}),
    )
    with open_instance() as instance:
        make(data_root, instance, compute, SELECTED)
        for asset, keys in GPU_WORK.items():
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == keys
        assert instance.get_latest_materialization_event(dg.AssetKey("nuimages_detector")) is not None
    assert len(loads(tmp_path)) == len(set(loads(tmp_path))) == 2  # four recordings, two tasks
    ends = time.monotonic() + 120  # a result is taken when it is there: its job's process may still be ending
    while (left := cluster.call("squeue", "--noheader").strip()) and time.monotonic() < ends:
        time.sleep(0.5)
    assert left == ""
