"""The whole graph, small, with real tasks on any instance and compute resource."""

from pathlib import Path

import dagster as dg

from drive_assets.definitions import load
from drive_assets.partitions import register_recordings
from drive_assets.resources.compute import Compute
from drive_assets.resources.storage import Storage
from drive_assets.running.materialize import materialize
from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.detection import test_nuimages
from model.detection.detector import BUNDLED

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 5)]
ARCHITECTURE = "simple_concat_lstm"
CONFIG = {
    "annotations": {"weights": str(BUNDLED), "image_size": 96, "backend": "torch"},
    "nuimages_detector": {"epochs": 1, "image_size": 64, "batch": 2, "workers": 0, "devices": "cpu"},
    "split_manifest": {"window": {"stride": 1}},
    "checkpoint": {"epochs": 2, "batch_size": 32, "warmup_epochs": 0, "embedding_dim": 16, "hidden_dim": 16},
    "evaluation": {"bootstrap_samples": 20},
}
GPU_WORK = {"annotations": set(NAMES), "checkpoint": {ARCHITECTURE}, "evaluation": {ARCHITECTURE}}
"""Partitions of the assets that jobs make."""


def make(root: Path, instance: dg.DagsterInstance, compute: Compute, selection: str = "") -> list[str]:
    """Materialise a selection, by default all but Boxy's assets, from four drives and one picture; returns the log."""
    for seed, name in enumerate(NAMES):
        if not (root / "inbox" / name).is_dir():
            write_drive(root / "inbox" / name, rows=60, seed=seed)
    if not (root / "raw").is_dir():
        picture = test_nuimages.tables("mini", ["a", "b"], [("vehicle.car", [0, 0, 800, 450])])
        test_nuimages.write_raw(root / "raw" / "nuimages", {"v1.0-mini": picture})
    register_recordings(instance, NAMES)
    storage = Storage(data_root=str(root), inbox_root=str(root / "inbox"))
    graph = load(storage=storage, compute=compute).get_repository_def()
    if not selection:
        names = [key.to_user_string() for key in graph.asset_graph.materializable_asset_keys]
        selection = ",".join(name for name in names if not name.startswith("boxy"))
    log: list[str] = []
    done = materialize(graph, instance, selection, architectures=[ARCHITECTURE], config=CONFIG, tell=log.append)
    assert done, "\n".join(log)
    return log
