"""The public interface of the asset graph: keys, partitions, dependencies, pools, checks, jobs and automation."""

import dagster as dg

from drive_assets import definitions
from drive_assets.asset import GROUPS
from drive_assets.definitions import defs
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, SPLITS
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
    "review_queue": (None, {"h5_split"}),
    "review_gain": (None, {"h5_split"}),
    "predictions": (RECORDINGS, {"annotations", "model_comparison"}),
    "car_bundle": (ARCHITECTURE_PARTITIONS, {"evaluation", "boxy_detector"}),
}


def test_a_code_location_finds_one_object() -> None:
    assert [name for name, value in vars(definitions).items() if isinstance(value, dg.Definitions)] == ["defs"]


def test_keys_partitions_and_dependencies() -> None:
    graph = {
        key.to_user_string(): (GRAPH.get(key).partitions_def, {p.to_user_string() for p in GRAPH.get(key).parent_keys})
        for key in GRAPH.get_all_asset_keys()
    }
    assert graph == EXPECTED
    assert len(ARCHITECTURE_PARTITIONS.get_partition_keys()) == 12
    assert "attention_cross_attention_transformer" in ARCHITECTURE_PARTITIONS.get_partition_keys()


def test_gpu_work_is_in_the_pool() -> None:
    pools = {key.to_user_string() for key in GRAPH.get_all_asset_keys() if "gpu" in (GRAPH.get(key).pools or set())}
    assert pools == {
        "boxy_detector",
        "nuimages_detector",
        "annotations",
        "checkpoint",
        "evaluation",
        "review_queue",
        "review_gain",
    }


def test_checks() -> None:
    names = {f"{key.asset_key.to_user_string()}:{key.name}" for key in GRAPH.asset_check_keys}
    assert names == {
        *(f"{name}:is_current" for name in EXPECTED),
        "recording:all_are_taken",
        "recording:none_is_doubtful",
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
        "split_manifest:one_detector",
        "split_manifest:recordings_keep_their_split",
        "split_manifest:every_split_has_positives",
        "h5_split:of_the_manifest",
        "checkpoint:finite_history",
        "checkpoint:learnt_something",
        "checkpoint:no_worse_than_before",
        "evaluation:enough_events",
        "evaluation:calibrated",
        "car_bundle:same_as_torch",
        "car_bundle:of_the_checkpoint",
        "model_comparison:complete",
        "model_comparison:better_than_the_baselines",
    }
    blocking = {key.name for key in GRAPH.asset_check_keys if GRAPH.get_check_spec(key).blocking}
    assert blocking == {
        "finds_vehicles", "fits_telemetry", "no_recording_in_two_splits", "of_the_manifest", "finite_history",
        "same_as_torch",
    }  # fmt: skip


def test_sensors_schedules_and_jobs() -> None:
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    assert {sensor.name: sensor.default_status for sensor in defs.sensors or []} == {
        "inbox_sensor": running,
        "sharepoint_sensor": stopped,
        "automation_sensor": running,
        "status_sensor": running,
        "refresh_training": running,
        "failure_notifications": stopped,
    }
    schedules = {
        name: defs.resolve_schedule_def(name) for name in ("refresh_schedule", "sharepoint_reconciliation_schedule")
    }
    assert {name: schedule.job_name for name, schedule in schedules.items()} == {
        "refresh_schedule": "rebuild_data_set",
        "sharepoint_reconciliation_schedule": "sharepoint_reconciliation",
    }
    assert schedules["refresh_schedule"].default_status == dg.DefaultScheduleStatus.STOPPED
    defs.get_repository_def().load_all_definitions()  # as the UI does, unlike commands


def test_descriptions_code_and_columns_are_shown_in_the_order_of_the_pipeline() -> None:
    for key in GRAPH.get_all_asset_keys():
        (reference,) = GRAPH.get(key).metadata["dagster/code_references"].code_references
        assert reference.label.startswith("drive_assets/") and reference.label.endswith(".py")
        assert "**Stored:** `" in (GRAPH.get(key).description or "")
    order = {key: GROUPS.index(GRAPH.get(key).group_name) for key in GRAPH.get_all_asset_keys()}
    assert all(order[parent] <= order[key] for key in order for parent in GRAPH.get(key).parent_keys)
    stored = GRAPH.get(dg.AssetKey("future_labels")).metadata["stored"]
    assert stored == "recordings/<recording>/future_labels.csv"
    schema = GRAPH.get(dg.AssetKey("future_labels")).metadata["dagster/column_schema"]
    assert {column.name for column in schema.columns} == set(LABEL_COLUMNS)
