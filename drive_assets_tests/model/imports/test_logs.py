"""Readers of logs, on files that the formats' own libraries write."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asammdf
import can
import cantools
import numpy as np
import pytest
from mcap.writer import IndexType, Writer

from model.common.errors import DataError
from model.imports.logs.reading import names, read_channels
from model.imports.mapping import ImportMapping, LogMapping

START = 1_717_143_300.0
DBC = """\
VERSION ""
BS_:
BU_: car
BO_ 180 SPEED: 8 car
 SG_ SPEED : 47|16@0+ (0.01,0) [0|250] "km/h" car
BO_ 705 PEDAL: 8 car
 SG_ POSITION : 8|8@1+ (0.5,0) [0|100] "%" car
 SG_ SLOPE : 16|12@1- (0.1,0) [-200|200] "" car
BO_ 548 BRAKE: 8 car
 SG_ PRESSED : 5|1@0+ (1,0) [0|1] "" car
BO_ 800 MANY: 8 car
 SG_ WHICH M : 0|8@1+ (1,0) [0|255] "" car
 SG_ FIRST m0 : 8|16@1+ (1,0) [0|65535] "" car
 SG_ SECOND m1 : 8|16@1+ (1,0) [0|65535] "" car
"""
CHANNELS = {
    "SPEED": {"source": "SPEED.SPEED"},
    "ACCELERATOR_POS_D": {"source": "PEDAL.POSITION"},
    "BRAKE_SIGNAL": {"source": "BRAKE.PRESSED"},
}
SPEEDS = np.arange(40.0, 60.0, 0.5)


def bus_messages() -> list[can.Message]:
    """40 messages of each kind, every 50 ms; the brake is pressed in the eleventh."""
    database = cantools.database.load_string(DBC, "dbc")
    messages = []
    for number, speed in enumerate(SPEEDS):
        values: dict[str, dict[str, float]] = {
            "SPEED": {"SPEED": speed},
            "PEDAL": {"POSITION": number / 2, "SLOPE": -number / 10},
            "BRAKE": {"PRESSED": float(number == 10)},
            "MANY": {"WHICH": number % 2, ("FIRST", "SECOND")[number % 2]: number},
        }
        for name, content in values.items():
            message = database.get_message_by_name(name)
            messages.append(
                can.Message(
                    timestamp=START + number / 20,
                    arbitration_id=message.frame_id,
                    is_extended_id=False,
                    data=message.encode(content, strict=False, padding=True),
                    channel=0,
                )
            )
    return messages


def write_bus(folder: Path, suffix: str) -> Path:
    path = folder / f"drive{suffix}"
    with can.Logger(str(path)) as logger:
        for message in bus_messages():
            logger.on_message_received(message)
    (folder / "car.dbc").write_text(DBC)
    return path


def mapping(log: dict[str, Any], **channels: Any) -> ImportMapping:
    return ImportMapping(logs=[LogMapping(**log)], channels=channels or CHANNELS)


@pytest.mark.parametrize("suffix", [".log", ".blf", ".asc", ".trc", ".mf4"])
def test_a_can_log_in_any_format_gives_the_same_signals(tmp_path: Path, suffix: str) -> None:
    path = write_bus(tmp_path, suffix)
    found = read_channels(tmp_path, mapping({"path": path.name, "dbc": ["car.dbc"]}))
    assert np.allclose(found["SPEED"].signal.values, SPEEDS)
    assert np.allclose(found["ACCELERATOR_POS_D"].signal.values, np.arange(40) / 2)
    assert np.flatnonzero(found["BRAKE_SIGNAL"].signal.values).tolist() == [10]
    assert np.allclose(np.diff(found["SPEED"].signal.t), 0.05, atol=2e-3)


def test_signed_and_multiplexed_signals(tmp_path: Path) -> None:
    write_bus(tmp_path, ".log")
    channels = {"SPEED": {"source": "MANY.SECOND"}, "RPM": {"source": "PEDAL.SLOPE"}}
    found = read_channels(tmp_path, mapping({"path": "*.log", "dbc": ["car.dbc"]}, **channels))
    assert found["SPEED"].signal.values.tolist() == list(range(1, 40, 2))
    assert np.allclose(found["RPM"].signal.values, -np.arange(40) / 10)


def test_signals_of_a_can_log_are_those_of_messages_in_it(tmp_path: Path) -> None:
    (tmp_path / "car.dbc").write_text(DBC)
    with can.Logger(str(tmp_path / "drive.log")) as logger:
        logger.on_message_received(bus_messages()[0])
    assert names(tmp_path / "drive.log", LogMapping(path="*", dbc=["car.dbc"])) == ["SPEED.SPEED"]


def test_a_dbc_that_does_not_fit_a_log_or_is_none(tmp_path: Path) -> None:
    write_bus(tmp_path, ".log")
    (tmp_path / "car.dbc").write_text(DBC.replace("SPEED: 8", "SPEED: 64"))
    with pytest.raises(DataError, match=r"40 messages SPEED have fewer bytes than the 64 of the DBC"):
        read_channels(tmp_path, mapping({"path": "*.log", "dbc": ["car.dbc"]}))
    (tmp_path / "car.dbc").write_text("BO_ 127 >>: 8 car")
    with pytest.raises(DataError, match=r"car\.dbc is no DBC file that cantools reads"):
        read_channels(tmp_path, mapping({"path": "*.log", "dbc": ["car.dbc"]}))
    with pytest.raises(DataError, match="name the DBC files of the car under `dbc`"):
        read_channels(tmp_path, mapping({"path": "*.log"}))


def test_a_channel_of_an_mdf_file(tmp_path: Path) -> None:
    t = np.arange(0, 2, 0.1)
    with asammdf.MDF() as measurement:
        measurement.start_time = datetime.fromtimestamp(START, UTC)
        measurement.append([asammdf.Signal(samples=t * 10, timestamps=t, name="VehSpd", unit="m/s")])
        measurement.save(tmp_path / "drive.mf4")
    found = read_channels(tmp_path, mapping({"path": "*.mf4"}, SPEED={"source": "VehSpd"}))["SPEED"]
    assert np.allclose(found.signal.values, t * 36)
    assert found.signal.t[0] == pytest.approx(START, abs=1)


def unfinalised(content: bytes) -> bytes:
    """As a logger without power leaves it: the length of the last data block is not written yet."""
    return b"UnFinMF " + content[8:60] + b"\x05\0" + content[62:]


def test_an_error_of_asammdf_without_words_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise AssertionError

    path = write_bus(tmp_path, ".mf4").parent
    monkeypatch.setattr("asammdf.MDF", fail)
    with pytest.raises(DataError, match=r"drive\.mf4 is no complete MDF4 measurement \(AssertionError\)"):
        read_channels(path, mapping({"path": "*.mf4"}))


@pytest.mark.parametrize("dbc", [["car.dbc"], []])
@pytest.mark.parametrize(
    "damage", [lambda content: content[:70], lambda content: content[: len(content) // 2], unfinalised]
)
def test_an_mdf_file_that_is_cut_or_not_finalised(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes], dbc: list[str]
) -> None:
    path = write_bus(tmp_path, ".mf4")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"drive\.mf4 is no complete MDF4 measurement .* finalise it"):
        read_channels(tmp_path, mapping({"path": "*.mf4", "dbc": dbc}))
    assert "Traceback" not in "".join(capfd.readouterr())


def write_mcap(path: Path, summary: bool = True) -> None:
    with path.open("wb") as file:
        options: dict[str, Any] = (
            {} if summary else {"index_types": IndexType.NONE, "use_statistics": False, "repeat_channels": False}
        )
        writer = Writer(file, **options)
        writer.start()
        schema = writer.register_schema("car", "jsonschema", b'{"type": "object"}')
        channel = writer.register_channel("/car", "json", schema)
        for number in range(20):
            content = json.dumps({"twist": {"x": number / 2}, "brake": number == 5}).encode()
            moment = int((START + number / 10) * 1e9)
            writer.add_message(channel, moment, content, moment)
        writer.finish()


@pytest.mark.parametrize("summary", [True, False])
def test_a_field_of_a_topic_in_mcap(tmp_path: Path, summary: bool) -> None:
    write_mcap(tmp_path / "drive.mcap", summary)
    channels = {"SPEED": {"source": "/car twist.x", "unit": "m/s"}, "BRAKE_SIGNAL": {"source": "/car brake"}}
    found = read_channels(tmp_path, mapping({"path": "*.mcap"}, **channels))
    assert np.allclose(found["SPEED"].signal.values, np.arange(20) * 1.8)
    assert np.flatnonzero(found["BRAKE_SIGNAL"].signal.values).tolist() == [5]
    assert names(tmp_path / "drive.mcap", LogMapping(path="*")) == ["/car brake", "/car twist.x"]
    with pytest.raises(DataError, match=r"has no field twist\.z: z is none of x"):
        read_channels(tmp_path, mapping({"path": "*.mcap"}, SPEED={"source": "/car twist.z"}))


def test_an_mcap_that_is_cut_or_none(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    write_mcap(path)
    for content in (b"MCAP?", path.read_bytes()[:-200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"drive\.mcap cannot be read .*mcap recover"):
            read_channels(tmp_path, mapping({"path": "*.mcap"}, SPEED={"source": "/car twist.x"}))


@pytest.mark.parametrize("version", [1, 2])
def test_a_field_of_a_topic_in_a_ros_bag(tmp_path: Path, version: int) -> None:
    from rosbags import rosbag1, rosbag2
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if version == 1 else Stores.LATEST)
    kind = store.types["geometry_msgs/msg/Vector3"]
    if version == 1:
        writer: Any = rosbag1.Writer(tmp_path / "drive.bag")
        pack = store.serialize_ros1
    else:
        writer = rosbag2.Writer(tmp_path / "bag", version=8)
        pack = store.serialize_cdr
    with writer:
        connection = writer.add_connection("/speed", kind.__msgtype__, typestore=store)
        for number in range(20):
            moment = int((START + number / 10) * 1e9)
            writer.write(connection, moment, pack(kind(float(number), 0.0, 0.0), kind.__msgtype__))
    if version == 2:
        next((tmp_path / "bag").glob("*.db3")).rename(tmp_path / "drive.db3")
    found = read_channels(tmp_path, mapping({"path": "drive.*"}, SPEED={"source": "/speed x", "unit": "m/s"}))
    assert np.allclose(found["SPEED"].signal.values, np.arange(20) * 3.6)
    if version == 1:
        bag = (tmp_path / "drive.bag").read_bytes()
        at = bag.index(b"index_pos=") + 10
        (tmp_path / "drive.bag").write_bytes(
            bag[:at] + bytes(8) + bag[at + 8 :]
        )  # as `rosbag record` leaves it if killed
        with pytest.raises(DataError, match=r"drive\.bag cannot be read .*not indexed.*rosbag reindex"):
            read_channels(tmp_path, mapping({"path": "drive.*"}, SPEED={"source": "/speed x"}))


WIDE = "Time,Speed (mph),Brake,Pedal\n" + "".join(
    f"{n / 10},{n},{'Ein' if n == 3 else '-' if n == 7 else 'Aus'},-\n" for n in range(20)
)


def test_a_wide_table_in_the_units_of_its_headers(tmp_path: Path) -> None:
    (tmp_path / "drive.csv").write_text(WIDE)
    channels = {"SPEED": {"source": "Speed"}, "BRAKE_SIGNAL": {"source": "Brake", "pressed": ["Ein"], "missing": ["-"]}}
    found = read_channels(tmp_path, mapping({"path": "*.csv"}, **channels))
    assert np.allclose(found["SPEED"].signal.values, np.arange(20) * 1.609344)
    assert (found["BRAKE_SIGNAL"].missing, found["BRAKE_SIGNAL"].signal.values.sum()) == (1, 1)
    with pytest.raises(DataError, match=r"Pedal, mapped to ACCELERATOR_POS_D, has no readable value in 20"):
        read_channels(tmp_path, mapping({"path": "*.csv"}, ACCELERATOR_POS_D={"source": "Pedal"}))


def test_values_that_cannot_be_are_dropped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "drive.csv").write_text("Time,Speed\n0,10\n1,138093\n2,11\n3,255\n")
    channel = {"source": "Speed", "at_most": 300, "missing": [255]}
    found = read_channels(tmp_path, mapping({"path": "*.csv"}, SPEED=channel))["SPEED"]
    assert (found.signal.values.tolist(), found.out_of_range, found.missing) == ([10.0, 11.0], 1, 1)


@pytest.mark.parametrize("factor", [1, 1e3, 1e6, 1e9])
def test_times_since_1970_in_any_unit_a_clock_without_its_date_and_a_pressure(tmp_path: Path, factor: float) -> None:
    rows = (f"{round((START + n) * factor)},{n},{n / 2}\n" for n in range(4))
    (tmp_path / "drive.csv").write_text("Time,Speed,Bar\n" + "".join(rows))
    channels = {"SPEED": {"source": "Speed"}, "BRAKE_SIGNAL": {"source": "Bar", "pressed_from": 1}}
    found = read_channels(tmp_path, mapping({"path": "*.csv"}, **channels))
    assert np.allclose(found["SPEED"].signal.t, START + np.arange(4))
    assert found["BRAKE_SIGNAL"].signal.values.tolist() == [0, 0, 1, 1]
    since_start = {"path": "*.csv", "clock": "relative", "start": datetime(2024, 6, 1)}
    found = read_channels(tmp_path, mapping(since_start, **channels))
    assert found["SPEED"].signal.t[0] == datetime(2024, 6, 1, tzinfo=UTC).timestamp()


def test_a_unit_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "drive.csv").write_text("Time,Speed (°F)\n0,10\n")
    with pytest.raises(DataError, match=r"Speed, mapped to SPEED, is in °f: expected km/h, .*set its unit or scale"):
        read_channels(tmp_path, mapping({"path": "*.csv"}, SPEED={"source": "Speed"}))


def test_a_long_table_since_midnight_with_decimal_commas(tmp_path: Path) -> None:
    rows = [f'"{86_399 + n}";"Geschwindigkeit";"{n},5";"km/h"\n' for n in range(1)]
    rows += [f'"{n}";"Geschwindigkeit";"{n},5";"km/h"\n' for n in range(3)]  # past midnight
    (tmp_path / "2024-11-30 23-59-59.csv").write_text('"SECONDS";"PID";"VALUE";"UNITS"\r\n' + "".join(rows))
    log = {"path": "*.csv", "layout": "long", "clock": "midnight", "zone": "Europe/Berlin"}
    log |= {"name_column": "PID", "value_column": "VALUE", "unit_column": "UNITS"}
    found = read_channels(tmp_path, mapping(log, SPEED={"source": "Geschwindigkeit"}))["SPEED"]
    assert found.signal.values.tolist() == [0.5, 0.5, 1.5, 2.5]
    assert found.signal.t[0] == datetime.fromisoformat("2024-11-30T23:59:59+01:00").timestamp()
    assert np.diff(found.signal.t).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("texts", "first", "steps"),
    [
        (["21-Aug-2012 18:20:23.5", "21-Aug-2012 18:20:24.5"], "2012-08-21T18:20:23.5+02:00", [1]),
        (["Tue Aug 21 18:20:23 MESZ 2012", "Tue Aug 21 18:20:24 MESZ 2012"], "2012-08-21T18:20:23+02:00", [1]),
        (["2024-05-31T08:00:00Z", "2024-05-31T08:00:01Z"], "2024-05-31T08:00:00+00:00", [1]),
        (["2024-10-27 02:59:59", "2024-10-27 02:00:00"], "2024-10-27T02:59:59+02:00", [1]),  # the end of summer time
        (["2024-03-31 01:59:59", "2024-03-31 03:00:00"], "2024-03-31T01:59:59+01:00", [1]),  # and its beginning
    ],
)
def test_times_as_texts(tmp_path: Path, texts: list[str], first: str, steps: list[float]) -> None:
    (tmp_path / "drive.csv").write_text("When,Speed\n" + "".join(f"{text},10\n" for text in texts))
    channels = {"SPEED": {"source": "Speed"}}
    found = read_channels(tmp_path, mapping({"path": "*.csv", "zone": "Europe/Berlin"}, **channels))["SPEED"]
    assert found.signal.t[0] == datetime.fromisoformat(first).timestamp()
    assert np.diff(found.signal.t).tolist() == steps


def test_odd_tables(tmp_path: Path) -> None:
    """Notes above the header, a row of units below it, a name twice, a separator at the end, a line cut short."""
    lines = ["Made by a logger", "", "t,speed,speed,", "s,km/h,m/s,", "0,36,10,", "1,72,20,", '2,"108']
    (tmp_path / "drive.csv").write_text("\n".join(lines))
    channels = {"SPEED": {"source": "speed.2", "unit": "m/s"}, "RPM": {"source": "#2"}}
    found = read_channels(tmp_path, mapping({"path": "*.csv"}, **channels))
    assert found["SPEED"].signal.values.tolist() == found["RPM"].signal.values.tolist() == [36.0, 72.0]


def test_a_table_without_times(tmp_path: Path) -> None:
    (tmp_path / "drive.csv").write_text("name,speed\na,1\nb,2\nc,3\n")
    with pytest.raises(
        DataError,
        match=r"no column is named as times are: found name, speed\. Set time_column or, without times, rate_hz",
    ):
        read_channels(tmp_path, mapping({"path": "*.csv"}, SPEED={"source": "speed"}))
    found = read_channels(tmp_path, mapping({"path": "*.csv", "rate_hz": 2}, SPEED={"source": "speed"}))["SPEED"]
    assert found.signal.t.tolist() == [0.0, 0.5, 1.0]


def test_a_channel_that_no_log_has(tmp_path: Path) -> None:
    (tmp_path / "drive.csv").write_text(WIDE)
    with pytest.raises(DataError, match=r"SPEED: Tempo is in none of .*drive\.csv; .*--draft. lists the signals"):
        read_channels(tmp_path, mapping({"path": "*.csv"}, SPEED={"source": "Tempo"}))
    with pytest.raises(DataError, match=r"has no log \*\.blf: found drive\.csv"):
        read_channels(tmp_path, mapping({"path": "*.blf"}))
