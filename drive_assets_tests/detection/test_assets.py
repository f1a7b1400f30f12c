"""Data sets and detectors on a real Dagster instance."""

from pathlib import Path

import dagster as dg
import pytest

from drive_assets.definitions import defs
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets_tests.model.detection import test_boxy, test_nuimages
from drive_assets_tests.model.detection.test_downloads import Server, server, zipped

_ = (server, zipped)


def materialize(name: str, config: dict | None = None) -> tuple[bool, dict, str]:
    """Whether it succeeded, its metadata, and the reason of its failure."""
    storage = Storage.from_environment()
    assets = [a for a in defs.assets or [] if isinstance(a, dg.AssetsDefinition)]
    with dg.instance_for_test() as instance:
        result = dg.materialize(
            assets,
            selection=[name],
            instance=instance,
            resources={"storage": storage, "compute": LocalCompute(threads=1), "mlflow": Mlflow.from_environment()},
            run_config={"ops": {name: {"config": config or {}}}},
            raise_on_error=False,
        )
        if result.success:
            (event,) = result.asset_materializations_for_node(name)
            return True, {key: value.value for key, value in event.metadata.items()}, ""
        failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        data = failures[0]
        assert data is not None
        told = data.user_failure_data.description if data.user_failure_data else str(data.error)
        return False, {}, str(told)


def test_boxy_dataset_is_fetched_and_described(
    data_root: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = {"1": [test_boxy.vehicle(test_boxy.box(0, 0, 1232, 1028))], "2": []}
    given = test_boxy.write_raw(tmp_path / "given", frames)
    server.files = {path.name: path.read_bytes() for path in given.glob("*.json")}
    server.files |= {f"boxy_raw_scaled/{path.name}": path.read_bytes() for path in given.glob("*.zip")}
    monkeypatch.setenv("DRIVE_ASSETS_BOXY_URL", server.base)
    succeeded, metadata, _ = materialize("boxy_dataset")
    assert succeeded
    assert (metadata["images"], metadata["boxes"]) == ({"train": 2, "val": 2}, {"train": 1, "val": 1})
    assert metadata["boxes_per_image"] == 0.5
    assert "/boxy_dataset?made=" in metadata["report"]
    assert "SECRET" not in str(metadata)
    asked = len(server.requests)
    assert materialize("boxy_dataset")[0]
    assert [path for path, _ in server.requests[asked:]] == ["/sets/boxy_labels_valid.json"]  # what it did not have


def test_secrets_in_the_launchpad_are_refused(data_root: Path) -> None:
    for name, url in (
        ("boxy_dataset", "http://me:SECRET@127.0.0.1/x"),
        ("nuimages_dataset", "http://127.0.0.1/?t=SECRET"),
    ):
        succeeded, _, told = materialize(name, {"url": url})
        assert (succeeded, "set it in the environment" in told, "SECRET" in told) == (False, True, False)


@pytest.mark.timeout(300)
def test_nuimages_detector_is_trained_on_its_set(data_root: Path) -> None:
    succeeded, _, told = materialize("nuimages_dataset")
    assert not succeeded and str(data_root / "raw" / "nuimages") in told and "v1.0-train" in told
    succeeded, _, told = materialize("nuimages_detector")
    assert not succeeded and "materialise nuimages_dataset first" in told
    mini = test_nuimages.tables("mini", ["a", "b"], [("vehicle.car", [0, 0, 800, 450]), ("animal", [0, 0, 9, 9])])
    test_nuimages.write_raw(data_root / "raw" / "nuimages", {"v1.0-mini": mini})
    succeeded, metadata, told = materialize("nuimages_dataset")
    assert succeeded, told
    assert metadata["classes"]["train"]["vehicle.car"] == 2
    assert metadata["left_out"] == {"boxes of other classes": 4}
    config = {"epochs": 1, "image_size": 64, "batch": 2, "workers": 0, "devices": "cpu"}
    succeeded, metadata, told = materialize("nuimages_detector", config)
    assert succeeded, told
    assert {"map50", "map50_95", "precision", "recall", "mlflow_run"} <= set(metadata)
    assert (data_root / "models" / "yolo" / "yolo11n_nuimages.pt").is_file()
