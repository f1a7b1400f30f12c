"""The public interface: keys, partitions, dependencies, pools and checks."""

import subprocess
import sys

import dagster as dg
import pytest

from drive_assets.catalogue import ENTRIES, PHASES, catalogued
from drive_assets.definitions import defs
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, SPLITS
from drive_assets.splits.assets import h5_split
from model.common.errors import DataError
from model.recording.schema import LABEL_COLUMNS

GRAPH = defs.resolve_asset_graph()
EXPECTED: dict[str, tuple[dg.PartitionsDefinition | None, set[str]]] = {
    "recording": (RECORDINGS, set()),
    "boxy_dataset": (None, set()),
    "boxy_detector": (None, {"boxy_dataset"}),
    "nuimages_dataset": (None, set()),
    "nuimages_detector": (None, {"nuimages_dataset"}),
    "annotations": (RECORDINGS, {"recording", "boxy_detector"}),
    "future_labels": (RECORDINGS, {"recording"}),
    "split_manifest": (None, {"annotations", "future_labels"}),
    "h5_split": (SPLITS, {"split_manifest", "annotations", "future_labels"}),
    "checkpoint": (ARCHITECTURE_PARTITIONS, {"h5_split"}),
    "evaluation": (ARCHITECTURE_PARTITIONS, {"checkpoint", "h5_split"}),
    "model_comparison": (None, {"evaluation"}),
}

SCHEDULES = {"refresh_schedule": "refresh", "sharepoint_reconciliation_schedule": "sharepoint_reconciliation"}


def test_keys_partitions_and_dependencies() -> None:
    found = {
        key.to_user_string(): (GRAPH.get(key).partitions_def, {p.to_user_string() for p in GRAPH.get(key).parent_keys})
        for key in GRAPH.get_all_asset_keys()
    }
    assert found == EXPECTED


def test_the_twelve_architectures_are_the_partitions() -> None:
    names = ARCHITECTURE_PARTITIONS.get_partition_keys()
    assert len(names) == 12
    assert "attention_cross_attention_transformer" in names


def test_gpu_work_is_in_the_pool_and_every_asset_has_a_code_version() -> None:
    pools = {key.to_user_string() for key in GRAPH.get_all_asset_keys() if "gpu" in (GRAPH.get(key).pools or set())}
    assert pools == {"boxy_detector", "nuimages_detector", "annotations", "checkpoint", "evaluation"}
    assert all(GRAPH.get(key).code_version for key in GRAPH.get_all_asset_keys())


def test_checks() -> None:
    names = {f"{key.asset_key.to_user_string()}:{key.name}" for key in GRAPH.asset_check_keys}
    assert names == {
        "recording:all_are_taken",
        *(f"{name}:is_current" for name in ("annotations", "future_labels", "h5_split", "checkpoint", "evaluation")),
        "model_comparison:is_current",
        "recording:few_faults",
        "recording:plausible_drive",
        "boxy_detector:finds_vehicles",
        "nuimages_detector:finds_vehicles",
        "annotations:plausible_detections",
        "annotations:steady_detections",
        "future_labels:fits_telemetry",
        "future_labels:plausible_rates",
        "split_manifest:no_recording_in_two_splits",
        "split_manifest:balanced_splits",
        "h5_split:of_the_manifest",
        "checkpoint:finite_history",
        "checkpoint:learnt_something",
        "evaluation:enough_events",
        "evaluation:calibrated",
        "model_comparison:complete",
        "model_comparison:better_than_the_baselines",
        "split_manifest:one_detector",
        "split_manifest:recordings_keep_their_split",
        "split_manifest:manifest_is_current",
        "split_manifest:every_split_has_positives",
    }


def test_sensors_schedules_and_jobs() -> None:
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultScheduleStatus.STOPPED
    assert {sensor.name: sensor.default_status for sensor in defs.sensors or []} == {
        "inbox_sensor": running,
        "sharepoint_sensor": dg.DefaultSensorStatus.STOPPED,
        "automation_sensor": running,
        "status_sensor": running,
        "failure_notifications": dg.DefaultSensorStatus.STOPPED,
    }
    schedules = {name: defs.resolve_schedule_def(name) for name in SCHEDULES}
    assert {name: schedule.job_name for name, schedule in schedules.items()} == SCHEDULES
    assert schedules["refresh_schedule"].default_status == stopped


def test_the_code_server_imports_nothing_heavy() -> None:
    code = (
        "import sys; from drive_assets.definitions import defs; defs.resolve_implicit_global_asset_job_def(); "
        "print([name for name in ('torch', 'ultralytics', 'mlflow', 'msal') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_each_asset_tells_what_goes_in_what_comes_out_where_it_is_and_where_its_code_is() -> None:
    assert {key.to_user_string() for key in GRAPH.get_all_asset_keys()} == set(ENTRIES)
    for key in GRAPH.get_all_asset_keys():
        node = GRAPH.get(key)
        told = node.description or ""
        assert all(word in told for word in ("**Out:**", "**Stored:**")), key
        assert "**In:**" in told and node.kinds and node.group_name in PHASES
        (reference,) = node.metadata["dagster/code_references"].code_references
        assert reference.label.startswith("drive_assets/") and reference.label.endswith(".py")
    order = {key: PHASES.index(GRAPH.get(key).group_name) for key in GRAPH.get_all_asset_keys()}
    assert all(order[parent] <= order[key] for key in order for parent in GRAPH.get(key).parent_keys)
    schema = GRAPH.get(dg.AssetKey("future_labels")).metadata["dagster/column_schema"]
    assert {column.name for column in schema.columns} == set(LABEL_COLUMNS)


def test_owners_and_the_address_of_the_code_are_the_teams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_OWNERS", "team:drives, ml@example.com")
    monkeypatch.setenv("DRIVE_ASSETS_CODE_URL", "https://code.example/drives/blob/main/")
    asset = next(iter(catalogued(dg.Definitions(assets=[h5_split])).assets or ()))
    assert isinstance(asset, dg.AssetsDefinition)
    (spec,) = asset.specs
    assert spec.owners == ["team:drives", "ml@example.com"]
    (reference,) = spec.metadata["dagster/code_references"].code_references
    assert reference.url.startswith("https://code.example/drives/blob/main/drive_assets/splits/assets.py#L")
    monkeypatch.setenv("DRIVE_ASSETS_OWNERS", "drives")
    with pytest.raises(DataError, match="names drives: expected mail addresses, or teams as team:name"):
        catalogued(dg.Definitions(assets=[h5_split]))
