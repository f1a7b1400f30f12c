"""Routes of openpilot, whose logs pycapnp writes."""

import bz2
from pathlib import Path
from typing import Any

import av
import capnp  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
import zstandard

from drive_assets_tests.model.imports.importing import imported, real
from drive_assets_tests.model.imports.videos import START, make_video
from model.common.errors import DataError
from model.imports.openpilot import IMPORTER

SCHEMA = """\
@0xf3b1f17e25a4285c;
struct CarState {{
  e @0 :List(UInt16); vEgo @1 :Float32; w @2 :AnyPointer; gas @3 :Float32; gasPressed @4 :Bool; brake @5 :Float32;
  brakePressed @6 :Bool; a @7 :Float32; t @8 :Float32; p @9 :Bool; cruiseState @10 :Cruise; b @11 :AnyPointer;
  c @12 :List(UInt64); v @13 :AnyPointer; gearShifter @14 :UInt16; r @15 :Float32; aEgo @16 :Float32;
  struct Cruise {{ enabled @0 :Bool; speed @1 :Float32; available @2 :Bool; }}
}}
struct Selfdrive {{ state @0 :UInt16; enabled @1 :Bool; active @2 :Bool; }}
struct Index {{
  frameId @0 :UInt32; type @1 :UInt16; encodeId @2 :UInt32; segmentNum @3 :Int32; segmentId @4 :UInt32;
  segmentIdEncode @5 :UInt32; timestampSof @6 :UInt64; timestampEof @7 :UInt64; flags @8 :UInt32; len @9 :UInt32;
}}
struct Clocks {{ boot @0 :UInt64; mono @1 :UInt64; raw @2 :UInt64; wallTimeNanos @3 :UInt64; modem @4 :UInt64; }}
struct Event {{ logMonoTime @0 :UInt64; valid @67 :Bool = true; union {{
{members}
}} }}
"""
KINDS = {"roadEncodeIdx": (15, "Index"), "carState": (22, "CarState"), "clocks": (35, "Clocks")}
KINDS |= {"qRoadEncodeIdx": (90, "Index"), "selfdriveState": (130, "Selfdrive")}
SINCE_BOOT = 500.0


@pytest.fixture(scope="module")
def event(tmp_path_factory: pytest.TempPathFactory) -> Any:
    members = {number: f"m{number} @{number} :Void;" for number in range(1, 420) if number != 67}
    members |= {number: f"{name} @{number} :{kind};" for name, (number, kind) in KINDS.items()}
    path = tmp_path_factory.mktemp("schema") / "log.capnp"
    path.write_text(SCHEMA.format(members="\n".join(members.values())))
    return capnp.load(str(path)).Event


def log_bytes(event: Any, at: float, seconds: float = 10.0, index: str = "qRoadEncodeIdx", wall: bool = True) -> bytes:
    """A log from s `at` of a route: speeds rise, reversed for 2 s, the brake is touched at 3.15 s of the route, the
    accelerator pressed from 5 s on, cruise engaged from 8 s on, openpilot from 9 s on."""
    messages = [event.new_message(logMonoTime=round((SINCE_BOOT + at) * 1e9), m419=None)]

    def add(t: float, kind: str, **content: Any) -> None:
        messages.append(event.new_message(logMonoTime=round((SINCE_BOOT + t) * 1e9), **{kind: content}))

    for number in range(round(seconds * 20)):
        t = at + number / 20
        add(t, index, segmentId=number, timestampEof=round((SINCE_BOOT + t) * 1e9))
        if number % 2 == 0:
            add(t, "selfdriveState", enabled=t >= 9)
            add(
                t,
                "carState",
                vEgo=t - 2,
                gasPressed=t >= 5,
                brakePressed=3.05 < t < 3.25,
                gearShifter=4 if t < 2 else 2,
                cruiseState={"enabled": 8 <= t < 9},
            )
        if wall and number % 100 == 3:
            add(t, "clocks", wallTimeNanos=round((START + t) * 1e9))
    messages.append(event.new_message(logMonoTime=round((SINCE_BOOT + at + seconds) * 1e9), m300=None))
    return b"".join(message.to_bytes() for message in messages)


def segment(folder: Path, content: bytes, name: str = "qlog.zst", camera: str = "qcamera.ts") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pack = {".zst": zstandard.compress, ".bz2": bz2.compress}.get(Path(name).suffix, bytes)
    (folder / name).write_bytes(pack(content))
    if camera:
        make_video(folder / camera, start="")
    return folder


def to_hevc(video: Path) -> None:
    """The camera's own format: an H.265 stream without container and times."""
    target = video.with_name("fcamera.hevc")
    with av.open(str(video)) as source, av.open(str(target), "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=20, options={"preset": "ultrafast", "x265-params": "bframes=0"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for frame in [*source.decode(video=0), None]:
            container.mux(stream.encode(frame))
    video.unlink()


def test_segments_join_and_signals_are_the_drivers(tmp_path: Path, event: Any) -> None:
    route = tmp_path / "in"
    segment(route / "00000a1b--4c5d6e7f80--0", log_bytes(event, 0))
    second = segment(route / "00000a1b--4c5d6e7f80--1", log_bytes(event, 10, index="roadEncodeIdx"), "rlog.bz2")
    to_hevc(second / "qcamera.ts")
    (second / "qlog.bz2").write_bytes(b"not read where there is an rlog")
    segment(route / "00000a1b--4c5d6e7f80--3", log_bytes(event, 30, wall=False), "rlog")
    segment(route / "00000a1b--4c5d6e7f80--4", log_bytes(event, 40), camera="")
    segment(route / "00000a1b--4c5d6e7f80--10", log_bytes(event, 50)[:30_001])
    (drive,) = imported(IMPORTER, route, tmp_path / "out")
    assert (drive.name, drive.origin["drive"]) == ("2024-05-31_08-15-00", "00000a1b--4c5d6e7f80")
    rows = drive.rows
    t = pd.to_datetime(rows["Time"], format="%Y-%m-%d %H-%M-%S-%f").map(lambda time: time.timestamp()) - START
    np.testing.assert_allclose(t[:40], np.arange(0, 20, 0.5))
    np.testing.assert_allclose(rows["SPEED"], (t - 2) * 3.6, atol=0.2)
    np.testing.assert_allclose(drive.grey[:20], np.arange(0, 200, 10), atol=3)
    np.testing.assert_allclose(drive.grey[20:40], np.arange(0, 200, 10), atol=4)  # not one frame off in the raw stream
    assert t[rows["BRAKE_SIGNAL"]].tolist() == [3.5]
    assert rows["REVERSE"].tolist() == (t <= 2).tolist()
    assert rows["ACCELERATOR_PRESSED"].tolist() == (t >= 5).tolist()
    assert rows["ASSISTANCE"].tolist() == (t >= 8).tolist()
    assert "ACCELERATOR_POS_D" not in rows
    assert "Segments 2 to 2 of 00000a1b--4c5d6e7f80 are missing" in drive.notes
    assert "Segment 4 of 00000a1b--4c5d6e7f80 is left out" in drive.notes
    assert "has no video: expected fcamera.hevc or qcamera.ts" in drive.notes
    assert "00000a1b--4c5d6e7f80--10/qlog.zst ends early" in drive.notes
    assert any("is left out" in line for line in drive.log)


@pytest.mark.parametrize(
    "place",
    [
        "a2a0ccea32023010_2024-05-31--08-15-00--0--|qlog.bz2",
        "a2a0ccea32023010/2024-05-31--08-15-00/0/|qlog.bz2",
        "2024-05-31--08-15-00--0/|qlog.bz2",
    ],
)
def test_names_of_files_and_folders(tmp_path: Path, event: Any, place: str) -> None:
    folder, _, prefix = place.partition("|")[0].rpartition("/")
    log = tmp_path / "in" / folder / f"{prefix}qlog.bz2"
    segment(log.parent, log_bytes(event, 0, wall=False), log.name, f"{prefix}qcamera.ts")
    (drive,) = imported(IMPORTER, tmp_path / "in", tmp_path / "out")
    assert drive.name == "2024-05-31_08-15-00"
    assert len(drive.rows) == 20
    assert [each.name for each in IMPORTER.find(log, {"zone": "Europe/Berlin"})] == [drive.name]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("qlog.zst", b"", "is empty"),
        ("qlog.zst", b"no log at all" * 99, "cannot be unpacked"),
        ("qlog.bz2", b"no log at all" * 99, "cannot be unpacked"),
        ("qlog", b"no log at all" * 99, "is no openpilot log, or is damaged"),
        ("qlog.zst", zstandard.compress(bytes(2**21)), "no openpilot log|0 states of the car"),
    ],
)
def test_logs_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    segment(tmp_path / "2024-05-31--08-15-00--0", b"", name)
    (tmp_path / "2024-05-31--08-15-00--0" / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*({reason})"):
        imported(IMPORTER, tmp_path, tmp_path / "out")


def test_a_log_that_unpacks_without_end_is_refused(tmp_path: Path, event: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.imports.openpilot.LARGEST_LOG", 2**20)
    segment(tmp_path / "2024-05-31--08-15-00--0", bytes(2**23))
    with pytest.raises(DataError, match="unpacks to more than 1 MiB"):
        imported(IMPORTER, tmp_path, tmp_path / "out")


def test_a_real_segment(tmp_path: Path) -> None:
    (drive,) = imported(IMPORTER, real("openpilot", "seg_a"), tmp_path / "out")
    rows = drive.rows
    assert len(rows) == 120
    assert rows["BRAKE_SIGNAL"].mean() == pytest.approx(0.30, abs=0.03)
    assert rows["ACCELERATOR_PRESSED"].mean() == pytest.approx(0.53, abs=0.05)
    assert rows["REVERSE"].sum() > 40
    assert rows["SPEED"].min() == pytest.approx(-1.15 * 3.6, abs=0.2)
    assert rows["ASSISTANCE"].iloc[-1]
