"""Damage to a drive of which several kinds may meet in one drive; they are done in the order of this module.

Each public function is a kind: what loggers, spreadsheets, disks, cameras and archives do.
"""

import csv
import io
import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from PIL import Image

from drive_assets_tests.campaign.drafts import COLUMNS, FORMAT, NUMBERS, ROWS, Draft, Kind, pack, saved, stamp

_READ = COLUMNS[1:6]


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


def boolean_words(draft: Draft, rng: Random) -> None:
    pairs = ("FALSE TRUE", "0 1", "0.0 1.0", "0,0 1,0", "FALSCH WAHR", "no yes", "off on", "f t")
    draft.spell_booleans(rng.choice([pair for pair in pairs if draft.separator not in pair]))


def line_ends_and_quotes(draft: Draft, rng: Random) -> None:
    draft.end = rng.choice(["\n", "\r\n", "\r"])
    draft.quoting = rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])


def _cells(names: Sequence[str], values: Sequence[str], most: int = 2) -> Kind:
    """One of `values` in a column of a few rows."""

    def damage(draft: Draft, rng: Random) -> None:
        for number in draft.pick(rng, most):
            draft.cells(number)[COLUMNS.index(rng.choice(names))] = rng.choice(values)

    return damage


no_value = _cells(_READ, ["nan", "-", "--", "n/a", "NULL", "#N/A", "", "None", " "])
junk_cells = _cells(
    [*_READ, "BRAKE_FORCE"],
    ["fast", "\x07\x1b[31m", "=1+1", "0x1F", "1e", "٣٫٥", "True;", "🚗", "inf", "-inf", "1e400", "'; DROP TABLE"],
)
huge_field = _cells(COLUMNS[:-2], [mark * size for mark in 'x9"' for size in (10_000, 200_000, 5_000_000)], 1)
impossible_speed = _cells(["SPEED"], ["-40", "9e99", "255"])
impossible_values = _cells(["ACCELERATOR_POS_D", "ENGINE_LOAD", "RPM"], ["300000", "1e9", "-70"])


def too_many_or_few_cells(draft: Draft, rng: Random) -> None:
    for number in draft.pick(rng):
        row = draft.cells(number)
        row[:] = row[: rng.randint(1, 5)] if rng.random() < 0.5 else [*row, *["7"] * rng.randint(1, 40)]


def _into_a_line(*texts: str) -> Kind:
    """A text somewhere in the line of a row."""

    def damage(draft: Draft, rng: Random) -> None:
        for number in draft.pick(rng, 1):
            place, line = draft.place(number), draft.separator.join(draft.cells(number))
            cut = rng.randrange(len(line))
            draft.rows[place] = line[:cut] + rng.choice(texts) + line[cut:]

    return damage


open_quote = _into_a_line('"')
nul_bytes = _into_a_line(*("\0" * size for size in (1, 7, 512, 4096)))  # as after the power was cut


def cut_end(draft: Draft, rng: Random) -> None:
    draft.harmed.add(ROWS - 1)
    # Short of the last two columns, which are not read, the row is whole.
    cut = rng.randint(6, len(draft.separator.join(draft.cells(ROWS - 1))))
    draft.spoil.append(lambda content: content[: -cut * (2 if draft.encoding.startswith("utf-16") else 1)])


def _more_lines(most: int, line: Callable[[Draft, Random], list[str] | str]) -> Kind:
    def damage(draft: Draft, rng: Random) -> None:
        for _ in range(rng.randint(1, most)):
            draft.rows.insert(rng.randrange(len(draft.rows)), line(draft, rng))

    return damage


def _fault(draft: Draft, rng: Random) -> list[str]:
    return [rng.choice(["No Frame", "Incomplete Data"]), *["No Data"] * (len(draft.columns) - 1)]


header_again = _more_lines(3, lambda draft, rng: list(draft.columns))
fault_rows = _more_lines(20, _fault)
blank_lines = _more_lines(9, lambda draft, rng: rng.choice(["", "   ", "\t", draft.separator * 3]))


def damaged_frames(draft: Draft, rng: Random) -> None:
    for name in draft.some_frames(rng):
        whole = draft.frames[name]
        cut = whole[: rng.randrange(len(whole))]
        junk = [cut, b"", rng.randbytes(5000), b"\0" * len(whole), b"GIF89a" + cut, cut + whole[-2:]]
        draft.frames[name] = rng.choice(junk)


def other_pictures(draft: Draft, rng: Random) -> None:
    """Pictures of other makes, all of which a reader of JPEG and PNG reads."""
    exif = Image.Exif()
    exif[0x0112] = rng.choice([3, 6, 8, 0, 99])
    for name in draft.some_frames(rng, 30):
        whole = draft.frames[name]
        image = Image.open(io.BytesIO(whole))
        others = [saved(image, "PNG"), saved(image, progressive=True), saved(image.convert("CMYK"))]
        others += [saved(image, exif=exif), whole + rng.randbytes(6000), whole + bytes(9)]
        draft.frames[name] = rng.choice(others)


def other_sizes(draft: Draft, rng: Random) -> None:
    for name in draft.some_frames(rng):
        size = rng.choice([(1, 1), (320, 180), (640, 90), (1920, 1080), (2, 5000)])
        draft.frames[name] = saved(Image.open(io.BytesIO(draft.frames[name])).resize(size))


def frames_without_rows(draft: Draft, rng: Random) -> None:
    names = ["x", "2024-05-01", ":", "a\nb", "ü", "x" * 250, "%s%n", "-rf", "."]
    draft.frames |= {f"{name}.jpg": draft.pictures[0] for name in names}


def missing_frames(draft: Draft, rng: Random) -> None:
    for name in draft.some_frames(rng, 55):
        del draft.frames[name]


def results_of_others(draft: Draft, rng: Random) -> None:
    """What is derived is not taken over, whatever it holds."""
    for name in ("annotations.csv", "annotations.json", "future_labels.csv", ".source.json", "notes.txt", "Thumbs.db"):
        draft.files[name] = rng.randbytes(rng.choice([0, 20, 100_000]))


def zipped(draft: Draft, rng: Random) -> None:
    """Zips that are right."""
    prefix = rng.choice(["", f"{draft.name}/", f"week 27/é/{draft.name}/", f"week\\{draft.name}\\"])
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    around = rng.choice([b"", b"", b"MZ self-extracting"])
    comment = rng.choice([b"", b"x" * 65_535])
    # A huge field expands to an absurd size, and a name with a line break is refused in a zip.
    draft.may_refuse |= len(draft.telemetry()) > 100_000 or any("\n" in name for name in draft.frames)

    def change(path: Path) -> None:
        with zipfile.ZipFile(path, "a", method) as archive:
            archive.comment = comment
            for name, content in ((f"__MACOSX/._{draft.name}.jpg", b"x"), ("Icon\r", b""), (".DS_Store", b"x")):
                archive.writestr(name, content)
        path.write_bytes(around + path.read_bytes())

    pack(draft, change, prefix, method)
