import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drive_assets_tests.drives import write_drive
from model.common.errors import DataError
from model.common.files import write_json
from model.dataset.assignment import RecordingStats, SplitConfig, assign_splits
from model.dataset.split_file import read_split, write_split
from model.dataset.splits import build_manifest, grouped
from model.dataset.window_data import WindowData
from model.dataset.windows import RecordingArrays, WindowConfig, join_recording, window_starts
from model.recording import schema
from model.recording.annotations import Annotations, read_annotations, write_annotations
from model.recording.content import FRAME_HASHES, content_hash, file_hashes
from model.recording.folder import Recording, inspect_recording, parse_recording_name
from model.recording.labels import LabelConfig, brake_source, future_labels, write_future_labels
from model.recording.telemetry import read_telemetry
from model.training.checkpoint import load_checkpoint
from model.training.loop import train
from model.training.recipes import TrainingConfig


def labelled_drive(folder: Path, rows: int = 60, seed: int = 0, leave_out: tuple[int, ...] = ()) -> Path:
    """A drive with labels, and annotations for all frames but those left out: frame i has i % 15 boxes."""
    write_drive(folder, rows, seed)
    table, _ = read_telemetry(folder / "telemetry.csv")
    write_future_labels(folder / "future_labels.csv", future_labels(table))
    kept = [i for i in range(len(table)) if i not in leave_out]
    boxes = [np.tile(np.array([[10, 20, 110, 70, 0.5, 0]], np.float32), (i % 15, 1)) for i in kept]
    for detections in boxes:
        detections[:, 4] = np.linspace(0.3, 0.9, len(detections))
    times = [str(table["Time"].iloc[i]) for i in kept]
    write_annotations(folder / "annotations.csv", Annotations.from_frames(times, [f"{t}.jpg" for t in times], boxes))
    write_json(folder / "annotations.json", {"camera": []})  # so that no frame is read
    return folder


def labelled_drives(folder: Path, count: int) -> list[str]:
    """The names of different labelled drives in a folder."""
    return [labelled_drive(folder / f"2024-05-0{n}_10-00-00", seed=n).name for n in range(1, count + 1)]


def manifest_of(folder: Path, names: list[str], **split: Any) -> dict[str, Any]:
    return build_manifest(folder, names, WindowConfig(stride=1), SplitConfig(**split))


def joined(drive: Path, **config: Any) -> RecordingArrays:
    return join_recording(Recording(drive), WindowConfig(**config))


steps = st.lists(st.sampled_from([400, 500, 600, 601, 602, 1000, 9000]), min_size=0, max_size=80)


@given(steps, st.integers(1, 7), st.integers(1, 12), st.randoms())
def test_no_window_crosses_a_gap_or_ends_unlabelled(gaps: list[int], stride: int, length: int, random: object) -> None:
    time_ms = np.cumsum([0, *gaps]).astype(np.int64)
    labelled = np.array([random.random() < 0.7 for _ in time_ms])  # type: ignore[attr-defined]
    config = WindowConfig(length=length, stride=stride)
    starts = window_starts(time_ms, labelled, config)
    for start in starts:
        frames = time_ms[start : start + length]
        assert len(frames) == length
        assert (np.diff(frames) <= 601).all()
        assert labelled[start + length - 1]
    everywhere = window_starts(time_ms, labelled, WindowConfig(length=length, stride=1))
    possible = [
        i
        for i in range(len(time_ms) - length + 1)
        if (np.diff(time_ms[i : i + length]) <= 601).all() and labelled[i + length - 1]
    ]
    assert everywhere.tolist() == possible
    assert set(starts.tolist()) <= set(possible)


def test_frames_that_were_not_annotated_break_windows(tmp_path: Path) -> None:
    whole = joined(labelled_drive(tmp_path / "2024-05-01_10-00-00"), stride=1)
    cut = joined(labelled_drive(tmp_path / "2024-05-02_10-00-00", leave_out=(25,)), stride=1)
    assert len(whole.window_start) == 60 - 19 - 10  # the last five seconds have unknown labels
    assert (len(whole.time_ms), len(cut.time_ms)) == (60, 59)
    # Windows within frames 0..24 and 26..49 only.
    assert cut.window_start.tolist() == [*range(6), *range(25, 30)]


def test_the_most_confident_detections_are_kept_and_masked(tmp_path: Path) -> None:
    arrays = joined(labelled_drive(tmp_path / "2024-05-01_10-00-00"))
    assert arrays.detection_mask.sum(axis=1).tolist() == [min(i % 15, 12) for i in range(60)]
    assert arrays.detections[14, 0].tolist() == pytest.approx([0, 0.9, 10, 20, 110, 70, 5000])
    assert not arrays.detections[~arrays.detection_mask].any()


def test_a_split_file_reads_back(tmp_path: Path) -> None:
    drives = [tmp_path / name for name in labelled_drives(tmp_path, 2)]
    write_split(tmp_path / "train.h5", drives, WindowConfig(stride=1), "abc")
    split = read_split(tmp_path / "train.h5")
    assert (split.recordings, split.fingerprint) == ((drives[0].name, drives[1].name), "abc")
    assert split.recording.tolist() == [0] * 60 + [1] * 60
    last = split.window_start + split.window.length - 1
    assert (split.recording[split.window_start] == split.recording[last]).all()
    assert (split.labels[last] >= 0).all()
    assert (split.labels[last, 0] == 1).any()
    with pytest.raises(DataError, match=r"train\.h5 holds data version abc, expected abd: .* start again"):
        WindowData.load(tmp_path / "train.h5", expected_fingerprint="abd")
    assert WindowData.load(tmp_path / "train.h5", expected_fingerprint="abc").coast_threshold == 7.5
    (tmp_path / "train.h5").rename(tmp_path / "test.h5")
    with pytest.raises(DataError, match=r"test\.h5 holds the split train: expected test; build the splits again"):
        read_split(tmp_path / "test.h5")


def test_the_coasting_threshold_of_the_labels_reaches_the_split(tmp_path: Path) -> None:
    drives = [tmp_path / name for name in labelled_drives(tmp_path, 2)]
    config = LabelConfig(coast_threshold=40)
    table, _ = read_telemetry(drives[0] / "telemetry.csv")
    write_future_labels(drives[0] / "future_labels.csv", future_labels(table, config), config)
    write_split(tmp_path / "train.h5", drives[:1], WindowConfig())
    split = read_split(tmp_path / "train.h5")
    assert split.coast_threshold == 40 and split.state[:, 1].all()
    with pytest.raises(DataError, match=r"different coasting thresholds \(40.0: .*; 7.5: .*label all with the same"):
        write_split(tmp_path / "train.h5", drives, WindowConfig())


def stats(name: str, windows: int, positives: int) -> RecordingStats:
    labels = [f"{action}_{h}s" for action in ("brake", "coast") for h in range(1, 6)]
    return RecordingStats(name, windows, windows, dict.fromkeys(labels, positives), {}, (1920, 575))


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 300)), min_size=3, max_size=14))
def test_no_recording_is_in_two_splits(amounts: list[tuple[int, int]]) -> None:
    every = [stats(f"r{i:02}", w, p) for i, (w, p) in enumerate(amounts)]
    assigned = assign_splits(every, SplitConfig())
    assert sorted(name for names in assigned.values() for name in names) == [s.name for s in every]
    assert all(assigned.values())
    assert assigned == assign_splits(every[::-1], SplitConfig())


@pytest.mark.parametrize("tens", [1, 10, 100])  # of which some are placed without swaps
def test_equal_recordings_come_close_to_the_shares(tens: int) -> None:
    assigned = assign_splits([stats(f"r{i:05}", 100, 5) for i in range(40 * tens)], SplitConfig())
    assert {name: len(names) // tens for name, names in assigned.items()} == {"train": 30, "val": 6, "test": 4}


def test_fixed_recordings_stay_and_too_few_are_refused() -> None:
    every = [stats(f"r{i}", 100 * (i + 1), 5) for i in range(4)]
    assert assign_splits(every, SplitConfig(fixed={"r3": "test"}))["test"] == ["r3"]
    with pytest.raises(DataError, match="2 recording\\(s\\) with windows are too few: expected at least 3"):
        assign_splits(every[:2], SplitConfig())


def test_recordings_of_one_drive_are_in_one_split() -> None:
    every = [replace(stats(f"r{i}", 100 * (i + 1), 5), drive=f"route {i % 4}") for i in range(12)]
    for config in (SplitConfig(), SplitConfig(fixed={"r4": "test"})):
        assigned = assign_splits(every, config)
        assert all({f"r{int(name[1:]) % 4 + 4}" in names for name in names} == {True} for names in assigned.values())
    assert {"r0", "r4", "r8"} <= {*assigned["test"]}
    with pytest.raises(DataError, match=r"r1, r5, r9 are recordings of one drive.*keep, the splits test, train: fix"):
        assign_splits(every, SplitConfig(fixed={"r1": "test", "r9": "train"}))
    with pytest.raises(DataError, match=r"2 recording.*those of one drive count as one"):
        assign_splits([each for each in every if each.drive < "route 2"], SplitConfig())


def test_the_manifest_skips_with_reasons_and_changes_with_its_inputs(tmp_path: Path) -> None:
    names = [*labelled_drives(tmp_path, 4), write_drive(tmp_path / "2024-05-09_10-00-00").name]
    manifest = manifest_of(tmp_path, names)
    assert list(manifest["skipped"]) == ["2024-05-09_10-00-00"]
    assert "annotate the recording first" in manifest["skipped"]["2024-05-09_10-00-00"]
    assert manifest["splits"]["train"]["windows"] > 0
    versions = [manifest["fingerprint"], build_manifest(tmp_path, names, WindowConfig(), SplitConfig())["fingerprint"]]
    assert manifest_of(tmp_path, names[::-1])["fingerprint"] == versions[0]
    write_json(tmp_path / names[0] / "reading.json", {"decimal_mark": "."})
    versions.append(manifest_of(tmp_path, names)["fingerprint"])
    assert len(set(versions)) == 3


def test_recordings_report_damage_and_refuse_what_is_none(tmp_path: Path) -> None:
    drive = write_drive(tmp_path / "2024-05-01_10-00-00", rows=8)
    frames = sorted(drive.glob("*.jpg"))
    frames[0].write_bytes(frames[0].read_bytes()[:-500])
    frames[1].unlink()
    frames[2].rename(drive / "2024-05-01 11-00-00-0.jpg")
    report = inspect_recording(drive)
    assert (report.frames, report.usable_frames, report.truncated_frames) == (7, 5, 1)
    assert (report.rows_without_frame, report.frames_without_row) == (2, 1)
    assert content_hash(drive) != content_hash(write_drive(tmp_path / "2024-05-02_10-00-00", rows=8))
    for frame in drive.glob("*.jpg"):
        frame.unlink()
    with pytest.raises(DataError, match="no usable frame"):
        inspect_recording(drive)


@pytest.mark.parametrize("name", ["2024-13-01_10-00-00", "drive", "../2024-05-01_10-00-00", "2024-05-01 10-00-00"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="YYYY-MM-DD_HH-MM-SS"):
        parse_recording_name(name)


def scaled(folder: Path, factor: float, region: list[int]) -> Path:
    """The drive of `labelled_drive` as a camera of another size records it."""
    path = labelled_drive(folder) / "annotations.csv"
    annotations = read_annotations(path)
    boxes = [annotations.frame(i) * np.array([factor] * 4 + [1, 1], np.float32) for i in range(len(annotations))]
    write_annotations(path, Annotations.from_frames(annotations.time, annotations.filename, boxes))
    (folder / "annotations.json").write_text(json.dumps({"roi": region}))
    return folder


def test_a_camera_of_half_the_size_gives_the_same_features(tmp_path: Path) -> None:
    name = "2024-05-01_10-00-00"
    drives = [
        scaled(tmp_path / "full" / name, 1, [0, 320, 1920, 575]),
        scaled(tmp_path / "half" / name, 0.5, [0, 160, 960, 288]),
        labelled_drive(tmp_path / "elsewhere" / name),  # annotated by another tool: the default region
    ]
    features = []
    for drive in drives:
        write_split(drive / "val.h5", [drive], WindowConfig())
        features.append(WindowData.load(drive / "val.h5"))
    full, half, elsewhere = features
    assert full.detections.max() > 0.15
    torch.testing.assert_close(half.detections, full.detections, atol=0.005, rtol=0)
    assert torch.equal(elsewhere.detections, full.detections)
    assert read_split(drives[1] / "val.h5").region.tolist() == [[960, 288]]


def without(folder: Path, *columns: str, seed: int = 0) -> Path:
    """A labelled drive whose telemetry has no such columns."""
    drive = labelled_drive(folder, seed=seed)
    table = pd.read_csv(drive / "telemetry.csv", dtype=str).drop(columns=list(columns))
    table.to_csv(drive / "telemetry.csv", index=False)
    table, _ = Recording(drive).telemetry()
    write_future_labels(drive / "future_labels.csv", future_labels(table), brake=brake_source(table))
    return drive


def test_missing_channels_are_no_inputs(tmp_path: Path) -> None:
    drive = without(tmp_path / "2024-05-01_10-00-00", "RPM", "ENGINE_LOAD", "BRAKE_FORCE")
    write_split(tmp_path / "val.h5", [drive], WindowConfig())
    split, data = read_split(tmp_path / "val.h5"), WindowData.load(tmp_path / "val.h5")
    assert split.feature_names == data.inputs == ("SPEED", "ACCELERATOR_POS_D", "GEAR")
    assert (split.telemetry.shape, data.telemetry_dim) == ((60, 3), 8)
    assert np.isnan(split.targets[:, :5]).all() and np.isfinite(split.targets[:40, 5:]).all()
    with pytest.raises(DataError, match="has no column RPM, which the option inputs names"):
        joined(drive, inputs=["SPEED", "RPM"])
    with pytest.raises(DataError, match="inputs BRAKE_SIGNAL: expected distinct channels of SPEED"):
        WindowConfig(inputs=["BRAKE_SIGNAL"])


def test_one_recording_without_a_channel_is_skipped(tmp_path: Path) -> None:
    names = labelled_drives(tmp_path, 3)
    odd = without(tmp_path / "2024-06-01_10-00-00", "RPM", seed=4).name
    manifest = build_manifest(tmp_path, [*names, odd], WindowConfig(), SplitConfig())
    assert sorted(manifest["recordings"]) == names
    assert manifest["skipped"][odd].startswith("it has no RPM, unlike most recordings")


def test_recordings_of_different_channels_need_a_choice(tmp_path: Path) -> None:
    names = labelled_drives(tmp_path, 2)
    names += [without(tmp_path / f"2024-06-0{n}_10-00-00", "RPM", seed=n + 3).name for n in (1, 2)]
    with pytest.raises(DataError, match=r"different telemetry channels .*: 2024-06-01_10-00-00") as caught:
        build_manifest(tmp_path, names, WindowConfig(), SplitConfig())
    assert "['SPEED', 'ACCELERATOR_POS_D', 'ENGINE_LOAD', 'GEAR']" in str(caught.value)
    manifest = build_manifest(tmp_path, names, WindowConfig(inputs=["GEAR", "SPEED"]), SplitConfig())
    assert (manifest["features"], sorted(manifest["recordings"])) == (["SPEED", "GEAR"], names)


def imported(folder: Path, drivetrain: str, *columns: str, seed: int) -> str:
    """The name of a labelled drive that was imported, without some columns."""
    folder.mkdir()
    write_json(folder / "origin.json", {"kind": "tesla", "drivetrain": drivetrain, "licence": "MIT"})
    return without(folder, *columns, seed=seed).name


def test_drivetrains_and_derived_brake_labels_are_not_mixed_unless_asked(tmp_path: Path) -> None:
    names = labelled_drives(tmp_path, 3)
    electric = [imported(tmp_path / f"2024-06-0{n}_10-00-00", "electric", seed=n) for n in (4, 5)]
    manifest = manifest_of(tmp_path, [*names, *electric])
    assert [*manifest["recordings"]] == names
    assert grouped(manifest["skipped"]) == [
        f"{electric[0]}, {electric[1]}: drivetrain electric, unlike most recordings (not declared). To use both, set "
        "the option mix_drivetrains of split; to correct it, the option drivetrain of recording"
    ]
    mixed = manifest_of(tmp_path, [*names, *electric], mix_drivetrains=True)
    assert [*mixed["recordings"]] == [*names, *electric]
    assert [(each["kind"], each["drivetrain"], each["licence"], each["recordings"]) for each in mixed["sources"]] == [
        ("recorded", "not declared", "", 3),
        ("tesla", "electric", "MIT", 2),
    ]
    derived = imported(tmp_path / "2024-06-06_10-00-00", "combustion", "BRAKE_SIGNAL", seed=6)
    assert json.loads((tmp_path / derived / "future_labels.json").read_text())["brake_labels"] == "derived"
    skipped = manifest_of(tmp_path, [*names, derived], mix_drivetrains=True)["skipped"]
    assert skipped[derived].startswith("brake labels derived from deceleration, unlike those of others")
    used = manifest_of(tmp_path, [*names, derived], mix_drivetrains=True, mix_derived_brake=True)
    assert [each["brake_labels"] for each in used["sources"]] == ["measured", "derived"]


def test_a_changed_schema_changes_the_manifest_and_refuses_splits_and_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = labelled_drives(tmp_path, 3)
    drives = [tmp_path / name for name in names]
    before = build_manifest(tmp_path, names, WindowConfig(), SplitConfig())
    write_split(tmp_path / "train.h5", drives[:2], WindowConfig())
    write_split(tmp_path / "val.h5", drives[2:], WindowConfig())
    config = TrainingConfig(epochs=1, batch_size=8)
    result = train("simple_concat_lstm", tmp_path, tmp_path / "out", config)
    assert load_checkpoint(result.best_model)[1]["scaling"]["SPEED"] == [0.0, 150.0]

    monkeypatch.setitem(schema.CHANNELS, "SPEED", replace(schema.CHANNELS["SPEED"], scaling=(0.0, 200.0)))
    assert build_manifest(tmp_path, names, WindowConfig(), SplitConfig())["fingerprint"] != before["fingerprint"]
    with pytest.raises(DataError, match=r"train\.h5 was made with other channels, scaling .* build the splits again"):
        read_split(tmp_path / "train.h5")
    with pytest.raises(DataError, match=r"best_model\.pt was made with other channels, scaling .* train again"):
        load_checkpoint(result.best_model)


def test_recordings_keep_their_split_unless_asked(tmp_path: Path) -> None:
    names, window = labelled_drives(tmp_path, 6), WindowConfig(stride=1)
    first = manifest_of(tmp_path, names[:5])
    before = {name: place for place, part in first["splits"].items() for name in part["recordings"]}
    lost = first["splits"]["train"]["recordings"][0]
    shutil.rmtree(tmp_path / lost)
    second = build_manifest(tmp_path, names, window, SplitConfig(), first)
    after = {name: place for place, part in second["splits"].items() for name in part["recordings"]}
    assert {name: after[name] for name in before if name != lost} == {n: s for n, s in before.items() if n != lost}
    assert names[5] in after and second["moved"] == {}
    assert second["no_longer_used"] == second["skipped"] == {lost: f"{tmp_path / lost} is gone"}

    tested = first["splits"]["test"]["recordings"][0]
    trained = next(name for name in before if before[name] == "train" and name != lost)
    fixed = SplitConfig(fixed={trained: "test", tested: "train"})
    moved = build_manifest(tmp_path, names, window, fixed, second)["moved"]
    assert moved == {trained: ["train", "test"], tested: ["test", "train"]}
    shuffled = build_manifest(tmp_path, names, window, SplitConfig(reshuffle=True), second)
    assert shuffled["splits"] == manifest_of(tmp_path, names)["splits"]


def test_implausible_drives_stay_out_unless_accepted(tmp_path: Path) -> None:
    names = labelled_drives(tmp_path, 6)
    restless, blind, still = (Recording(tmp_path / name) for name in names[3:])
    text = restless.telemetry_path.read_text()
    restless.telemetry_path.write_text(text.replace(",0.0,40,", ",14.1,40,"))
    write_future_labels(restless.labels_path, future_labels(restless.telemetry()[0]))
    black = cv2.imencode(".jpg", np.zeros((36, 64, 3), np.uint8))[1].tobytes()
    for path in blind.frames().values():
        path.write_bytes(black)
    blind.details_path.unlink()
    camera = [{"kind": "still", "text": "20 of 24 frames are the one before", "poisons": True}]
    write_json(still.details_path, {"camera": camera})
    skipped = manifest_of(tmp_path, names)["skipped"]
    reasons = ("the lowest accelerator position is 14.1 %", "24 of 24 sampled frames are black", camera[0]["text"])
    assert all(f"implausible: {reason}" in skipped[name] for name, reason in zip(names[3:], reasons, strict=True))
    accepted = manifest_of(tmp_path, names, accept_implausible=names[3:])
    assert list(accepted["accepted"]) == names[3:] and names[3] in accepted["recordings"]


def test_a_changed_region_is_reported(tmp_path: Path) -> None:
    drive = scaled(tmp_path / "2024-05-01_10-00-00", 1, [0, 320, 1920, 575])
    (drive / "roi.json").write_text(json.dumps({"x": 0, "y": 240, "width": 1920, "height": 575}))
    with pytest.raises(DataError, match=r"roi\.json says .*y=240.* annotate again"):
        joined(drive)


def test_changes_after_labelling_or_annotating_are_reported(tmp_path: Path) -> None:
    drive = labelled_drive(tmp_path / "2024-05-01_10-00-00")
    own, frames = Recording(drive), list(Recording(drive).frames().values())
    write_json(own.details_path, {FRAME_HASHES: file_hashes(frames)})
    joined(drive)
    content = bytearray(frames[3].read_bytes())
    content[-5] ^= 1  # a frame of equal size
    frames[3].write_bytes(content)
    with pytest.raises(DataError, match=r"1 frames changed after they were annotated, as .*: annotate again"):
        joined(drive)
    content[-5] ^= 1
    frames[3].write_bytes(content)
    joined(drive)
    telemetry = own.telemetry_path.read_text()
    own.telemetry_path.write_text(telemetry.replace(",0.0,40,", ",5.0,40,"))  # the same times
    with pytest.raises(
        DataError, match=r"future_labels\.csv, acc_pos_1s: .* contradict, .*: label the recording again"
    ):
        joined(drive)
