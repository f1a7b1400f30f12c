"""What loggers, spreadsheets and disks do to telemetry.csv. Each function is a kind; the draft knows what is right."""

import csv
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from drive_assets_tests.campaign.drafts import COLUMNS, NUMBERS, ROWS, Draft, stamp

FORMAT = "%Y-%m-%d %H-%M-%S-%f"


def no_value(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng):
        column = rng.randrange(1, 6)
        draft.cells(number)[column] = rng.choice(["nan", "-", "--", "n/a", "NULL", "#N/A", "", "None", " "])


def junk_cells(draft: Draft, rng: Random) -> None:
    junk = ["fast", "\x07\x1b[31m", "=1+1", "0x1F", "1e", "٣٫٥", "True;", "🚗", "inf", "-inf", "1e400", "'; DROP TABLE"]
    for number in draft.pick(rng):
        draft.cells(number)[rng.choice([1, 2, 3, 4, 5, 7])] = rng.choice(junk)


def many_junk_cells(draft: Draft, rng: Random) -> None:
    column = rng.choice(["SPEED", "ACCELERATOR_POS_D", "BRAKE_SIGNAL", "RPM"])
    for number in rng.sample(range(ROWS), rng.randint(8, ROWS)):
        draft.cells(number)[COLUMNS.index(column)] = "fast"
        draft.harmed.add(number)
    draft.must_refuse, draft.told = True, ("row ", column)


def huge_field(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng, 1):
        draft.cells(number)[rng.randrange(len(COLUMNS) - 2)] = rng.choice('x9"') * rng.choice(
            [10_000, 200_000, 5_000_000]
        )


def impossible_values(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng):
        column, value = rng.choice(
            [("SPEED", "-40"), ("SPEED", "9e99"), ("ACCELERATOR_POS_D", "300"), ("RPM", "-1"), ("ENGINE_LOAD", "1e9")]
        )
        draft.cells(number)[COLUMNS.index(column)] = value


def speed_255(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng):
        draft.cells(number)[1] = "255"


def too_many_or_few_cells(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng):
        row = draft.cells(number)
        row[:] = row[: rng.randint(1, 5)] if rng.random() < 0.5 else [*row, *["7"] * rng.randint(1, 40)]


def open_quote(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng, 1):
        place = draft.place(number)
        line = draft.separator.join(draft.cells(number))
        cut = rng.randrange(len(line))
        draft.rows[place] = line[:cut] + '"' + line[cut:]


def nul_bytes(draft: Draft, rng: Random) -> None:
    """As a file system leaves them after the power was cut: a block, within or in place of a row."""
    for number in draft.pick(rng, 1):
        place = draft.place(number)
        line = draft.separator.join(draft.cells(number))
        cut = rng.randrange(len(line))
        draft.rows[place] = line[:cut] + "\0" * rng.choice([1, 7, 512, 4096]) + line[cut:]


def cut_end(draft: Draft, rng: Random) -> None:
    draft.harmed.add(ROWS - 1)
    length = len(draft.separator.join(draft.cells(ROWS - 1)))
    # Short of the last two columns, which are not read, the row is whole.
    cut = rng.randint(6, length)
    draft.spoil.append(lambda content: content[: -cut * (2 if draft.encoding.startswith("utf-16") else 1)])


def header_again(draft: Draft, rng: Random) -> None:
    for _ in range(rng.randint(1, 3)):
        draft.insert(list(draft.columns), rng)


def fault_rows(draft: Draft, rng: Random) -> None:
    for _ in range(rng.randint(1, 20)):
        row = [rng.choice(["No Frame", "Incomplete Data"]), *["No Data"] * (len(draft.columns) - 1)]
        draft.insert(row, rng)


def blank_lines(draft: Draft, rng: Random) -> None:
    for _ in range(rng.randint(1, 9)):
        draft.insert(rng.choice(["", "   ", "\t", draft.separator * 3]), rng)


def repeated_rows(draft: Draft, rng: Random) -> None:
    """The same time twice: the later row counts, as its frame is the one on disk."""
    for number in rng.sample(range(1, ROWS), 3):
        wrong = list(draft.cells(number))
        wrong[1] = "77"
        place = draft.place(number)
        draft.rows.insert(place, wrong)
        # `place` finds the first of equal times: from now on this row is told apart by its cells.
        draft.rows[place + 1], draft.rows[place] = draft.rows[place + 1], wrong


def separators(draft: Draft, rng: Random) -> None:
    draft.separator = rng.choice([";", "\t", "|"])
    if rng.random() < 0.6:
        for name in NUMBERS:
            draft.map_column(name, lambda cell: cell.replace(".", ","))


def encodings(draft: Draft, rng: Random) -> None:
    draft.encoding = rng.choice(["utf-8-sig", "utf-16", "cp1252"])
    draft.columns.append("Straße")
    for row in draft.rows:
        if isinstance(row, list):
            row.append("Köln–Süd")


def odd_encodings(draft: Draft, rng: Random) -> None:
    draft.encoding = rng.choice(["utf-16-le", "utf-16-be", "utf-32", "cp500", "utf-7"])
    draft.may_refuse = True


def line_ends_and_quotes(draft: Draft, rng: Random) -> None:
    draft.end = rng.choice(["\n", "\r\n", "\r"])
    draft.quoting = rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])


def boolean_words(draft: Draft, rng: Random) -> None:
    no, yes = rng.choice(
        [
            ("FALSE", "TRUE"),
            ("0", "1"),
            ("0.0", "1.0"),
            ("FALSCH", "WAHR"),
            ("no", "yes"),
            ("off", "on"),
            (" False ", " True "),
            ("faux", "vrai"),
            ("0,0", "1,0"),
        ]
    )
    if "," in no and draft.separator == ",":
        no, yes = "false", "true"
    draft.map_column("BRAKE_SIGNAL", {"False": no, "True": yes}.get)  # type: ignore[arg-type]


def unknown_booleans(draft: Draft, rng: Random) -> None:
    no, yes = rng.choice([("released", "pressed"), ("ложь", "истина"), ("2", "3"), ("F", "T")])
    draft.map_column("BRAKE_SIGNAL", {"False": no, "True": yes}.get)  # type: ignore[arg-type]
    draft.may_refuse = True


def number_formats(draft: Draft, rng: Random) -> None:
    change = rng.choice(
        [
            lambda cell: f" {cell} ",
            lambda cell: f"{float(cell):.12e}",
            lambda cell: f"+{float(cell)!r}",
            lambda cell: f"{float(cell):.9f}",
        ]
    )
    for name in rng.sample(NUMBERS[:4], 2):
        draft.map_column(name, change)


def thousands(draft: Draft, rng: Random) -> None:
    """1,200.25 or 1.200,25: understood, or refused; never a thousandth of it."""
    mark = rng.choice([",", " ", "'"])
    whole = rng.random() < 0.5
    draft.map_column(
        "RPM",
        lambda cell: f"{float(cell):,.0f}".replace(",", mark) if whole else f"{float(cell):,.2f}".replace(",", mark),
    )
    draft.rounded = {"RPM"} if whole else set()
    draft.may_refuse = True


def column_order(draft: Draft, rng: Random) -> None:
    order = rng.sample(range(len(draft.columns)), len(draft.columns))
    draft.columns = [draft.columns[place] for place in order]
    draft.rows = [
        [row[place] for place in order if place < len(row)] if isinstance(row, list) else row for row in draft.rows
    ]


def more_columns(draft: Draft, rng: Random) -> None:
    for number in range(rng.choice([1, 5, 300])):
        draft.columns.append(rng.choice(["", "Unnamed: 0", "LAT", f"X{number}", "Time "]) if number else "X")
    width = len(draft.columns)
    for row in draft.rows:
        if isinstance(row, list):
            row.extend(["7"] * (width - len(row)))
    if any(name.strip() == "Time" for name in draft.columns[1:]):
        draft.must_refuse, draft.told = True, ("Time",)


def column_twice(draft: Draft, rng: Random) -> None:
    name = rng.choice(COLUMNS[:6])
    same = rng.random() < 0.5
    draft.columns.append(name if rng.random() < 0.5 else f" {name} ")
    place = COLUMNS.index(name)
    for row in draft.rows:
        if isinstance(row, list):
            row.append(row[place] if same else "7")
    if not same:
        draft.must_refuse, draft.told = True, (name,)


def column_missing(draft: Draft, rng: Random) -> None:
    name = rng.choice(COLUMNS[:8])
    place = draft.columns.index(name)
    draft.columns.pop(place)
    for row in draft.rows:
        if isinstance(row, list) and len(row) > place:
            row.pop(place)
    if name in ("Time", "SPEED", "ACCELERATOR_POS_D", "BRAKE_SIGNAL"):
        draft.must_refuse, draft.told = True, (name,)
    elif name == "BRAKE_FORCE":
        draft.is_known = False


def header_spelling(draft: Draft, rng: Random) -> None:
    draft.columns = [rng.choice([name, f" {name}", f"{name} ", name.lower(), name.title()]) for name in draft.columns]


def other_header(draft: Draft, rng: Random) -> None:
    changes: list[Callable[[str], str]] = ["{} (x)".format, "obd.{}".format]
    change = rng.choice(changes)
    draft.columns = [change(name) for name in draft.columns]
    draft.must_refuse, draft.told = True, ("lacks the column",)


def no_header(draft: Draft, rng: Random) -> None:
    draft.columns = [str(cell) for cell in draft.rows.pop(0)]
    draft.must_refuse, draft.told = True, ("lacks the column",)


def before_the_header(draft: Draft, rng: Random) -> None:
    lines = rng.choice([b"# logger 2.1\n# car: A1\n", b"sep=,\n", b"\n\n\n", b"Logger,A1,,,\n"])
    draft.spoil.append(lambda content: lines.decode().encode(draft.encoding) + content)
    draft.may_refuse = True


def nothing_in_it(draft: Draft, rng: Random) -> None:
    content = rng.choice(
        [b"", b"\n", b" \n \n", b"\xef\xbb\xbf", b"\xff\xfe", ",".join(COLUMNS).encode(), b"\0" * 4096]
    )
    draft.spoil.append(lambda _: content)
    draft.must_refuse = True


def binary_file(draft: Draft, rng: Random) -> None:
    content = rng.choice(
        [
            rng.randbytes(50_000),
            draft.pictures[0],
            b"PK\x03\x04" + rng.randbytes(999),
            b"SQLite format 3\0",
            b"\x1f\x8b" + rng.randbytes(999),
            b"<html><body>Sign in</body></html>",
        ]
    )
    draft.spoil.append(lambda _: content)
    draft.must_refuse = True


def flipped_bytes(draft: Draft, rng: Random) -> None:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 30)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)

    draft.spoil.append(flip)
    draft.may_refuse, draft.is_known = True, False


def more_rows_a_second(draft: Draft, rng: Random) -> None:
    """4, 6 or 10 Hz: of these the rows nearest to each half second are kept, which are the true ones."""
    between = rng.choice([1, 2, 4])
    rows: list[list[str] | str] = []
    for row in draft.rows:
        rows.append(row)
        if not isinstance(row, list) or row[0] not in draft.times:
            continue
        moment = datetime.strptime(row[0] + "00000", FORMAT)
        for number in range(1, between + 1):
            later = moment + timedelta(seconds=number * 0.5 / (between + 1))
            rows.append([f"{later:{FORMAT}}"[:-3], "99", *row[2:]])
    draft.rows = rows


def fewer_rows(draft: Draft, rng: Random) -> None:
    every = rng.choice([2, 4, 10])
    draft.rows = draft.rows[::every]
    draft.must_refuse = ROWS // every > 10
    draft.told = ("Hz",) if draft.must_refuse else ()
    draft.harmed.update(range(ROWS))


def clock_jump(draft: Draft, rng: Random) -> None:
    """Ahead, as when the time arrives by radio, or back; not to a moment that was there already."""
    first = rng.randrange(5, ROWS - 5)
    seconds = rng.choice([25.2, 600.2, 3600.3, 86_400.1, -25.2, -600.2, -3600.3, -86_400.1 * 365])
    for number in range(first, ROWS):
        old = draft.times[number]
        new = stamp(datetime.strptime(old + "00000", FORMAT) + timedelta(seconds=seconds))
        draft.cells(number)[0] = new
        draft.times[number] = new
        if f"{old}.jpg" in draft.frames:
            draft.frames[f"{new}.jpg"] = draft.frames.pop(f"{old}.jpg")
    draft.breaks.append(first)


def other_time_formats(draft: Draft, rng: Random) -> None:
    change = rng.choice(
        [
            lambda time: time[:10] + "T" + time[11:19].replace("-", ":") + "Z",
            lambda time: time[11:],
            lambda time: time.replace("-", "/", 2),
            lambda time: time[:-2] + " PM",
            lambda time: "1716192000.5",
            lambda time: "2024-13-45 25-61-61-0",
            lambda time: "²⁰²⁴" + time[4:],
        ]
    )
    draft.map_column("Time", change)
    draft.must_refuse, draft.told = True, ("row ", "Time")


def finer_fractions(draft: Draft, rng: Random) -> None:
    digits = rng.randint(2, 6)
    zeros = "0" * (digits - 1)
    draft.map_column("Time", lambda time: time + zeros)
    draft.times = [time + zeros for time in draft.times]
    draft.frames = {name.replace(".jpg", f"{zeros}.jpg"): content for name, content in draft.frames.items()}


def raw_pedal(draft: Draft, rng: Random) -> None:
    """14 to 82 %, as the car's computer gives it: nobody would ever coast."""
    draft.map_column("ACCELERATOR_POS_D", lambda cell: f"{14.12 + 0.67 * float(cell):.2f}")
    draft.is_known, draft.told = False, ("rescale",)


MIXABLE = (
    clock_jump,
    number_formats,
    header_spelling,
    more_columns,
    encodings,
    separators,
    boolean_words,
    line_ends_and_quotes,
    no_value,
    junk_cells,
    huge_field,
    impossible_values,
    speed_255,
    too_many_or_few_cells,
    open_quote,
    nul_bytes,
    cut_end,
    header_again,
    fault_rows,
    blank_lines,
)
"""Several of these may meet in one file; they are done in this order."""
ALONE = (
    more_rows_a_second,
    many_junk_cells,
    repeated_rows,
    odd_encodings,
    unknown_booleans,
    thousands,
    column_order,
    column_twice,
    column_missing,
    other_header,
    no_header,
    before_the_header,
    nothing_in_it,
    binary_file,
    flipped_bytes,
    fewer_rows,
    other_time_formats,
    finer_fractions,
    raw_pedal,
)
