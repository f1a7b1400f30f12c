"""What loggers, spreadsheets and disks do to telemetry.csv, as a table of kinds. The draft knows what is right."""

import csv
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random

from drive_assets_tests.campaign.drafts import COLUMNS, NUMBERS, ROWS, Draft, Kind, stamp

FORMAT = "%Y-%m-%d %H-%M-%S-%f"
JUNK = Random(0).randbytes(50_000)
READ = COLUMNS[1:6]


def cells(names: Sequence[str], values: Sequence[str], most: int = 2) -> Kind:
    """One of `values` in a column of a few rows."""

    def damage(draft: Draft, rng: Random) -> None:
        for number in draft.pick(rng, most):
            draft.cells(number)[COLUMNS.index(rng.choice(names))] = rng.choice(values)

    return damage


def into_a_line(*texts: str) -> Kind:
    """A text somewhere in the line of a row."""

    def damage(draft: Draft, rng: Random) -> None:
        for number in draft.pick(rng, 1):
            place, line = draft.place(number), draft.separator.join(draft.cells(number))
            cut = rng.randrange(len(line))
            draft.rows[place] = line[:cut] + rng.choice(texts) + line[cut:]

    return damage


def more_lines(most: int, line: Callable[[Draft, Random], list[str] | str]) -> Kind:
    def damage(draft: Draft, rng: Random) -> None:
        for _ in range(rng.randint(1, most)):
            draft.rows.insert(rng.randrange(len(draft.rows)), line(draft, rng))

    return damage


def booleans(*pairs: str, may_refuse: bool = False) -> Kind:
    """Other words for False and True."""

    def damage(draft: Draft, rng: Random) -> None:
        no, yes = rng.choice([pair for pair in pairs if draft.separator not in pair]).split()
        draft.map_column("BRAKE_SIGNAL", {"False": no, "True": yes}.__getitem__)
        draft.may_refuse |= may_refuse

    return damage


def other_content(*contents: bytes) -> Kind:
    """What is no table."""

    def damage(draft: Draft, rng: Random) -> None:
        content = rng.choice(contents)
        draft.spoil.append(lambda _: content)
        draft.must_refuse = True

    return damage


def other_times(*changes: Callable[[str], str]) -> Kind:
    def damage(draft: Draft, rng: Random) -> None:
        draft.map_column("Time", rng.choice(changes))
        draft.refuse("row ", "Time")

    return damage


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


def number_formats(draft: Draft, rng: Random) -> None:
    spelling = rng.choice([" {} ", "{:.12e}", "+{!r}", "{:.9f}"])
    for name in rng.sample(NUMBERS[:4], 2):
        draft.map_column(name, lambda cell: spelling.format(float(cell)))


def header_spelling(draft: Draft, rng: Random) -> None:
    draft.columns = [rng.choice([name, f" {name}", f"{name} ", name.lower(), name.title()]) for name in draft.columns]


def more_columns(draft: Draft, rng: Random) -> None:
    names = ["X", *(rng.choice(["", "Unnamed: 0", "LAT", f"X{n}", "Time "]) for n in range(rng.choice([0, 4, 299])))]
    draft.add_columns(names, "7")
    if "Time " in names:
        draft.refuse("Time")


def encodings(draft: Draft, rng: Random) -> None:
    draft.encoding = rng.choice(["utf-8-sig", "utf-16", "cp1252"])
    draft.add_columns(["Straße"], "Köln–Süd")


def separators(draft: Draft, rng: Random) -> None:
    draft.separator = rng.choice([";", "\t", "|"])
    if rng.random() < 0.6:
        for name in NUMBERS:
            draft.map_column(name, lambda cell: cell.replace(".", ","))


def line_ends_and_quotes(draft: Draft, rng: Random) -> None:
    draft.end = rng.choice(["\n", "\r\n", "\r"])
    draft.quoting = rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])


def too_many_or_few_cells(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng):
        row = draft.cells(number)
        row[:] = row[: rng.randint(1, 5)] if rng.random() < 0.5 else [*row, *["7"] * rng.randint(1, 40)]


def cut_end(draft: Draft, rng: Random) -> None:
    draft.harmed.add(ROWS - 1)
    # Short of the last two columns, which are not read, the row is whole.
    cut = rng.randint(6, len(draft.separator.join(draft.cells(ROWS - 1))))
    draft.spoil.append(lambda content: content[: -cut * (2 if draft.encoding.startswith("utf-16") else 1)])


def more_rows_a_second(draft: Draft, rng: Random) -> None:
    """4, 6 or 10 Hz: of these the rows nearest to each half second are kept, which are the true ones."""
    between = rng.choice([1, 2, 4])
    for number, time in enumerate(draft.times):
        moment, row = datetime.strptime(time + "00000", FORMAT), draft.cells(number)
        later = [moment + timedelta(seconds=n * 0.5 / (between + 1)) for n in range(1, between + 1)]
        place = draft.place(number) + 1
        draft.rows[place:place] = [[f"{when:{FORMAT}}"[:-3], "99", *row[2:]] for when in later]


def many_junk_cells(draft: Draft, rng: Random) -> None:
    column = rng.choice(["SPEED", "ACCELERATOR_POS_D", "BRAKE_SIGNAL", "RPM"])
    for number in rng.sample(range(ROWS), rng.randint(8, ROWS)):
        draft.cells(number)[COLUMNS.index(column)] = "fast"
        draft.harmed.add(number)
    draft.refuse("row ", column)


def repeated_rows(draft: Draft, rng: Random) -> None:
    """The same time twice: the later row counts, as its frame is the one on disk."""
    for number in rng.sample(range(1, ROWS), 3):
        row = draft.cells(number)
        draft.rows.insert(draft.place(number), [row[0], "77", *row[2:]])


def odd_encodings(draft: Draft, rng: Random) -> None:
    draft.encoding, draft.may_refuse = rng.choice(["utf-16-le", "utf-16-be", "utf-32", "cp500", "utf-7"]), True


def declared(draft: Draft, rng: Random) -> None:
    """What `reading.json` declares is read."""
    booleans("faux vrai")(draft, rng)
    draft.columns[1] = "Vitesse"
    draft.map_column("SPEED", lambda cell: f"{float(cell) * 4:.2f}")
    draft.files["reading.json"] = (
        b'{"columns": {"SPEED": "Vitesse"}, "factors": {"SPEED": 0.25}, "true_values": ["vrai"], '
        b'"false_values": ["faux"]}'
    )


def thousands(draft: Draft, rng: Random) -> None:
    """1,200.25 or 1.200,25: understood, or refused; never a thousandth of it."""
    mark, spelling = rng.choice([",", " ", "'"]), rng.choice(["{:,.0f}", "{:,.2f}"])
    draft.map_column("RPM", lambda cell: spelling.format(float(cell)).replace(",", mark))
    draft.rounded, draft.may_refuse = {"RPM"} if "0f" in spelling else set(), True


def column_order(draft: Draft, rng: Random) -> None:
    order = rng.sample(range(len(draft.columns)), len(draft.columns))
    draft.columns = [draft.columns[place] for place in order]
    draft.rows = [[row[place] for place in order] for row in draft.rows]


def column_twice(draft: Draft, rng: Random) -> None:
    name, is_same = rng.choice(COLUMNS[:6]), rng.random() < 0.5
    draft.columns.append(rng.choice([name, f" {name} "]))
    draft.rows = [[*row, row[COLUMNS.index(name)] if is_same else "7"] for row in draft.rows]
    if not is_same:
        draft.refuse(name)


def column_missing(draft: Draft, rng: Random) -> None:
    place = rng.randrange(8)
    name = draft.columns.pop(place)
    draft.rows = [[*row[:place], *row[place + 1 :]] for row in draft.rows]
    if name in ("Time", "SPEED", "ACCELERATOR_POS_D", "BRAKE_SIGNAL"):
        draft.refuse(name)
    draft.is_known = name != "BRAKE_FORCE"


def other_header(draft: Draft, rng: Random) -> None:
    spelling = rng.choice(["{} (x)", "obd.{}"])
    draft.columns = [spelling.format(name) for name in draft.columns]
    draft.refuse("lacks the column")


def no_header(draft: Draft, rng: Random) -> None:
    draft.columns = [str(cell) for cell in draft.rows.pop(0)]
    draft.refuse("lacks the column")


def before_the_header(draft: Draft, rng: Random) -> None:
    lines = rng.choice(["# logger 2.1\n# car: A1\n", "sep=,\n", "\n\n\n", "Logger,A1,,,\n"])
    draft.spoil.append(lambda content: lines.encode(draft.encoding) + content)
    draft.may_refuse = True


def flipped_bytes(draft: Draft, rng: Random) -> None:
    draft.spoil.append(lambda content: draft.flipped(content, rng, 30))
    draft.may_refuse, draft.is_known = True, False


def fewer_rows(draft: Draft, rng: Random) -> None:
    every = rng.choice([2, 4, 10])
    draft.rows = draft.rows[::every]
    draft.harmed.update(range(ROWS))
    if ROWS // every > 10:
        draft.refuse("Hz")


def finer_fractions(draft: Draft, rng: Random) -> None:
    zeros = "0" * rng.randint(1, 5)
    draft.map_column("Time", lambda time: time + zeros)
    draft.times = [time + zeros for time in draft.times]
    draft.frames = {name.replace(".jpg", f"{zeros}.jpg"): content for name, content in draft.frames.items()}


def raw_pedal(draft: Draft, rng: Random) -> None:
    """14 to 82 %, as the car's computer gives it: nobody would ever coast."""
    draft.map_column("ACCELERATOR_POS_D", lambda cell: f"{14.12 + 0.67 * float(cell):.2f}")
    draft.is_known, draft.expected_words = False, ("rescale",)


MIXABLE: dict[str, Kind] = {
    "clock_jump": clock_jump,
    "number_formats": number_formats,
    "header_spelling": header_spelling,
    "more_columns": more_columns,
    "encodings": encodings,
    "separators": separators,
    "boolean_words": booleans("FALSE TRUE", "0 1", "0.0 1.0", "0,0 1,0", "FALSCH WAHR", "no yes", "off on", "f t"),
    "line_ends_and_quotes": line_ends_and_quotes,
    "no_value": cells(READ, ["nan", "-", "--", "n/a", "NULL", "#N/A", "", "None", " "]),
    "junk_cells": cells(
        [*READ, "BRAKE_FORCE"],
        ["fast", "\x07\x1b[31m", "=1+1", "0x1F", "1e", "٣٫٥", "True;", "🚗", "inf", "-inf", "1e400", "'; DROP TABLE"],
    ),
    "huge_field": cells(COLUMNS[:-2], [mark * size for mark in 'x9"' for size in (10_000, 200_000, 5_000_000)], 1),
    "impossible_speed": cells(["SPEED"], ["-40", "9e99", "255"]),
    "impossible_values": cells(["ACCELERATOR_POS_D", "ENGINE_LOAD", "RPM"], ["300000", "1e9", "-70"]),
    "too_many_or_few_cells": too_many_or_few_cells,
    "open_quote": into_a_line('"'),
    "nul_bytes": into_a_line(*("\0" * size for size in (1, 7, 512, 4096))),  # as after the power was cut
    "cut_end": cut_end,
    "header_again": more_lines(3, lambda draft, rng: list(draft.columns)),
    "fault_rows": more_lines(
        20,
        lambda draft, rng: [
            rng.choice(["No Frame", "Incomplete Data"]),
            *["No Data"] * (len(draft.columns) - 1),
        ],
    ),
    "blank_lines": more_lines(9, lambda draft, rng: rng.choice(["", "   ", "\t", draft.separator * 3])),
}
"""Several of these may meet in one file; they are done in this order."""
ALONE: dict[str, Kind] = {
    "more_rows_a_second": more_rows_a_second,
    "many_junk_cells": many_junk_cells,
    "repeated_rows": repeated_rows,
    "odd_encodings": odd_encodings,
    "unknown_booleans": booleans("released pressed", "ложь истина", "2 3", "faux vrai", may_refuse=True),
    "declared": declared,
    "thousands": thousands,
    "column_order": column_order,
    "column_twice": column_twice,
    "column_missing": column_missing,
    "other_header": other_header,
    "no_header": no_header,
    "before_the_header": before_the_header,
    "nothing_in_it": other_content(
        b"", b"\n", b" \n \n", b"\xef\xbb\xbf", b"\xff\xfe", ",".join(COLUMNS).encode(), b"\0" * 4096
    ),
    "binary_file": other_content(
        *(start + JUNK for start in (b"", b"PK\x03\x04", b"SQLite format 3\0", b"\x1f\x8b", b"\xff\xd8\xff")),
        b"<html><body>Sign in</body></html>",
    ),
    "flipped_bytes": flipped_bytes,
    "fewer_rows": fewer_rows,
    "other_time_formats": other_times(
        lambda time: time[:10] + "T" + time[11:19].replace("-", ":") + "Z",
        lambda time: time[11:],
        lambda time: time.replace("-", "/", 2),
        lambda time: time[:-2] + " PM",
        lambda time: "1716192000.5",
        lambda time: "2024-13-45 25-61-61-0",
        lambda time: "²⁰²⁴" + time[4:],
    ),
    "finer_fractions": finer_fractions,
    "raw_pedal": raw_pedal,
}
