"""A bundle runs by itself, in the car's ways: replayed, beside a recorder, with a camera, and on bad days."""

import csv
import errno
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drive_assets.car.checks import of_the_checkpoint, same_as_torch
from drive_assets.evaluation.comparison import _bundle_times
from drive_assets.recordings.ingest import ingest
from drive_assets.recordings.local import find_all
from drive_assets.reports.car import bundle_page
from drive_assets.reports.page import html
from drive_assets.resources.storage import Storage
from drive_assets_tests.car.conftest import ARCHITECTURE
from drive_assets_tests.car.data import BUDGET
from drive_assets_tests.waiting import until
from model.bundle.config import BundleConfig
from model.bundle.export import make_bundle
from model.bundle.runtime.__main__ import main
from model.bundle.runtime.bundle import Bundle
from model.bundle.runtime.check import check
from model.bundle.runtime.errors import BundleError
from model.bundle.runtime.shadow import SHADOW, WAITING, Lines, Writer, shadow_columns
from model.bundle.runtime.sources import Camera
from model.common.errors import DataError
from model.detection.detector import BUNDLED
from model.recording.folder import TELEMETRY, Recording, inspect_recording

GUARDED = """
import sys
from drive_alarms.__main__ import main
ended = main(sys.argv[1:])
foreign = {"torch", "model", "drive_assets", "pandas", "cv2", "ultralytics"} & {*sys.modules}
assert not foreign, foreign
sys.exit(ended)
"""
"""The package as a car runs it, and what it may not import."""


def run(bundle: Bundle, *arguments: object) -> tuple[list[dict], dict, int]:
    """The package in a process of its own: its lines of JSON, the counts that it reports, and its status."""
    command = [sys.executable, "-c", GUARDED, *map(str, arguments)]
    ended = subprocess.run(command, cwd=bundle.folder, capture_output=True, text=True)
    assert "Traceback" not in ended.stderr, ended.stderr
    last = ended.stderr.splitlines()[-1] if ended.stderr else "{}"
    counts = json.loads(last) if last.startswith("{") else {"error": last}
    return [json.loads(line) for line in ended.stdout.splitlines()], counts, ended.returncode


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_package_gives_what_torch_gave(bundle: Bundle) -> None:
    (measured,), _, status = run(bundle, "check")
    assert status == 0 and measured["network"] <= 1e-4 and measured["windows"] >= 20
    assert (bundle.folder / "requirements.txt").read_text().split() == ["numpy", "onnxruntime", "pillow"]


def test_a_replay_logs_each_frame_and_its_clips_are_recordings(bundle: Bundle, drives: Path, tmp_path: Path) -> None:
    drive = drives / "2024-05-03_10-00-00"
    options = ("--shadow", tmp_path, "--clips", tmp_path / "clips", "--alarms", tmp_path / "alarms.jsonl")
    alarms, counts, status = run(bundle, "replay", drive, *options)
    rows = rows_of(tmp_path / SHADOW)
    assert status == 0 and counts["rows"] == len(rows) == 48
    assert list(rows[0]) == shadow_columns(bundle)
    assert rows[4]["SUPPRESSED"] == "5 of 6 frames after start" and not rows[4]["P_brake_1s"]
    assert float(rows[5]["P_brake_1s"]) > 0 and len(json.loads(rows[5]["BOXES"])) >= 1
    assert {row["BUNDLE"] for row in rows} == {bundle.identity[:12]}
    assert [row["EVENT"].split()[0] for row in rows if row["EVENT"]] == ["braking"] * 2
    begun = [(row["Time"], task) for row in rows for task in row["ALARM"].split()]
    suppressed = sum(row["SUPPRESSED"].count("under way") for row in rows)
    assert len(alarms) == len(begun) - suppressed > 0
    assert [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()] == alarms
    clips = sorted((tmp_path / "clips").iterdir())
    assert len(clips) == counts["clips"] >= 1
    report = inspect_recording(clips[0])
    assert report.usable_frames == report.telemetry.valid > 5 and Recording(clips[0]).region() == (0, 320, 1920, 575)
    storage = Storage(data_root=str(tmp_path / "data"), inbox_root="")
    for source in find_all([tmp_path / "clips"])[0]:
        ingest(storage, source)
    assert [name for name in storage.recording_names() if name[0] != "."] == [clip.name for clip in clips]
    assert len(rows_of(storage.recording(clips[0].name) / SHADOW)) == report.telemetry.rows


def test_beside_a_recorder(bundle: Bundle, drives: Path, tmp_path: Path) -> None:
    """Frames that come late, never or damaged, rows that come twice, and a clock that is set back."""
    source, drive = drives / "2024-05-03_10-00-00", tmp_path / "2024-05-03_10-00-00"
    header, *lines = (source / TELEMETRY).read_text().splitlines()
    frames = {line.split(",")[0]: (source / f"{line.split(',')[0]}.jpg").read_bytes() for line in lines}
    drive.mkdir()
    watched = [*lines[:16], lines[15], lines[3], *lines[24:27]]

    def record() -> None:
        with (drive / TELEMETRY).open("w") as stream:
            stream.write(header + "\n")
            for number, line in enumerate(watched):
                time, path = line.split(",")[0], drive / f"{line.split(',')[0]}.jpg"
                late = threading.Timer(0.2 if number == 3 else 0.0, path.write_bytes, [frames[time]])
                if number == 9:
                    path.write_bytes(frames[time][:2000])
                elif number != 8:
                    late.start()
                stream.write(line + "\n")
                stream.flush()
                threading.Event().wait(0.06)

    recorder = threading.Thread(target=record)
    recorder.start()
    _, counts, status = run(bundle, "watch", drive, "--shadow", drive, "--idle", 3)
    recorder.join()
    assert status == 0
    assert counts["repeated"] == 1 and counts["no frame"] == 2  # one never came, one never became whole
    assert counts["window restarted: clock set back"] == 1 and counts["window restarted: gap"] == 2
    rows = rows_of(drive / SHADOW)
    assert len(rows) == len(watched) - 1 and all(float(row["TELEMETRY_AGE_S"]) >= 0 for row in rows)
    assert [bool(row["P_brake_1s"]) for row in rows[:16]] == [False] * 5 + [True] * 3 + [False] * 7 + [True]


def test_a_camera_that_stops_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = tmp_path / "frame.jpg"
    Image.new("RGB", (64, 48)).save(frame)
    (tmp_path / "ffmpeg").write_text(f'#!/bin/sh\ncat "{frame}" "{frame}"\nsleep 0.3\n')
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("model.bundle.runtime.sources.RESTART_S", 0.05)
    camera = Camera("-f v4l2 -i /dev/video0")
    until(lambda: camera.restarts >= 1 and camera("any") is not None, "a picture after a restart")
    picture = camera("any")
    camera.close()
    assert picture is not None and picture.content == frame.read_bytes() and picture.age_s is not None
    until(lambda: camera("any") is None, "the last picture is too old")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(BundleError, match="ffmpeg cannot be started"):
        Camera("")


def test_a_disk_that_is_full_or_slow_never_stops_the_alarms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, release = Writer(), threading.Event()
    writer.put(lambda: assert_true(release.wait(60)))
    for _ in range(2 * WAITING):
        writer.put(lambda: None)  # returns at once
    assert writer.dropped >= WAITING - 1
    release.set()

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    until(writer._work.empty, "the work is done")
    writer.put(full)
    writer.put(full)
    writer.close()
    assert writer.failed == 2 and capsys.readouterr().err.count("No space left") == 1
    lines = Lines(tmp_path / "log.csv", "a,b\n")
    lines.append("1,2")
    with lines.path.open("a") as stream:
        stream.write("3,")  # cut short
    lines.append("5,6")
    assert lines.path.read_text() == "a,b\n1,2\n3,\n5,6\n"


def assert_true(condition: bool) -> None:
    assert condition


def damaged(folder: Path) -> None:
    (folder / "network.onnx").write_bytes(b"no network")


def of_another_format(folder: Path) -> None:
    described = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(described | {"format": 99}))


def without_description(folder: Path) -> None:
    (folder / "bundle.json").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "is not the file that .* describes: copy the bundle again"),
        (of_another_format, "has format 99, expected 1"),
        (without_description, "holds no complete bundle"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused(
    change: Callable[[Path], None], message: str, bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    change(tmp_path / "bundle")
    with pytest.raises(BundleError, match=message):
        Bundle.read(tmp_path / "bundle")


def test_drives_of_another_camera_or_car_are_refused(
    bundle: Bundle, drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = tmp_path / "2024-05-03_10-00-00"
    shutil.copytree(bundle.folder / "golden", drive)
    for path in drive.glob("*.jpg"):
        Image.new("RGB", (640, 480)).save(path)
    assert main(["--bundle", str(bundle.folder), "replay", str(drive)]) == 0
    assert json.loads(capsys.readouterr().err)["a frame of 640x480 px"] == 26
    (drive / "roi.json").write_text('{"x": 0, "y": 0, "width": 640, "height": 480}')
    assert main(["--bundle", str(bundle.folder), "replay", str(drive)]) == 1
    assert "expected one of 1920x575 px within 1920x1080" in capsys.readouterr().err
    (drive / "roi.json").unlink()
    (drive / TELEMETRY).write_text("Time,SPEED\n")
    assert main(["--bundle", str(bundle.folder), "replay", str(drive)]) == 1
    assert "has no column RPM" in capsys.readouterr().err
    assert main(["--bundle", str(bundle.folder), "replay", str(tmp_path / "nowhere")]) == 1
    assert "nowhere/telemetry.csv cannot be read" in capsys.readouterr().err


def test_other_boxes_or_alarms_than_expected_are_found(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bundle.expected()
    monkeypatch.setattr(Bundle, "expected", lambda self: {**expected, "alarms": []})
    with pytest.raises(BundleError, match=r"has the alarms .*, expected \[\]"):
        check(bundle)
    shifted = {time: (np.array(found) + 5).tolist() for time, found in expected["boxes"].items()}
    monkeypatch.setattr(Bundle, "expected", lambda self: {**expected, "boxes": shifted})
    assert [problem.split()[0] for problem in check(bundle).problems(bundle.limits)] == [
        "network",
        "box_px",
        "confidence",
    ]


def test_parts_that_do_not_belong_together_make_no_bundle(trained: Storage, tmp_path: Path) -> None:
    checkpoint = trained.checkpoint(ARCHITECTURE) / "best_model.pt"

    def make(weights: Path = BUNDLED, checkpoint: Path = checkpoint, **options: object) -> None:
        config = BundleConfig(**{"false_alarms_per_hour": BUDGET, **options})
        evaluation, test = trained.evaluation(ARCHITECTURE), trained.split("test")
        make_bundle(checkpoint, evaluation, test, trained.recordings, weights, tmp_path / "out", config, tmp_path)

    with pytest.raises(DataError, match="no thresholds for 2 false alarms an hour: expected one of 1e"):
        make(false_alarms_per_hour=2.0)
    with pytest.raises(DataError, match="expected 2020-01-01_00-00-00 of 2024-05-03_10-00-00"):
        make(recording="2020-01-01_00-00-00")
    (tmp_path / "other.pt").write_bytes(b"other")
    with pytest.raises(DataError, match=r"was made by yolo12n_simulated.pt .*, not by .*other.pt"):
        make(tmp_path / "other.pt")
    shutil.copy(checkpoint, tmp_path)
    with pytest.raises(DataError, match="has no calibration beside it"):
        make(checkpoint=tmp_path / "best_model.pt")
    assert not (tmp_path / "out").exists()


def test_the_page_and_the_checks_of_a_bundle(bundle: Bundle, trained: Storage, tmp_path: Path) -> None:
    shown = html(bundle_page(trained, ARCHITECTURE), "")
    assert "python -m drive_alarms check" in shown and "network.onnx" in shown and "brake_1s" in shown
    assert _bundle_times(trained, [ARCHITECTURE, "simple_concat_lstm"]).keys() == {ARCHITECTURE}
    storage = Storage(data_root=str(tmp_path), inbox_root="")
    shutil.copytree(bundle.folder, storage.bundle(ARCHITECTURE))
    shutil.copytree(trained.checkpoint(ARCHITECTURE), storage.checkpoint(ARCHITECTURE))
    assert same_as_torch.evaluate(storage, ARCHITECTURE).passed
    assert of_the_checkpoint.evaluate(storage, ARCHITECTURE).passed
    (storage.bundle(ARCHITECTURE) / "network.onnx").write_bytes(b"other")
    (storage.checkpoint(ARCHITECTURE) / "best_model.pt").write_bytes(b"other")
    assert "1 files changed, as network.onnx" in str(same_as_torch.evaluate(storage, ARCHITECTURE).description)
    assert "an earlier checkpoint" in str(of_the_checkpoint.evaluate(storage, ARCHITECTURE).description)
