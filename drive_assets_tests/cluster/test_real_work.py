"""The graph's real work on a real Slurm cluster: annotation, a detector, training and evaluation."""

from pathlib import Path

import dagster as dg
import pytest

from drive_assets.resources.cluster.settings import Size
from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.running.instance import open_instance
from drive_assets_tests.cluster.slurm import LocalCluster
from drive_assets_tests.cluster.small_graph import GPU_WORK, make
from drive_assets_tests.startup import counting, loads
from drive_assets_tests.waiting import until

SELECTED = "recording,annotations,future_labels,split_manifest,h5_split,checkpoint,evaluation,key:nuimages*"


@pytest.mark.timeout(1500)
def test_the_graph_on_a_cluster(
    on_cluster: LocalCluster, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in counting(tmp_path).items():
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
    # A result is taken as soon as it is there: its job's process may still be ending.
    until(lambda: not on_cluster.call("squeue", "--noheader").strip(), "the queue is empty")
