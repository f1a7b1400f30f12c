from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from model.common.errors import DataError
from model.dataset.windows import WindowConfig, window_starts
from model.recording.dialect import ReadingConfig
from model.recording.folder import Recording
from model.recording.gears import infer_gear
from model.recording.labels import future_labels
from model.recording.telemetry import read_telemetry
from model.recording.times import SLOT, read_times, separated_times

HEADER = "Time,SPEED,RPM,ACCELERATOR_POS_D,ENGINE_LOAD,BRAKE_SIGNAL,GEAR,BRAKE_FORCE,PRE_BRAKING,WHILE_BRAKING"
NO_DATA = ",".join(["No Data"] * 9)


def row(time: str, brake: str = "False", speed: str = "100", gear: str = "5", rpm: str = "1869") -> str:
    return f'{time},{speed},{rpm},20.5,30.1,{brake},{gear},-0.01,"[1, 2]",[]'


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_fault_rows_are_dropped_and_counted_and_false_stays_false(tmp_path: Path) -> None:
    path = write(
        tmp_path / "telemetry.csv",
        row("2024-05-01 10-00-00-0"),
        f"No Frame,{NO_DATA}",
        row("2024-05-01 10-00-00-5", brake="True"),
        f"Incomplete Data,{NO_DATA}",
        row("2024-05-01 10-00-01-0"),
    )
    table, report = read_telemetry(path)
    assert table["BRAKE_SIGNAL"].tolist() == [False, True, False]
    assert table["BRAKE_SIGNAL"].dtype == bool
    assert (report.rows, report.valid, report.no_frame, report.incomplete) == (5, 3, 1, 1)
    assert np.diff(table["t"]).tolist() == [500, 500]


def test_rows_are_sorted_and_of_repeated_times_the_last_is_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "telemetry.csv",
        row("2024-05-01 10-00-01-0", speed="1"),
        row("2024-05-01 10-00-00-0", speed="2"),
        row("2024-05-01 10-00-01-0", speed="3"),
        row("2024-05-01 10-00-09-0", speed="4"),
    )
    table, report = read_telemetry(path)
    assert table["SPEED"].tolist() == [2, 3, 4]
    assert (report.repeated, report.backwards, report.gaps, report.longest_gap_s) == (1, 1, 2, 8.0)


def test_missing_gear_is_inferred(tmp_path: Path) -> None:
    path = write(tmp_path / "telemetry.csv", row("2024-05-01 10-00-00-0", gear=""))
    table, report = read_telemetry(path)
    assert (table["GEAR"].tolist(), report.gear_inferred) == ([5], 1)


def test_gears_from_speed_and_rpm() -> None:
    speed = np.array([9.5, 33.0, 55.0, 81.0, 107.0, 5.0, 40.0, 100.0])
    rpm = np.array([1000.0, 2000, 2000, 2000, 2000, 900, 900, 2000])
    pedal = np.array([10.0, 10, 10, 10, 10, 10, 0, 10])
    assert infer_gear(speed, rpm, pedal).tolist() == [1, 2, 3, 4, 5, 0, 0, 0]


def test_times_with_and_without_fraction() -> None:
    times = ["1970-01-01 00-00-01", "1970-01-01T00:00:01.5", "1970-01-01 00-00-01-050000", "1970-01-01", "x"]
    plain, t, _ = read_times(np.array([*times, "1970-01-32 00-00-01", "1970-01-01 24-00-00"], object))
    _, offset, _ = read_times(np.array(["1970-01-01T00:00:01-0500", "1970-01-01T00:00:01.5-0500"], object))
    assert offset.tolist() == [1000, 1500]
    assert plain.tolist()[:3] == ["1970-01-01 00-00-01-0", "1970-01-01 00-00-01-5", "1970-01-01 00-00-01-05"]
    assert t.tolist() == [1000, 1500, 1050, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("spell", "are_milliseconds"),
    [
        (lambda t: f"1970-01-01T00:{t // 60_000:02}:{t // 1000 % 60:02}.{t % 1000:03}Z", False),
        (lambda t: f"1970-01-01 00:{t // 60_000:02}:{t // 1000 % 60:02}.{t % 1000:03}+02:00", False),
        (lambda t: f"{t / 1000 + 1748736000:.3f}", False),
        (lambda t: f"{t + 1748736000000}", False),
        (lambda t: f"1970-01-01 00-{t // 60_000:02}-{t // 1000 % 60:02}-{t % 1000}", True),
        (lambda t: f"1970-01-01 00-{t // 60_000:02}-{t // 1000 % 60:02}-{f'{t % 1000:03}'.rstrip('0')}", False),
    ],
)
@pytest.mark.parametrize("step", [500, 537])
def test_times_in_other_spellings(spell: Callable[[int], str], are_milliseconds: bool, step: int) -> None:
    right = np.arange(200) * step + 3
    _, t, milliseconds = read_times(np.array([spell(int(moment)) for moment in right], object))
    assert (t - t[0]).tolist() == (right - right[0]).tolist()
    assert milliseconds == are_milliseconds


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row("2024-05-01 10-00-00-0"), *[row("2024-05-01 10-00-01-5", speed="fast")] * 2],
            r"row 3, column SPEED: 'fast' "
            r"is not a number. 2 of 3 rows \(66.7%\) cannot be read, more than 5%, .* by comma and a decimal point",
        ),
        ([row("2024-05-01 10-00-00-0", brake="maybe")], r"row 2, column BRAKE_SIGNAL: 'maybe'"),
        ([row("2024-05-01 10-00-00-0", gear="high")], r"row 2, column GEAR: 'high'"),
        ([row("10:00:00")], r"row 2, column Time: '10:00:00'"),
        ([f"No Frame,{NO_DATA}"], "no valid row"),
        ([], "no valid row"),
    ],
)
def test_wrong_cells_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_telemetry(write(tmp_path / "telemetry.csv", *rows))


def test_impossible_values_and_cut_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "telemetry.csv", row("2024-05-01 10-00-00-0"), row("2024-05-01 10-00-00-5", speed="-33"), "2024"
    )
    _, report = read_telemetry(path)
    assert (report.valid, report.out_of_range, report.incomplete) == (1, 1, 1)


def moment(step_ms: int) -> str:
    seconds, rest = divmod(step_ms, 1000)
    return f"2024-05-01 10-{seconds // 60:02}-{seconds % 60:02}-{rest // 100}"


def drive(count: int = 60, step_ms: int = 500) -> list[str]:
    """Rows whose speed rises by 1 km/h each, from 50."""
    return [row(moment(step_ms * n), speed=str(50 + n % 100)) for n in range(count)]


def test_rows_that_cannot_be_read_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = drive(100)
    rows[3] = row(moment(1500), rpm="nan")
    rows[9] = row(moment(4500), gear="nan", speed="59")  # the gear follows from speed and engine speed
    rows[20] = rows[20] + '"'  # a quote without its end
    rows[22] += ',"'  # and one that would take the next line along
    rows[40] = HEADER
    rows[50] = rows[50].replace("20.5", "20\0.5")
    rows[99] = rows[99][:30]  # cut last line
    table, report = read_telemetry(write(tmp_path / "telemetry.csv", *rows))
    assert (report.rows, report.valid, report.unreadable, report.headers, report.incomplete) == (100, 94, 4, 1, 1)
    assert table["SPEED"].iloc[8] == 59
    rows[1] = "\0" * 4096  # as where power was cut; no sign of UTF-16
    lenient = ReadingConfig(most_unreadable=0.1)
    report = read_telemetry(write(tmp_path / "telemetry.csv", *rows), lenient)[1]
    assert (report.valid, report.dialect.encoding) == (93, "utf-8")
    rows[1] = drive(2)[1]
    rows[4:6] = [row(moment(2000 + 500 * n), rpm="-") for n in range(2)]
    with pytest.raises(DataError, match=r"row 5, column RPM: 'nan' is not a number. 6 of 98 rows \(6.1%\)"):
        read_telemetry(write(tmp_path / "telemetry.csv", *rows))
    assert read_telemetry(tmp_path / "telemetry.csv", lenient)[1].valid == 92


@pytest.mark.parametrize(
    ("change", "dialect"),
    [
        (lambda text: text, ("utf-8", "comma", "point", "False/True")),
        (lambda text: text.replace("True", "TRUE").replace("False", "FALSE"),
            ("utf-8", "comma", "point", "FALSE/TRUE")),
        (lambda text: text.replace("True", "1.0").replace("False", "0.0"), ("utf-8", "comma", "point", "0.0/1.0")),
        (lambda text: "sep=\t\n" + text.replace(",", "\t"), ("utf-8", "tab", "point", "False/True")),
        (
            lambda text: "\ufeff" + text.replace(",", ";").replace(".", ",").replace("True", "WAHR")
            .replace("False", "FALSCH").replace("\n", "\r\n"),
            ("utf-8", "semicolon", "comma", "FALSCH/WAHR"),
        ),
        (lambda text: text.replace("MARK", "\xfc").encode("cp1252"), ("cp1252", "comma", "point", "False/True")),
        (lambda text: text.encode("utf-16"), ("utf-16", "comma", "point", "False/True")),
    ],
)  # fmt: skip
def test_what_loggers_and_spreadsheets_write(tmp_path: Path, change: Callable, dialect: tuple[str, ...]) -> None:
    header, path = "Time,SPEED,ACCELERATOR_POS_D,BRAKE_SIGNAL,MARK\n", tmp_path / "telemetry.csv"
    content = change(header + "".join(f"{moment(500 * n)},{50 + n}.5,20.25,{n % 2 == 1},x\n" for n in range(12)))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table, report = read_telemetry(path)
    assert tuple(asdict(report.dialect).values()) == (*dialect, 2.0)
    assert table["SPEED"].tolist() == [50.5 + n for n in range(12)]
    assert table["BRAKE_SIGNAL"].tolist() == [False, True] * 6


def test_a_column_that_is_there_twice_with_equal_cells_is_read(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.csv"
    path.write_text("\n".join(f"{line},{line.split(',')[1]}" for line in (HEADER, *drive())))
    assert read_telemetry(path)[0]["SPEED"].iloc[-1] == 109


def test_a_last_line_that_is_cut_costs_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "telemetry.csv", row(moment(0)), row(moment(500)))
    path.write_text(path.read_text().removesuffix('1,"[1, 2]",[]\n'))  # of a brake force of -0.01
    table, report = read_telemetry(path)
    assert (len(table), report.incomplete) == (1, 1)
    path.write_text(path.read_text().rpartition("\n")[0])  # whole, but for the end of the line
    assert len(read_telemetry(path)[0]) == 1


def test_a_clock_that_is_set_back_is_a_break_and_no_sort(tmp_path: Path) -> None:
    rows = [row(moment(500 * n), speed=str(50 + n)) for n in range(40)]
    later = [row(moment(500 * n - 5_200), brake="True", speed=str(90 + n)) for n in range(11, 51)]
    table, report = read_telemetry(write(tmp_path / "telemetry.csv", *rows, *later))
    assert table["SPEED"].tolist() == [*range(50, 90), *range(101, 141)]
    assert (report.backwards, report.repeated) == (1, 0)
    labels = future_labels(table)
    assert not labels["brake_1s"].iloc[:38].any() and labels["brake_1s"].iloc[38:40].isna().all()
    assert labels["brake_5s"].iloc[30:40].isna().all() and labels["brake_5s"].iloc[40:70].all()
    starts = window_starts(separated_times(table, SLOT), np.ones(80, bool), WindowConfig(stride=1))
    assert starts.tolist() == [*range(21), *range(40, 61)]


def test_a_byte_of_ones_is_dropped_where_its_neighbours_contradict(tmp_path: Path) -> None:
    rows = drive()
    for n in (20, 21, 50):
        rows[n] = row(moment(500 * n), speed="255")
    table, report = read_telemetry(write(tmp_path / "telemetry.csv", *rows))
    assert (report.sentinels, table["SPEED"].max()) == (3, 109)
    fast = [row(moment(500 * n), speed=str(235 + n)) for n in range(40)]
    assert read_telemetry(write(tmp_path / "telemetry.csv", *fast))[1].sentinels == 0


@pytest.mark.parametrize(("step_ms", "hertz", "kept"), [(100, 10.0, 20), (300, 3.33, 60), (500, 2.0, 100)])
def test_more_than_two_hertz_is_thinned_out(tmp_path: Path, step_ms: int, hertz: float, kept: int) -> None:
    table, report = read_telemetry(write(tmp_path / "telemetry.csv", *drive(100, step_ms)))
    assert (report.dialect.rate_hz, len(table), report.left_out) == (hertz, kept, 100 - kept)
    assert np.diff(table["slot"]).tolist() == [500] * (kept - 1)
    assert table["t"].tolist() == read_times(table["Time"].to_numpy(object))[1].tolist()
    assert (table["t"] - table["slot"]).abs().max() <= step_ms / 2
    assert report.share_lost == 0


@pytest.mark.parametrize(
    ("speed", "rpm", "declared", "error"),
    [
        ("50,5", "1869,5", "", ""),
        ("50,500", "1869", "", "comma in '50,500' may be a decimal mark or set thousands apart: declare decimal_mark"),
        ("50,500", "1869", ",", ""),
        ("50.5", "1,869", "", "column RPM: '1,869' is not a number"),
        ("50,5", "1.869", "", "column SPEED: '50,5' is not a number"),
        ("50.5", "1 869.5", "", "column RPM: '1 869.5' is not a number"),
        ("5.05E+1", "+1.869e3", "", ""),
    ],
)
def test_a_decimal_comma_is_read_where_it_is_certain(
    tmp_path: Path, speed: str, rpm: str, declared: str, error: str
) -> None:
    lines = [["Time", "speed (km/h)", "RPM", "ACCELERATOR_POS_D", "BRAKE_SIGNAL", "ENGINE_LOAD"]]
    lines += [[moment(500 * n), speed, rpm if n else "1869", "20", "falsch", ""] for n in range(12)]
    (tmp_path / "telemetry.csv").write_text("\n".join(map(";".join, lines)), encoding="utf-8")
    config = ReadingConfig(decimal_mark=declared)
    if error:
        with pytest.raises(DataError, match=error):
            read_telemetry(tmp_path / "telemetry.csv", config)
        return
    table, report = read_telemetry(tmp_path / "telemetry.csv", config)
    assert set(table["SPEED"]) == {50.5} and set(table["RPM"]) <= {1869.0, 1869.5}
    assert (report.empty_columns, report.dialect.booleans) == (("ENGINE_LOAD",), "falsch")


def test_what_reading_json_declares_is_read(tmp_path: Path) -> None:
    declared = {
        "encoding": "utf-16-le",
        "separator": ":",
        "time_format": "%d.%m.%Y %H.%M.%S.%f",
        "columns": {"SPEED": "Vitesse (mph)", "BRAKE_SIGNAL": "Frein", "ACCELERATOR_POS_D": "Pédale"},
        "factors": {"SPEED": 1.609344},
        "true_values": ["oui"],
        "false_values": ["non", "0"],
        "missing_values": ["?"],
        "pedal_range": [10, 60],
    }
    rows = [f"01.05.2024 10.00.{n // 2:02}.{5 * (n % 2)}:100:{'?' if n == 5 else 35}:oui" for n in range(12)]
    recording = Recording(tmp_path)
    recording.telemetry_path.write_bytes("\n".join(["Time:Vitesse (mph):Pédale:Frein", *rows]).encode("utf-16-le"))
    with pytest.raises(
        DataError, match=r"lacks the columns .* declare other headers, a separator, an encoding or miss"
    ):
        recording.telemetry()
    recording.keep_reading(ReadingConfig(**declared))
    table, report = recording.telemetry()
    assert table["Time"].tolist()[:2] == ["2024-05-01 10-00-00-0", "2024-05-01 10-00-00-5"]
    assert (report.valid, report.incomplete, report.unreadable, report.dialect.rate_hz) == (11, 1, 0, 2.0)
    assert (set(table["SPEED"]), set(table["ACCELERATOR_POS_D"]), set(table["BRAKE_SIGNAL"])) == (
        {160.9344},
        {50.0},
        {True},
    )
    assert recording.reading().declared() == declared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pedal_range": [5, 5]}, "expected two different numbers"),
        ({"separator": ";;"}, "separator ';;': expected"),
        ({"decimal_mark": "'"}, "decimal_mark"),
        ({"columns": {"SPED": "v"}}, "columns SPED: expected headers of Time, SPEED"),
        ({"factors": {"GEAR": 2}}, "expected numbers other than 0 for some of SPEED, RPM"),
        ({"factors": {"SPEED": 0}}, "expected numbers other than 0"),
        ({"encoding": "latin-99"}, "encoding or time_format: unknown encoding"),
        ({"time_format": "%d.%m %Q"}, "encoding or time_format"),
    ],
)
def test_wrong_declarations_are_named(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ReadingConfig(**options)


def test_a_header_below_other_lines_and_times_of_iso_8601(tmp_path: Path) -> None:
    text = "".join(f"2024-05-01T10:00:0{n // 2}.{5 * (n % 2)},50,20,False\n" for n in range(12))
    path = tmp_path / "telemetry.csv"
    path.write_text("# logger 3\n\ntime,Speed,ACCELERATOR_POS_D,brake_signal\n" + text)
    assert read_telemetry(path)[0]["Time"].iloc[1] == "2024-05-01 10-00-00-5"


def odd(folder: Path, **columns: Callable[[int], str]) -> Path:
    """Telemetry of two minutes whose cells in some columns are others, by row number."""
    names = ("Time", "SPEED", "RPM", "ACCELERATOR_POS_D", "ENGINE_LOAD", "BRAKE_SIGNAL", "GEAR")
    usual = (lambda n: moment(500 * n), lambda n: "100", lambda n: "1869", lambda n: str(20 + n % 9),
             lambda n: str(30 + n % 5), lambda n: str(n % 40 > 35), lambda n: "5")  # fmt: skip
    cells = dict(zip(names, usual, strict=True)) | columns
    lines = [",".join(cells), *(",".join(cell(n) for cell in cells.values()) for n in range(240))]
    (folder / "telemetry.csv").write_text("\n".join(lines) + "\n")
    return folder / "telemetry.csv"


@pytest.mark.parametrize(
    ("columns", "valid", "expected"),
    [
        ({"BRAKE_SIGNAL": lambda n: "True" if n % 40 > 35 else ""}, 240, ("BRAKE_SIGNAL", [False] * 36 + [True] * 4)),
        ({"RPM": lambda n: str(1800 + n) if n % 2 == 0 else ""}, 240, ("RPM", [1800, 1800, 1802, 1802])),
        ({"RPM": lambda n: "1869" if n % 20 == 0 else ""}, 84, ("RPM", [1869] * 7)),  # held for three seconds
        ({"SPEED": lambda n: "-4" if n < 5 else "100"}, 240, ("SPEED", [-4] * 5 + [100])),
        ({"SPEED": lambda n: "100 kilometer_per_hour", "RPM": lambda n: "1869 revolutions_per_minute"}, 240,
         ("SPEED", [100])),
        ({"GEAR": lambda n: "P" if n == 0 else "D"}, 240, ("GEAR", [0, 5, 5])),
        ({"GEAR": lambda n: str(n % 9)}, 240, ("GEAR", [0, 1, 2, 3, 4, 5, 5, 5, 5])),
        ({"RPM": lambda n: "3000", "GEAR": lambda n: "" if n % 2 else str(n % 3)}, 240, ("GEAR", [0, 0, 2, 2])),
        # Unknown gears of a car with other ratios: held for three seconds, but not over a clock that was set back.
        ({"RPM": lambda n: "3000", "GEAR": lambda n: "4" if n == 1 else "D"}, 240, ("GEAR", [0, *[4] * 7, 0, 0])),
        ({"RPM": lambda n: "3000", "GEAR": lambda n: "4" if n == 1 else "",
          "Time": lambda n: moment(500 * n - 1100 * (n > 3))}, 240, ("GEAR", [0, 4, 4, 4, 0, 0])),
        ({"SPEED": lambda n: "3" if n else "81", "RPM": lambda n: "900" if n else "2000",
          "GEAR": lambda n: "" if n else "4"}, 240, ("GEAR", [4, 0, 0])),  # inferred, not held
    ],
)  # fmt: skip
def test_what_is_certain_about_unusual_cars_and_loggers_is_read(
    tmp_path: Path, columns: dict[str, Callable[[int], str]], valid: int, expected: tuple[str, list]
) -> None:
    table, report = read_telemetry(odd(tmp_path, **columns))
    name, values = expected
    assert report.valid == valid and table[name].tolist()[: len(values)] == values


@pytest.mark.parametrize(
    ("columns", "empty"),
    [
        ({"RPM": lambda n: "0", "GEAR": lambda n: "", "ENGINE_LOAD": lambda n: "0"}, {"RPM", "GEAR", "ENGINE_LOAD"}),
        ({"ENGINE_LOAD": lambda n: "100"}, {"ENGINE_LOAD"}),
        ({"RPM": lambda n: str(3000 + n), "GEAR": lambda n: ""}, {"GEAR"}),  # of a car with other ratios
    ],
)
def test_a_channel_that_says_nothing_about_the_car_is_no_input(
    tmp_path: Path, columns: dict[str, Callable[[int], str]], empty: set[str]
) -> None:
    table, report = read_telemetry(odd(tmp_path, **columns))
    assert {*report.empty_columns} == empty and not empty & {*table.columns} and report.valid == 240


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"Time,SPEED\n1,2\n",
         r"lacks the columns ACCELERATOR_POS_D, BRAKE_SIGNAL: found Time, SPEED, separated by comma\. Exp"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"lacks the columns .*found version https://git-lfs"),
        (b"\x00\x01\x02\xff\xfe", r"lacks the columns .*found \?\?\?"),
        (b"Time,SPEED,ACCELERATOR_POS_D,BRAKE_SIGNAL, SPEED\n2024-05-01 10-00-00,1,2,True,3\n",
         "has the column SPEED more than once, with different cells"),
        ("\n".join([HEADER, *drive(40, 1000)]).encode(),
         "is recorded at 1 Hz, a row every 1 s: expected 2 Hz or more"),
        ("\n".join([HEADER, *drive()[::-1]]).encode(), "steps back in time 59 times in 60 rows"),
        ("\n".join([HEADER, *(line.replace("-0,", ",", 1).replace("-5,", ",", 1) for line in drive())]).encode(),
         "times in whole seconds that rows share: expected fractions"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        read_telemetry(tmp_path / "telemetry.csv")
    (tmp_path / "telemetry.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_telemetry(tmp_path / "telemetry.csv")
