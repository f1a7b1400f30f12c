"""The checks of outputs that can be wrong without an error."""

import json
import time
from functools import partial

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from drive_assets.annotation.checks import plausible_detections, steady_detections
from drive_assets.definitions import defs
from drive_assets.labels.checks import fits_telemetry, plausible_rates
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import changed_recordings, check_unchanged
from drive_assets.training.checks import finite_history, learnt_something
from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from model.common.errors import DataError
from model.common.files import write_json
from model.dataset.assignment import SplitConfig
from model.dataset.splits import build_manifest
from model.dataset.windows import WindowConfig
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording
from model.recording.labels import LabelConfig, future_labels, write_future_labels
from model.recording.schema import BINARY_LABELS
from model.training.published import HISTORY, write_history

RESOURCES = dict(defs.resources or {})
NAMES = ["2024-05-01_10-00-00", "2024-05-02_10-00-00"]


def passes(instance: dg.DagsterInstance, asset: str, check: str, tags: dict[str, str] | None = None) -> bool:
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    here = dg.Definitions(
        defs.assets, asset_checks=defs.asset_checks, resources={**RESOURCES, "storage": Storage.from_environment()}
    )
    job = here.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(), asset_check_selection={key})
    partition = (tags or {}).get("dagster/partition")
    # A blocking check that fails is an error of the run.
    result = job.execute_in_process(instance=instance, tags=tags, partition_key=partition, raise_on_error=False)
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
def test_implausible_detection_counts(data_root: object, count: float, expected: bool) -> None:
    storage = Storage.from_environment()
    write_details(storage, [count, 3.0], ["a", "a"])
    check = partial(plausible_detections.evaluate, storage)
    assert check(NAMES[1]).passed
    found = check(NAMES[0])
    assert (found.passed, f"{NAMES[0]}: {count} vehicles a frame" in str(found.description)) == (expected, not expected)


@pytest.mark.parametrize("source", ["raw/boxy", "simulated/boxy", "simulated"])
def test_a_detector_trained_on_simulated_frames_is_doubtful_on_real_ones(data_root: object, source: str) -> None:
    storage = Storage.from_environment()
    write_details(storage, [3.0, 3.0], ["a", "a"])
    for name in NAMES:
        recording = Recording(storage.recording(name))
        recording.details_path.write_text(json.dumps({**recording.details, "trained_on": source}))
    (storage.recording(NAMES[1]) / "true_annotations.csv").write_text("")  # simulated drives have one
    found, simulated = (plausible_detections.evaluate(storage, name) for name in NAMES)
    assert simulated.passed and found.passed == (source == "raw/boxy")
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert ("trained on simulated frames" in str(found.description)) == (source != "raw/boxy")


@pytest.mark.parametrize(("weights", "expected"), [(["a", "a"], True), (["a", "b"], False)])
def test_recordings_annotated_by_two_detectors(data_root: object, weights: list[str], expected: bool) -> None:
    storage = Storage.from_environment()
    write_details(storage, [3.0, 3.0], weights)
    storage.manifest.parent.mkdir(parents=True)
    storage.manifest.write_text(json.dumps({"recordings": {name: {} for name in NAMES}, "fingerprint": "x"}))
    with dg.instance_for_test() as instance:
        assert passes(instance, "split_manifest", "one_detector") == expected


@pytest.mark.parametrize(("map50", "expected"), [(0.6, True), (0.02, False)])
def test_a_detector_that_learnt_nothing(data_root: object, map50: float, expected: bool) -> None:
    with dg.instance_for_test() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("boxy_detector", metadata={"map50": map50}))
        assert passes(instance, "boxy_detector", "finds_vehicles") == expected


def labelled(storage: Storage, name: str, seed: int = 0) -> Recording:
    """A recording with the labels of its telemetry."""
    recording = Recording(write_drive(storage.recording(name), rows=48, seed=seed))
    write_future_labels(recording.labels_path, future_labels(recording.telemetry()[0]))
    return recording


def test_labels_that_contradict_the_telemetry(data_root: object) -> None:
    storage = Storage.from_environment()
    recording = labelled(storage, NAMES[0])
    check = partial(fits_telemetry.evaluate, storage)
    assert check(NAMES[0]).passed
    labels = recording.labels()
    first = labels["brake_2s"].notna().to_numpy().nonzero()[0][5]
    labels.loc[first, "brake_2s"] = not labels.loc[first, "brake_2s"]
    write_future_labels(recording.labels_path, labels)
    found = check(NAMES[0])
    assert not found.passed and found.severity == dg.AssetCheckSeverity.ERROR
    moment = labels["Time"][first]
    assert f"brake_2s: 1 of 48 rows contradict, the first {moment}. Label the recording again" in str(found.description)
    write_future_labels(recording.labels_path, labels[1:])
    assert "47 rows of labels for 48 rows of telemetry" in str(check(NAMES[0]).description)
    config = LabelConfig(coast_threshold=40)
    write_future_labels(recording.labels_path, future_labels(recording.telemetry()[0], config), config)
    assert check(NAMES[0]).passed


def test_label_rates_out_of_bounds(data_root: object) -> None:
    storage = Storage.from_environment()
    labelled(storage, NAMES[0], 0)
    check = partial(plausible_rates.evaluate, storage)
    assert check(NAMES[0]).passed
    own = Recording(storage.recording(NAMES[0]))
    labels = own.labels()
    labels["brake_1s"] = labels["brake_1s"].where(labels["brake_1s"].isna(), True)
    write_future_labels(own.labels_path, labels)
    assert "100% of brake_1s are true, more than 50%" in str(check(NAMES[0]).description)
    labels["brake_1s"], labels["coast_1s"] = pd.NA, pd.NA
    write_future_labels(own.labels_path, labels)
    assert "100% of the labels are unknown" in str(check(NAMES[0]).description)


def test_detections_unlike_preceding_recordings(data_root: object) -> None:
    storage = Storage.from_environment()
    names = [f"2024-05-{day:02}_10-00-00" for day in range(1, 8)]
    for name in names:
        storage.recording(name).mkdir(parents=True)
        odd = name == names[-1]
        details = {
            "weights": "a", "vehicles_per_frame": 0.2 if odd else 3.0,
            "confidence_histogram": [50, 0, 0, 0] if odd else [0, 0, 0, 50],
        }  # fmt: skip
        Recording(storage.recording(name)).details_path.write_text(json.dumps(details))
    check = partial(steady_detections.evaluate, storage)
    assert check(names[5]).passed
    told = str(check(names[6]).description)
    assert "0.20 vehicles a frame, 3.00 in the 6 preceding recordings; mean confidence 0.12, 0.88 in the 6" in told


def manifest_of(storage: Storage, rates: dict[str, float], twice: bool = False, content: str = "") -> None:
    """A manifest of three recordings, 100 windows each, with these rates of all labels."""
    names = {"train": [NAMES[0]], "val": [NAMES[1]], "test": [NAMES[1] if twice else "2024-05-03_10-00-00"]}
    splits = {
        split: {
            "recordings": members, "windows": 100, "share_of_windows": 1 / 3,
            "positives": dict.fromkeys(BINARY_LABELS, round(100 * rates[split])),
            "label_rates": dict.fromkeys(BINARY_LABELS, rates[split]),
        }
        for split, members in names.items()
    }  # fmt: skip
    recordings = {n: {"content": {"telemetry.csv": content or n}} for members in names.values() for n in members}
    wanted = dict.fromkeys(names, 1 / 3)
    storage.manifest.parent.mkdir(parents=True, exist_ok=True)
    storage.manifest.write_text(
        json.dumps({"splits": splits, "recordings": recordings, "split": wanted, "fingerprint": "v2"})
    )


def test_a_drive_in_two_splits_and_unbalanced_splits(data_root: object) -> None:
    storage = Storage.from_environment()
    like = dict.fromkeys(("train", "val", "test"), 0.1)
    with dg.instance_for_test() as instance:
        manifest_of(storage, like)
        assert passes(instance, "split_manifest", "no_recording_in_two_splits")
        assert passes(instance, "split_manifest", "balanced_splits")
        manifest_of(storage, like | {"test": 0.01})
        assert not passes(instance, "split_manifest", "balanced_splits")
        manifest_of(storage, like, twice=True)
        assert not passes(instance, "split_manifest", "no_recording_in_two_splits")
        manifest_of(storage, like, content="the same drive under other names")
        assert not passes(instance, "split_manifest", "no_recording_in_two_splits")


def test_checkpoints_without_finite_losses_or_better_than_chance(data_root: object) -> None:
    storage = Storage.from_environment()
    manifest_of(storage, dict.fromkeys(("train", "val", "test"), 0.1))
    name = "simple_concat_lstm"

    def write(version: str, loss: float | None, reached: float) -> None:
        epoch = {"epoch": 0, "train_loss": 0.5, "val_loss": loss, "val_pr_auc_brake_1s": reached}
        history = {
            "data_version": version,
            "best_epoch": 0,
            "epochs": [epoch],
            "training_config": {"tasks": ["brake_1s"]},
        }
        storage.checkpoint(name).mkdir(parents=True, exist_ok=True)
        write_history(storage.checkpoint(name) / HISTORY, history)

    write("v2", 0.4, 0.3)
    assert finite_history.evaluate(storage, name).passed and learnt_something.evaluate(storage, name).passed
    write("v1", None, 0.05)
    assert "val_loss of epoch 1 is not finite" in str(finite_history.evaluate(storage, name).description)
    assert "brake_1s 0.050, guessing reaches 0.100" in str(learnt_something.evaluate(storage, name).description)


def test_recordings_that_changed_since_the_manifest_are_not_written(data_root: object) -> None:
    storage = Storage.from_environment()
    names = [f"2024-05-0{day}_10-00-00" for day in (1, 2, 3)]
    drives = [labelled_drive(storage.recording(name), seed=seed) for seed, name in enumerate(names)]
    manifest = build_manifest(storage.recordings, names, WindowConfig(), SplitConfig())
    write_json(storage.manifest, manifest)
    (split,) = [name for name, part in manifest["splits"].items() if part["recordings"] == names[:1]]
    check_unchanged(storage, manifest, split)
    reading, labels = drives[0] / "reading.json", drives[0] / "future_labels.csv"
    write_json(reading, {"decimal_mark": "."})
    assert changed_recordings(storage, names) == {names[0]: "reading.json changed"}
    with pytest.raises(DataError, match=r"\(reading.json changed\): materialise split_manifest again"):
        check_unchanged(storage, manifest, split)
    reading.write_text('{"pedal": 1}')
    others = {name: entry for name, entry in manifest["recordings"].items() if name != names[0]}
    skipped = {names[0]: "reading.json is wrong"}
    write_json(storage.manifest, {**manifest, "recordings": others, "skipped": skipped})
    assert changed_recordings(storage, names) == {}
    time.sleep(0.05)  # times of files are as coarse as 10 ms
    reading.unlink()
    assert changed_recordings(storage, names) == {names[0]: "changed since it was skipped"}
    labels.unlink()
    with pytest.raises(DataError, match=r"\(future_labels.csv is gone\)"):
        check_unchanged(storage, manifest, split)
