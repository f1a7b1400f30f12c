"""Videos with logs: drives made by FFmpeg and by the formats' own libraries, and everything that can be wrong."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from drive_assets_tests.model.imports.importing import Imported, imported, real
from drive_assets_tests.model.imports.test_logs import write_bus
from drive_assets_tests.model.imports.videos import START, make_video
from model.common.errors import DataError
from model.imports.draft import draft
from model.imports.mapping import preset, read_mapping
from model.imports.video_with_logs import IMPORTER

DBC = "toyota_new_mc_pt_merged.dbc"
NAME = "2024-05-31_08-15-00"
CHANNELS = {
    "SPEED": {"source": "Speed"},
    "ACCELERATOR_POS_D": {"source": "Pedal"},
    "BRAKE_SIGNAL": {"source": "Brake"},
}
HEADER = "Time,Speed,Pedal,Brake\n"


def rows(seconds: float = 10.0, rate: int = 20, start: float = START, pressed: tuple[int, ...] = (45,)) -> str:
    """Rows of a log: the speed rises by 1 km/h a second; the brake is pressed in the rows `pressed` only."""
    lines = [
        f"{start + number / rate:.3f},{50 + number / rate},{number % 100},{int(number in pressed)}\n"
        for number in range(round(seconds * rate))
    ]
    return HEADER + "".join(lines)


def write_drive(folder: Path, log: str = "", name: str = "drive.csv", clip: str = "video.mp4", **mapping: Any) -> Path:
    """A folder with a video of 10 s, a log and a mapping."""
    folder.mkdir(parents=True, exist_ok=True)
    if clip:
        make_video(folder / clip)
    (folder / name).write_text(log or rows())
    content = {"logs": [{"path": name}], "channels": CHANNELS} | mapping
    (folder / "mapping.yaml").write_text(yaml.safe_dump(content))
    return folder


def take(path: Path, **options: str) -> Imported:
    work = path.parent / f"work of {path.name} {len(list(path.parent.iterdir()))}"
    (drive,) = imported(IMPORTER, path, work, **options)
    return drive


def test_a_drive_of_a_video_and_a_log(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive", drivetrain="hybrid", region=[0, 20, 320, 140], zone="Europe/Berlin")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    drive = take(folder)
    assert (drive.name, len(drive.rows)) == ("2024-05-31_10-15-00", 20)
    assert drive.rows["Time"].iloc[1] == "2024-05-31 10-15-00-500"
    assert np.allclose(drive.rows["SPEED"], 50 + np.arange(20) / 2)
    assert np.allclose(drive.grey, np.arange(20) * 10, atol=3)  # the frame of each half second
    assert np.flatnonzero(drive.rows["BRAKE_SIGNAL"]).tolist() == [5]  # 50 ms within half a second are a braking
    origin = drive.origin
    assert (origin["kind"], origin["drivetrain"], origin["offset_s"]) == ("video", "hybrid", 0.0)
    assert origin["videos"][0]["start"] == START and len(origin["videos"][0]["sha256"]) == 64
    assert origin["channels"]["SPEED"]["source"] == "drive.csv: Speed" and origin["versions"]["av"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    moved = take(write_drive(folder, drivetrain="hybrid", offset_s=0.25))
    other = take(write_drive(tmp_path / "other", rows(30)))
    assert moved.origin["drive"] == origin["drive"] != other.origin["drive"]


def test_a_can_log_a_second_log_and_pictures_instead_of_a_video(tmp_path: Path) -> None:
    from PIL import Image

    folder = write_drive(tmp_path / "drive", clip="")
    write_bus(folder, ".blf")
    for number in range(6):
        moment = datetime.fromtimestamp(START + number / 2, UTC)
        Image.new("RGB", (64, 36)).save(folder / f"{moment:%Y-%m-%d_%H-%M-%S.%f}.jpg")
    channels = {"SPEED": {"source": "SPEED.SPEED"}, "BRAKE_SIGNAL": {"source": "Brake", "log": "*.csv"}}
    content = {"logs": [{"path": "*.blf", "dbc": ["car.dbc"]}, {"path": "*.csv"}], "channels": channels}
    (folder / "mapping.yaml").write_text(yaml.safe_dump(content))
    drive = take(folder)
    assert drive.name == NAME
    assert np.allclose(drive.rows["SPEED"], [40.0, 45.0, 50.0, 55.0, 59.5])
    assert "1 of 6 frames have no speed near enough in time" in drive.notes
    assert drive.rows["BRAKE_SIGNAL"].tolist() == [False] * 5


def test_several_videos_and_a_gap_between_them(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive", rows(30), clip="")
    make_video(folder / "a.mp4", 4)
    make_video(folder / "b.mp4", 4, start="2024-05-31T08:15:10Z")
    times = take(folder).rows["Time"].str.slice(17, 21).tolist()
    assert times[:8] == [f"{t:02}-{d}" for t in range(4) for d in (0, 5)]
    assert times[-8:] == [f"{t}-{d}" for t in range(10, 14) for d in (0, 5)]
    make_video(folder / "c.mp4", 4, start="2024-05-31T08:15:02Z")
    with pytest.raises(DataError, match=r"c\.mp4 begins 2 s before .*a\.mp4 ends: name one of them"):
        take(folder)
    make_video(folder / "c.mp4", 4, start="2024-05-31T09:15:02Z")
    with pytest.raises(DataError, match=r"c\.mp4 begins 3588 s after .*b\.mp4 ends: import the drives one by one"):
        take(folder)


def test_a_video_with_uneven_times_is_read_by_its_times(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive", clip="")
    make_video(folder / "video.mp4", 5, times=lambda number: number / 20 if number < 40 else 2 + (number - 40) / 8)
    drive = take(folder)
    wanted = [40 + 8 * (t - 2) if t > 2 else 20 * t for t in np.arange(0, 9.5, 0.5)]
    assert np.allclose(drive.grey, wanted, atol=3)


def test_a_rotated_video_is_turned_upright(tmp_path: Path) -> None:
    import av
    import cv2

    left = np.zeros((180, 320, 3), np.uint8)
    left[:, :160] = 255
    folder = write_drive(tmp_path / "drive", clip="")
    make_video(tmp_path / "flat.mp4", 2, picture=lambda number: left)
    with av.open(str(tmp_path / "flat.mp4")) as source, av.open(str(folder / "video.mp4"), "w") as target:
        target.metadata["creation_time"] = "2024-05-31T08:15:00Z"
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(-90)  # as a phone held upright: to be turned clockwise
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    take(folder)
    frame = cv2.imread(str(next(tmp_path.glob("work*/0/*.jpg"))))
    assert frame.shape == (320, 180, 3)
    assert frame[:140].mean() > 240 and frame[180:].mean() < 15


def test_a_touch_of_the_pedal_between_two_rows_is_a_braking(tmp_path: Path) -> None:
    pressed = (7, 31, 32, 98, 153)
    drive = take(write_drive(tmp_path / "drive", rows(pressed=pressed)))
    wanted = sorted({int(np.ceil(number / 10)) for number in pressed})
    assert np.flatnonzero(drive.rows["BRAKE_SIGNAL"]).tolist() == wanted


def test_odd_values_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = rows().splitlines(keepends=True)
    lines[20] = lines[20].replace(",50.95,", ",138093,")
    lines[100], lines[101] = lines[101], lines[100]  # the clock steps back
    lines.insert(150, lines[149])  # twice at one time
    channels = CHANNELS | {"SPEED": {"source": "Speed", "at_most": 300}}
    drive = take(write_drive(tmp_path / "drive", "".join(lines), channels=channels))
    assert drive.origin["channels"]["SPEED"] | {"source": ""} == {
        "source": "", "samples": 201, "missing": 0, "dropped": 1, "same_time": 1,
    }  # fmt: skip
    assert "SPEED: of 201 values, 1 cannot be and are dropped, 1 have the time of a later one" in drive.notes
    assert "1 lie in time before the one above and are sorted" in drive.notes
    assert len(drive.rows) == 20


def truncate(folder: Path) -> None:
    path = folder / "video.mp4"
    path.write_bytes(path.read_bytes()[:4000])


def hide_playlist(folder: Path) -> None:
    (folder / "video.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")


def since_start(folder: Path) -> None:
    (folder / "drive.csv").write_text(rows(start=0.0))


def slow(folder: Path) -> None:
    lines = (folder / "drive.csv").read_text().splitlines(keepends=True)
    (folder / "drive.csv").write_text("".join([lines[0], *lines[1::100]]))


@pytest.mark.parametrize(
    ("mapping", "change", "error"),
    [
        ({}, truncate, r"video\.mp4 cannot be read .*without its index \(moov\)"),
        ({}, hide_playlist, r"video\.mp4 cannot be read"),
        ({}, lambda folder: (folder / "video.mp4").unlink(), "has no video and no pictures"),
        ({"offset_s": 3600}, None, r"do not overlap: the speed is known from 2024-05-31 09:15:00 UTC .* Set the logs'"),
        ({}, slow, r"SPEED \(drive\.csv: Speed\) has a value every 5\.0 s \(0\.20 Hz\): expected one a second"),
        ({"channels": {"BRAKE_SIGNAL": {"source": "Brake"}}}, None, "no speed among BRAKE_SIGNAL: map SPEED"),
        ({"video": ["other*.mp4"]}, None, r"has no video other\*\.mp4"),
        (
            {"logs": [{"path": "*.csv", "dbc": ["../car.dbc"]}]},
            None,
            r"dbc.*names of files beside the log, not \.\./car",
        ),
        ({"region": [0, 320, 1920, 575]}, None, r"region .* leaves the frame of 320 x 180 px"),
        ({"offset_s": 1e300}, None, r"mapping\.yaml: .*offset_s"),
        ({"logs": [{"path": "drive.csv", "clock": "epoch"}]}, since_start, "times are not since 1970, as `clock` says"),
        ({}, lambda folder: (folder / "mapping.yaml").write_bytes(b"zone: \x80"), "expected text in UTF-8"),
        ({"vidoe": []}, None, r"mapping\.yaml: .*vidoe"),
        ({"channels": {"SPED": {"source": "Speed"}}}, None, r"mapping\.yaml: .*SPED"),
        ({"channels": {"SPEED": {"source": "Speed", "unit": "furlongs"}}}, None, r"a unit of SPEED among km/h"),
        ({"zone": "Europe/Berln"}, None, r"a time zone such as Europe/Berlin"),
        ({"preset": "torq"}, None, r"preset torq: expected one of car-scanner, obd-fusion, racechrono, torque"),
    ],
)
def test_what_cannot_be_imported(
    tmp_path: Path, mapping: dict[str, Any], change: Callable[[Path], None] | None, error: str
) -> None:
    folder = write_drive(tmp_path / "drive", **mapping)
    if change:
        change(folder)
    with pytest.raises(DataError, match=error):
        take(folder)


def test_a_mapping_with_a_channel_twice_or_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text("channels:\n  SPEED: {source: a}\n  SPEED: {source: b}\n")
    with pytest.raises(DataError, match=r"mapping\.yaml is no mapping: SPEED stands twice .*line 2"):
        read_mapping(path)
    path.write_text("- SPEED")
    with pytest.raises(DataError, match="expected keys such as video, logs and channels"):
        read_mapping(path)


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive", clip="")
    (folder / f"{START:.0f}000.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(DataError, match=r"000\.jpg is no picture"):
        take(folder)


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (180, 320, 3), np.uint8)


def test_a_video_that_ends_too_early_or_is_damaged(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive", clip="")
    path = make_video(folder / "video.mkv", picture=noise)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    drive = take(folder)
    assert 8 <= len(drive.rows) <= 12
    assert "video.mkv" in drive.notes


def test_a_clock_that_goes_back_for_winter_within_a_drive(tmp_path: Path) -> None:
    """A recording keeps the offset of its start, so that no time stands twice."""
    start = datetime(2024, 10, 27, 0, 59, 55, tzinfo=UTC)
    folder = write_drive(tmp_path / "drive", rows(start=start.timestamp()), clip="", zone="Europe/Berlin")
    make_video(folder / "video.mp4", start=start.isoformat())
    drive = take(folder)
    assert drive.name == "2024-10-27_02-59-55"
    assert drive.rows["Time"].is_unique and drive.rows["Time"].iloc[-1] == "2024-10-27 03-00-04-500"


TORQUE = "GPS Time, Device Time,Speed (OBD)(mph),Engine Coolant Temperature(°F),Engine RPM(rpm)\n"
CAR_SCANNER = '"SECONDS";"PID";"VALUE";"UNITS";\n'
OBD_FUSION = "# StartTime = 05/31/2024 08:15:00 AM\nTime (sec),Vehicle speed (mph),Engine RPM (RPM)\n"
RACECHRONO = (
    "This file is created using RaceChrono Pro v9.1.3\nFormat,3\n\n"
    "timestamp,speed,x,speed,speed,rpm\n,m/s,,m/s,m/s,rpm\n"
)


@pytest.mark.parametrize(
    ("name", "header", "row", "log"),
    [
        (
            "torque",
            TORQUE,
            "Fri May 31 10:15:{s:02} GMT+02:00 2024,31-May-2024 10:15:{s:02}.000,10,210,900\n",
            "log.csv",
        ),
        ("car-scanner", CAR_SCANNER, '"{midnight}";"Vehicle speed";"16,09344";"km/h";\n', "2024-05-31 08-15-00.csv"),
        ("obd-fusion", OBD_FUSION, "{s},10,900\n", "log.csv"),
        ("racechrono", RACECHRONO, "{epoch},1,0,1,4.4704,900\n", "log.csv"),
    ],
)
def test_presets_are_drafted_and_read_the_logs_of_their_apps(
    tmp_path: Path, name: str, header: str, row: str, log: str
) -> None:
    times = [{"s": s, "midnight": 8 * 3600 + 900 + s, "epoch": START + s} for s in range(10)]
    folder = write_drive(tmp_path / "drive", header + "".join(row.format(**each) for each in times), log)
    text = draft(folder)
    assert f"preset: {name}\n" in text
    (folder / "mapping.yaml").write_text(text)
    assert np.allclose(take(folder).rows["SPEED"], 16.09, atol=0.01)


def test_a_draft_of_unknown_logs_guesses_and_lists_the_signals(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive")
    (folder / "drive.csv").rename(folder / "log.csv")
    (folder / "mapping.yaml").unlink()
    write_bus(folder, ".log")
    content = yaml.safe_load(draft(folder))
    assert content["video"] == ["video.mp4"] and content["logs"][0] == {"path": "drive.log", "dbc": ["car.dbc"]}
    assert content["channels"]["SPEED"]["source"] == "SPEED.SPEED"
    assert "#   BRAKE.PRESSED\n" in draft(folder) and "#   Pedal\n" in draft(folder)
    with pytest.raises(DataError, match=r"holds no log: expected one of \.csv"):
        draft(tmp_path)


def real_drive(tmp_path: Path, path: str, seconds: float, start: str, **mapping: Any) -> Imported:
    """A real log with a made video."""
    log = real(*path.split("/"))
    entry = {"path": log.name} | ({"dbc": [DBC]} if log.parent.name == "can" else {})
    folder = write_drive(tmp_path / log.stem, clip="", **{"logs": [entry]} | mapping)
    (folder / "drive.csv").unlink()
    for each in (log, *log.parent.glob(DBC)):
        (folder / each.name).write_bytes(each.read_bytes())
    make_video(folder / "video.mp4", seconds, 10, start=start, size=(64, 36))
    return take(folder)


def test_a_real_drive_is_the_same_from_candump_blf_and_mdf(tmp_path: Path) -> None:
    """Its speed is within 2 % of the truth, once it has the scale that this car's bus needs."""
    channels = {
        "SPEED": {"source": "SPEED.SPEED", "scale": 0.979},
        "BRAKE_SIGNAL": {"source": "BRAKE_MODULE.BRAKE_PRESSED"},
        "ASSISTANCE": {"source": "PCM_CRUISE.CRUISE_ACTIVE"},
    }
    logs = ("rav4_comma2k19_60s.log", "rav4_comma2k19_30s.blf", "rav4_comma2k19_30s.mf4")
    tables = [
        real_drive(tmp_path / log[-3:], f"can/{log}", 29.9, "2018-08-02T16:23:20.6Z", channels=channels).rows
        for log in logs
    ]
    assert len(tables[0]) == 59 and all(table.equals(tables[0]) for table in tables)
    assert tables[0]["ASSISTANCE"].mean() > 0.6 and not tables[0]["BRAKE_SIGNAL"].any()
    t, speed = (np.load(real("can", "rav4_truth", f"speed_{kind}.npy")).ravel() for kind in ("t", "value"))
    truth = np.interp(np.arange(1, 59) / 2 - 0.08, t - t[0], speed * 3.6)  # the log begins at 20.58 s
    assert np.abs(tables[0]["SPEED"].iloc[1:] / truth - 1).max() < 0.02


def test_a_real_log_at_3_hz_loses_no_press_of_the_brake(tmp_path: Path) -> None:
    channels = {"SPEED": {"source": "SPEED", "holds_s": 1}, "BRAKE_SIGNAL": {"source": "BRAKE_PEDAL", "holds_s": 1}}
    drive = real_drive(tmp_path, "obd/rav4h_decoded_wide.csv", 779, "2024-05-31T08:15:00Z", channels=channels)
    times = pd.to_datetime(drive.rows["Time"], format="%Y-%m-%d %H-%M-%S-%f")
    braking = (times - pd.Timestamp("2024-05-31 08:15")).dt.total_seconds()[drive.rows["BRAKE_SIGNAL"]].to_numpy()
    log = pd.read_csv(real("obd", "rav4h_decoded_wide.csv"), skiprows=[1], usecols=["Time", "BRAKE_PEDAL"]).dropna()
    presses = log["Time"].to_numpy()[
        np.flatnonzero(np.diff(log["BRAKE_PEDAL"] > 0, prepend=False) & (log["BRAKE_PEDAL"] > 0))
    ]
    assert len(presses) == 24
    assert all(((braking >= press) & (braking <= press + 1)).any() for press in presses)


@pytest.mark.parametrize(
    ("log", "mapping", "error"),
    [
        (
            "obd/carscanner_2024-11-30 19-36-35.csv",
            preset("car-scanner"),
            r"every 5\.2 s \(0\.19 Hz\)",
        ),
        ("obd/carobd_drive5.csv", {}, r"no column is named as times are: found ENGINE_RUN_TINE"),
    ],
)
def test_real_logs_that_are_refused(tmp_path: Path, log: str, mapping: dict[str, Any], error: str) -> None:
    with pytest.raises(DataError, match=error):
        real_drive(tmp_path, log, 10, "2024-11-30T19:37:20Z", **mapping)
