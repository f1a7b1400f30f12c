"""The public interface: keys, partitions, dependencies, pools and checks."""

import subprocess
import sys

import dagster as dg

from drive_assets.definitions import defs
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, SPLITS

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
        "recording:few_faults",
        "recording:plausible_drive",
        "boxy_detector:finds_vehicles",
        "nuimages_detector:finds_vehicles",
        "annotations:plausible_detections",
        "split_manifest:one_detector",
        "split_manifest:recordings_keep_their_split",
        "split_manifest:manifest_is_current",
        "split_manifest:every_split_has_positives",
    }


def test_sensors_schedules_and_jobs() -> None:
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultScheduleStatus.STOPPED
    assert {sensor.name: sensor.default_status for sensor in defs.sensors or []} == {
        "inbox_sensor": running,
        "sharepoint_sensor": running,
        "automation_sensor": running,
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
