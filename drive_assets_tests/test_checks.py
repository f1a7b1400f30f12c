"""The checks of what may be wrong without an error, run as Dagster runs them."""

import json

import dagster as dg
import numpy as np
import pytest

from drive_assets.annotation.checks import plausible_detections
from drive_assets.definitions import defs
from drive_assets.resources.storage import Storage
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording

RESOURCES = dict(defs.resources or {})
NAMES = ["2024-05-01_10-00-00", "2024-05-02_10-00-00"]


def passes(instance: dg.DagsterInstance, asset: str, check: str, tags: dict[str, str] | None = None) -> bool:
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    here = dg.Definitions(
        defs.assets, asset_checks=defs.asset_checks, resources={**RESOURCES, "storage": Storage.from_environment()}
    )
    job = here.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(), asset_check_selection={key})
    result = job.execute_in_process(instance=instance, tags=tags, partition_key=(tags or {}).get("dagster/partition"))
    (event,) = [event for event in result.all_events if event.event_type_value == "ASSET_CHECK_EVALUATION"]
    evaluation = event.asset_check_evaluation_data
    assert evaluation.passed == (evaluation.description == "")
    return evaluation.passed


def write_details(storage: Storage, vehicles: list[float], weights: list[str]) -> None:
    for name, count, file in zip(NAMES, vehicles, weights, strict=True):
        storage.recording(name).mkdir(parents=True, exist_ok=True)
        box = np.tile(np.array([100, 300, 200, 400, 0.9, 0], np.float32), (int(count), 1))
        recording = Recording(storage.recording(name))
        write_annotations(recording.annotations_path, Annotations.from_frames(["t"], ["t.jpg"], [box]))
        details = {"vehicles_per_frame": count, "weights": file}
        (storage.recording(name) / "annotations.json").write_text(json.dumps(details))


@pytest.mark.parametrize(("count", "expected"), [(3.0, True), (300.0, False), (0.0, False)])
def test_implausible_counts_are_told(data_root: object, count: float, expected: bool) -> None:
    storage = Storage.from_environment()
    write_details(storage, [count, 3.0], ["a", "a"])
    check = plausible_detections(storage)
    assert check.result(NAMES[1]).passed
    found = check.result(NAMES[0])
    assert (found.passed, f"{NAMES[0]}: {count} vehicles a frame" in str(found.description)) == (expected, not expected)


@pytest.mark.parametrize(("weights", "expected"), [(["a", "a"], True), (["a", "b"], False)])
def test_recordings_of_two_detectors_are_told(data_root: object, weights: list[str], expected: bool) -> None:
    storage = Storage.from_environment()
    write_details(storage, [3.0, 3.0], weights)
    storage.manifest.parent.mkdir(parents=True)
    storage.manifest.write_text(json.dumps({"recordings": {name: {} for name in NAMES}, "fingerprint": "x"}))
    with dg.instance_for_test() as instance:
        assert passes(instance, "split_manifest", "one_detector") == expected


@pytest.mark.parametrize(("map50", "expected"), [(0.6, True), (0.02, False)])
def test_a_detector_that_learnt_nothing_is_told(data_root: object, map50: float, expected: bool) -> None:
    with dg.instance_for_test() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("boxy_detector", metadata={"map50": map50}))
        assert passes(instance, "boxy_detector", "finds_vehicles") == expected
