"""The bundle of a small network, made by the asset."""

from pathlib import Path

import dagster as dg
import pytest

from drive_assets.car.assets import car_bundle
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.storage import Storage
from drive_assets_tests.car.data import BUDGET, write_drives, write_network
from model.bundle.runtime.bundle import Bundle
from model.dataset.windows import WindowConfig
from model.detection.detector import BUNDLED

ARCHITECTURE = "attention_query_lstm"
SMALL = {"epochs": 1, "embedding_dim": 16, "hidden_dim": 16, "attention_num_heads": 2, "members": 2, "members_dim": 16}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A data root with a small network."""
    root = tmp_path_factory.mktemp("car")
    storage = Storage(data_root=str(root), inbox_root=str(root / "inbox"))
    write_drives(storage, 48, 320, WindowConfig(length=6, stride=1, max_detections=4))
    write_network(storage, ARCHITECTURE, **SMALL)
    return storage


@pytest.fixture(scope="session")
def drives(trained: Storage) -> Path:
    return trained.recordings


@pytest.fixture(scope="session")
def bundle(trained: Storage) -> Bundle:
    """As the UI makes it, with a worker of its own."""
    config = {"false_alarms_per_hour": BUDGET, "golden_frames": 20, "weights": str(BUNDLED)}
    result = dg.materialize(
        [car_bundle, *map(dg.AssetSpec, ("evaluation", "boxy_detector"))],
        selection=["car_bundle"],
        partition_key=ARCHITECTURE,
        resources={"storage": trained, "compute": LocalCompute(threads=1)},
        run_config={"ops": {"car_bundle": {"config": config}}},
    )
    assert result.success and all(check.passed for check in result.get_asset_check_evaluations())
    return Bundle.read(trained.bundle(ARCHITECTURE))
