"""What loggers, spreadsheets and disks do to telemetry.csv. The draft knows what is right afterwards."""

import csv
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

from drive_assets_tests.campaign.drafts import COLUMNS, NUMBERS, ROWS, Draft, Kinds, stamp

FORMAT = "%Y-%m-%d %H-%M-%S-%f"
KINDS = Kinds()


@KINDS.mixable
def clock_jump(draft: Draft, rng: Random) -> None:
    """Ahead, as when the time arrives by radio, or back; not to a moment that was there already."""
    first = rng.randrange(5, ROWS - 5)
    seconds = rng.choice([25.2, 600.2, 3600.3, 86_400.1, -25.2, -600.2, -3600.3, -86_400.1 * 365])
    for number in range(first, ROWS):
        old = draft.times[number]
        new = stamp(datetime.strptime(old + "00000", FORMAT) + timedelta(seconds=seconds))
        draft.cells(number)[0] = draft.times[number] = new
        if f"{old}.jpg" in draft.frames:
            draft.frames[f"{new}.jpg"] = draft.frames.pop(f"{old}.jpg")
    draft.breaks.append(first)


@KINDS.mixable
def number_formats(draft: Draft, rng: Random) -> None:
    spelling = rng.choice([" {} ", "{:.12e}", "+{!r}", "{:.9f}"])
    for name in rng.sample(NUMBERS[:4], 2):
        draft.map_column(name, lambda cell: spelling.format(float(cell)))


@KINDS.mixable
def header_spelling(draft: Draft, rng: Random) -> None:
    draft.columns = [rng.choice([name, f" {name}", f"{name} ", name.lower(), name.title()]) for name in draft.columns]


@KINDS.mixable
def more_columns(draft: Draft, rng: Random) -> None:
    names = ["X", *(rng.choice(["", "Unnamed: 0", "LAT", f"X{n}", "Time "]) for n in range(rng.choice([0, 4, 299])))]
    draft.add_columns(names, "7")
    if "Time " in names:
        draft.refuse("Time")


@KINDS.mixable
def encodings(draft: Draft, rng: Random) -> None:
    draft.encoding = rng.choice(["utf-8-sig", "utf-16", "cp1252"])
    draft.add_columns(["Straße"], "Köln–Süd")


@KINDS.mixable
def separators(draft: Draft, rng: Random) -> None:
    draft.separator = rng.choice([";", "\t", "|"])
    if rng.random() < 0.6:
        for name in NUMBERS:
            draft.map_column(name, lambda cell: cell.replace(".", ","))


@KINDS.mixable
def boolean_words(draft: Draft, rng: Random) -> None:
    words = ["FALSE TRUE", "0 1", "0.0 1.0", "FALSCH WAHR", "no yes", "off on", "f t"]
    _booleans(draft, rng, [*words, "0,0 1,0"] if draft.separator != "," else words)


@KINDS.mixable
def line_ends_and_quotes(draft: Draft, rng: Random) -> None:
    draft.end = rng.choice(["\n", "\r\n", "\r"])
    draft.quoting = rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])


@KINDS.mixable
def no_value(draft: Draft, rng: Random) -> None:
    _cells(draft, rng, COLUMNS[1:6], ["nan", "-", "--", "n/a", "NULL", "#N/A", "", "None", " "])


@KINDS.mixable
def junk_cells(draft: Draft, rng: Random) -> None:
    junk = ["fast", "\x07\x1b[31m", "=1+1", "0x1F", "1e", "٣٫٥", "True;", "🚗", "inf", "-inf", "1e400", "'; DROP TABLE"]
    _cells(draft, rng, [*COLUMNS[1:6], "BRAKE_FORCE"], junk)


@KINDS.mixable
def huge_field(draft: Draft, rng: Random) -> None:
    _cells(draft, rng, COLUMNS[:-2], [rng.choice('x9"') * rng.choice([10_000, 200_000, 5_000_000])], most=1)


@KINDS.mixable
def impossible_values(draft: Draft, rng: Random) -> None:
    name, value = rng.choice(
        [("SPEED", "-40"), ("SPEED", "9e99"), ("ACCELERATOR_POS_D", "300"), ("RPM", "-1"), ("ENGINE_LOAD", "1e9")]
    )
    _cells(draft, rng, [name], [value])


@KINDS.mixable
def speed_255(draft: Draft, rng: Random) -> None:
    _cells(draft, rng, ["SPEED"], ["255"])


@KINDS.mixable
def too_many_or_few_cells(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng):
        row = draft.cells(number)
        row[:] = row[: rng.randint(1, 5)] if rng.random() < 0.5 else [*row, *["7"] * rng.randint(1, 40)]


@KINDS.mixable
def open_quote(draft: Draft, rng: Random) -> None:
    _into_a_line(draft, rng, '"')


@KINDS.mixable
def nul_bytes(draft: Draft, rng: Random) -> None:
    """As a file system leaves them after the power was cut."""
    _into_a_line(draft, rng, "\0" * rng.choice([1, 7, 512, 4096]))


@KINDS.mixable
def cut_end(draft: Draft, rng: Random) -> None:
    draft.harmed.add(ROWS - 1)
    # Short of the last two columns, which are not read, the row is whole.
    cut = rng.randint(6, len(draft.separator.join(draft.cells(ROWS - 1))))
    draft.spoil.append(lambda content: content[: -cut * (2 if draft.encoding.startswith("utf-16") else 1)])


@KINDS.mixable
def header_again(draft: Draft, rng: Random) -> None:
    for _ in range(rng.randint(1, 3)):
        draft.insert(list(draft.columns), rng)


@KINDS.mixable
def fault_rows(draft: Draft, rng: Random) -> None:
    for _ in range(rng.randint(1, 20)):
        row = [rng.choice(["No Frame", "Incomplete Data"]), *["No Data"] * (len(draft.columns) - 1)]
        draft.insert(row, rng)


@KINDS.mixable
def blank_lines(draft: Draft, rng: Random) -> None:
    for _ in range(rng.randint(1, 9)):
        draft.insert(rng.choice(["", "   ", "\t", draft.separator * 3]), rng)


@KINDS.alone
def more_rows_a_second(draft: Draft, rng: Random) -> None:
    """4, 6 or 10 Hz: of these the rows nearest to each half second are kept, which are the true ones."""
    between = rng.choice([1, 2, 4])
    for number, time in enumerate(draft.times):
        moment, row = datetime.strptime(time + "00000", FORMAT), draft.cells(number)
        later = [moment + timedelta(seconds=n * 0.5 / (between + 1)) for n in range(1, between + 1)]
        place = draft.place(number) + 1
        draft.rows[place:place] = [[f"{when:{FORMAT}}"[:-3], "99", *row[2:]] for when in later]


@KINDS.alone
def many_junk_cells(draft: Draft, rng: Random) -> None:
    column = rng.choice(["SPEED", "ACCELERATOR_POS_D", "BRAKE_SIGNAL", "RPM"])
    for number in rng.sample(range(ROWS), rng.randint(8, ROWS)):
        draft.cells(number)[COLUMNS.index(column)] = "fast"
        draft.harmed.add(number)
    draft.refuse("row ", column)


@KINDS.alone
def repeated_rows(draft: Draft, rng: Random) -> None:
    """The same time twice: the later row counts, as its frame is the one on disk."""
    for number in rng.sample(range(1, ROWS), 3):
        wrong = list(draft.cells(number))
        wrong[1] = "77"
        draft.rows.insert(draft.place(number), wrong)


@KINDS.alone
def odd_encodings(draft: Draft, rng: Random) -> None:
    draft.encoding, draft.may_refuse = rng.choice(["utf-16-le", "utf-16-be", "utf-32", "cp500", "utf-7"]), True


@KINDS.alone
def unknown_booleans(draft: Draft, rng: Random) -> None:
    _booleans(draft, rng, ["released pressed", "ложь истина", "2 3", "faux vrai"])
    draft.may_refuse = True


@KINDS.alone
def declared(draft: Draft, rng: Random) -> None:
    """What `reading.json` declares is read."""
    _booleans(draft, rng, ["faux vrai"])
    draft.columns[1] = "Vitesse"
    draft.map_column("SPEED", lambda cell: f"{float(cell) * 4:.2f}")
    draft.files["reading.json"] = (
        b'{"columns": {"SPEED": "Vitesse"}, "factors": {"SPEED": 0.25}, "true_values": ["vrai"], '
        b'"false_values": ["faux"]}'
    )


@KINDS.alone
def thousands(draft: Draft, rng: Random) -> None:
    """1,200.25 or 1.200,25: understood, or refused; never a thousandth of it."""
    mark, spelling = rng.choice([",", " ", "'"]), rng.choice(["{:,.0f}", "{:,.2f}"])
    draft.map_column("RPM", lambda cell: spelling.format(float(cell)).replace(",", mark))
    draft.rounded, draft.may_refuse = {"RPM"} if "0f" in spelling else set(), True


@KINDS.alone
def column_order(draft: Draft, rng: Random) -> None:
    order = rng.sample(range(len(draft.columns)), len(draft.columns))
    draft.columns = [draft.columns[place] for place in order]
    draft.rows = [[row[place] for place in order] if isinstance(row, list) else row for row in draft.rows]


@KINDS.alone
def column_twice(draft: Draft, rng: Random) -> None:
    name, is_same = rng.choice(COLUMNS[:6]), rng.random() < 0.5
    place = COLUMNS.index(name)
    draft.columns.append(rng.choice([name, f" {name} "]))
    for row in draft.rows:
        assert isinstance(row, list)
        row.append(row[place] if is_same else "7")
    if not is_same:
        draft.refuse(name)


@KINDS.alone
def column_missing(draft: Draft, rng: Random) -> None:
    place = rng.randrange(8)
    name = draft.columns.pop(place)
    for row in draft.rows:
        assert isinstance(row, list)
        row.pop(place)
    if name in ("Time", "SPEED", "ACCELERATOR_POS_D", "BRAKE_SIGNAL"):
        draft.refuse(name)
    elif name == "BRAKE_FORCE":
        draft.is_known = False


@KINDS.alone
def other_header(draft: Draft, rng: Random) -> None:
    spelling = rng.choice(["{} (x)", "obd.{}"])
    draft.columns = [spelling.format(name) for name in draft.columns]
    draft.refuse("lacks the column")


@KINDS.alone
def no_header(draft: Draft, rng: Random) -> None:
    draft.columns = [str(cell) for cell in draft.rows.pop(0)]
    draft.refuse("lacks the column")


@KINDS.alone
def before_the_header(draft: Draft, rng: Random) -> None:
    lines = rng.choice(["# logger 2.1\n# car: A1\n", "sep=,\n", "\n\n\n", "Logger,A1,,,\n"])
    draft.spoil.append(lambda content: lines.encode(draft.encoding) + content)
    draft.may_refuse = True


@KINDS.alone
def nothing_in_it(draft: Draft, rng: Random) -> None:
    header = ",".join(COLUMNS).encode()
    draft.replace(rng.choice([b"", b"\n", b" \n \n", b"\xef\xbb\xbf", b"\xff\xfe", header, b"\0" * 4096]))


@KINDS.alone
def binary_file(draft: Draft, rng: Random) -> None:
    starts = [b"PK\x03\x04", b"SQLite format 3\0", b"\x1f\x8b", b""]
    others = [draft.pictures[0], b"<html><body>Sign in</body></html>"]
    draft.replace(rng.choice([*(start + rng.randbytes(50_000) for start in starts), *others]))


@KINDS.alone
def flipped_bytes(draft: Draft, rng: Random) -> None:
    draft.spoil.append(lambda content: draft.flipped(content, rng, 30))
    draft.may_refuse, draft.is_known = True, False


@KINDS.alone
def fewer_rows(draft: Draft, rng: Random) -> None:
    every = rng.choice([2, 4, 10])
    draft.rows = draft.rows[::every]
    draft.harmed.update(range(ROWS))
    if ROWS // every > 10:
        draft.refuse("Hz")


@KINDS.alone
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
    draft.refuse("row ", "Time")


@KINDS.alone
def finer_fractions(draft: Draft, rng: Random) -> None:
    zeros = "0" * rng.randint(1, 5)
    draft.map_column("Time", lambda time: time + zeros)
    draft.times = [time + zeros for time in draft.times]
    draft.frames = {name.replace(".jpg", f"{zeros}.jpg"): content for name, content in draft.frames.items()}


@KINDS.alone
def raw_pedal(draft: Draft, rng: Random) -> None:
    """14 to 82 %, as the car's computer gives it: nobody would ever coast."""
    draft.map_column("ACCELERATOR_POS_D", lambda cell: f"{14.12 + 0.67 * float(cell):.2f}")
    draft.is_known, draft.expected_words = False, ("rescale",)


def _cells(draft: Draft, rng: Random, names: Sequence[str], values: Sequence[str], most: int = 2) -> None:
    """Put one of `values` into a column of a few rows."""
    for number in draft.pick(rng, most):
        draft.cells(number)[COLUMNS.index(rng.choice(names))] = rng.choice(values)


def _into_a_line(draft: Draft, rng: Random, text: str) -> None:
    """Put a text somewhere into the line of a row."""
    for number in draft.pick(rng, 1):
        place, line = draft.place(number), draft.separator.join(draft.cells(number))
        cut = rng.randrange(len(line))
        draft.rows[place] = line[:cut] + text + line[cut:]


def _booleans(draft: Draft, rng: Random, pairs: Sequence[str]) -> None:
    no, yes = rng.choice(pairs).split()
    draft.map_column("BRAKE_SIGNAL", {"False": no, "True": yes}.__getitem__)
