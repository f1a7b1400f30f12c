"""Exports, read by other projects' readers and by our own importers."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory

from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.imports.importing import imported
from model.common.errors import DataError
from model.dataset.windows import WindowConfig
from model.exports.lerobot import write_lerobot
from model.exports.mcap import write_mcap
from model.imports import l2d
from model.imports.logs.reading import read_channels
from model.imports.mapping import ImportMapping, LogMapping
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording
from model.recording.labels import future_labels, write_future_labels

ROWS, BOX = 40, (80, 30, 160, 75, 0.75, 0)


def drive(folder: Path, seed: int) -> Path:
    """A labelled drive of small frames that brighten, with a box in each; frame 12 is damaged, frame 20 is missing."""
    own = Recording(write_drive(folder, ROWS, seed))
    telemetry, _ = own.telemetry()
    write_future_labels(own.labels_path, future_labels(telemetry))
    times = telemetry["Time"].tolist()
    boxes = [np.array([BOX], np.float32)] * ROWS
    write_annotations(own.annotations_path, Annotations.from_frames(times, [f"{time}.jpg" for time in times], boxes))
    own.details_path.write_text(json.dumps({"camera": [], "class_names": ["car"], "roi": [0, 60, 320, 100]}))
    for row, time in enumerate(times):
        cv2.imwrite(str(folder / f"{time}.jpg"), np.full((180, 320, 3), 6 * row, np.uint8))
    (folder / f"{times[12]}.jpg").write_bytes(b"\xff\xd8")
    (folder / f"{times[20]}.jpg").unlink()
    return folder


def test_a_data_set_as_lerobot(tmp_path: Path) -> None:
    splits = {
        "train": [drive(tmp_path / "2024-05-01_10-00-00", 0)],
        "val": [drive(tmp_path / "2024-05-02_10-00-00", 1)],
        "test": [],
    }
    output = tmp_path / "out"
    exported = write_lerobot(output, splits, WindowConfig(), "Europe/Berlin", {"data_version": "v1"})
    assert exported == (6, 2 * (ROWS - 2))
    info = json.loads((output / "meta" / "info.json").read_text())
    assert info["splits"] == {"train": "0:3", "val": "3:6", "test": "6:6"}
    episodes = pd.read_parquet(output / "meta" / "episodes")
    assert episodes["length"].tolist() == [12, 7, 19] * 2
    rows = pd.concat(map(pd.read_parquet, sorted((output / "data").rglob("*.parquet"))), ignore_index=True)
    assert rows["index"].tolist() == list(range(exported[1]))
    for _, part in rows.groupby("episode_index"):
        np.testing.assert_array_equal(part["timestamp"], np.arange(len(part)) / 2)
    corners = np.stack(np.stack(rows["observation.boxes"].to_list())[0])[0]
    np.testing.assert_allclose(corners[:6], [0, 0.75, 0.25, 0.5, 0.5, 0.75], rtol=1e-6)
    statistics = json.loads((output / "meta" / "stats.json").read_text())
    assert statistics["observation.state.vehicle"]["mean"][1] == 2000
    assert np.array(statistics[l2d.CAMERA]["mean"]).shape == (3, 1, 1)
    assert np.mean(statistics[l2d.CAMERA]["max"]) == pytest.approx(39 * 6 / 255, abs=0.02)

    for found, folder in zip(
        imported(l2d.IMPORTER, output, tmp_path / "back"), [*splits["train"], *splits["val"]], strict=True
    ):
        before = pd.read_csv(folder / "telemetry.csv").drop(index=[12, 20])
        assert found.name == folder.name
        times = [time.rstrip("0").ljust(21, "0") for time in found.rows["Time"]]
        kept = before[before["Time"].isin(times)]
        assert len(kept) >= len(before) - 1
        after = found.rows[pd.Index(times).isin(before["Time"])]
        np.testing.assert_allclose(np.array(found.grey)[after.index], kept.index * 6, atol=5)
        np.testing.assert_allclose(after["SPEED"], kept["SPEED"], atol=0.01)
        np.testing.assert_allclose(after["ACCELERATOR_POS_D"], kept["ACCELERATOR_POS_D"], atol=0.01)
    with pytest.raises(DataError, match="exists already: expected a new folder"):
        write_lerobot(output, splits, WindowConfig(), "UTC", {})


def test_a_data_set_without_a_frame_and_a_zone_that_is_none(tmp_path: Path) -> None:
    folder = drive(tmp_path / "2024-05-01_10-00-00", 0)
    with pytest.raises(DataError, match=r"Time zone '\.\./x': expected a name"):
        write_lerobot(tmp_path / "out", {"train": [folder]}, WindowConfig(), "../x", {})
    for path in folder.glob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="None of the frames of 1 recordings can be read"):
        write_lerobot(tmp_path / "out", {"train": [folder]}, WindowConfig(), "UTC", {})
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_recording_as_mcap(tmp_path: Path) -> None:
    folder = drive(tmp_path / "2024-05-01_10-00-00", 0)
    times = pd.read_csv(folder / "telemetry.csv")["Time"]
    predictions = pd.DataFrame({"Time": times, "brake_1s": 0.25, "alarms": "brake_1s"})
    predictions.to_csv(folder / "predictions.csv", index=False)
    output = tmp_path / "out" / "drive.mcap"
    counts = write_mcap(folder, output, "Europe/Berlin")
    assert counts == {
        "/camera": 38,
        **{f"/{name}": ROWS for name in ("camera/boxes", "telemetry", "labels", "predictions")},
    }
    with output.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        messages = [(schema.name, channel.topic, message) for schema, channel, message in reader.iter_messages()]
        assert len(messages) == sum(counts.values())
        first = {topic: (name, message) for name, topic, message in reversed(messages)}
        start = pd.Timestamp("2024-05-01 10:00", tz="Europe/Berlin").value
        assert {message.log_time for _, message in first.values()} == {start}
        assert json.loads(first["/telemetry"][1].data)["BRAKE_SIGNAL"] is False
        assert json.loads(first["/predictions"][1].data) == {"brake_1s": 0.25, "alarms": "brake_1s"}
        assert json.loads(messages[-1][2].data).get("brake_5s", None) is None
        decoded = {
            schema.name: each for schema, _, _, each in reader.iter_decoded_messages(["/camera", "/camera/boxes"])
        }
        box = decoded["foxglove.ImageAnnotations"]
        assert (box.texts[0].text, box.points[0].points[0].y) == ("car 0.75", 90)
        assert decoded["foxglove.CompressedImage"].data == (folder / f"{times.iloc[-1]}.jpg").read_bytes()
    channels = {"SPEED": {"source": "/telemetry SPEED"}, "BRAKE_SIGNAL": {"source": "/telemetry BRAKE_SIGNAL"}}
    mapping = ImportMapping(logs=[LogMapping(path="*.mcap")], channels=channels)
    found = read_channels(output.parent, mapping)
    np.testing.assert_allclose(found["SPEED"].signal.values, pd.read_csv(folder / "telemetry.csv")["SPEED"])
