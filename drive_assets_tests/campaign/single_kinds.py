"""Damage to a drive that does not mix with other damage. Each public function is a kind."""

import io
import os
import re
import stat
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from PIL import Image

from drive_assets_tests.campaign.drafts import COLUMNS, FORMAT, ROWS, Draft, flipped, pack, saved

_JUNK = Random(0).randbytes(50_000)
_HUGE_PNG = 30_000
"""Width and height in px of a picture of a few kB."""
_EMPTY = (b"", b"\n", b" \n \n", b"\xef\xbb\xbf", b"\xff\xfe", ",".join(COLUMNS).encode(), b"\0" * 4096)
_BINARY = (
    *(start + _JUNK for start in (b"", b"PK\x03\x04", b"SQLite format 3\0", b"\x1f\x8b", b"\xff\xd8\xff")),
    b"<html><body>Sign in</body></html>",
)
_ENCRYPTED = re.compile(rb"(PK\x03\x04..|PK\x01\x02....)\0", re.DOTALL)
"""The flag of encryption in a zip's headers."""
_METHOD = re.compile(rb"(PK\x01\x02.{6}).", re.DOTALL)
"""The compression method in a zip's directory."""
_TIMES: tuple[Callable[[str], str], ...] = (
    lambda time: time[:10] + "T" + time[11:19].replace("-", ":") + "Z",
    lambda time: time[11:],
    lambda time: time.replace("-", "/", 2),
    lambda time: time[:-2] + " PM",
    lambda time: "1716192000.5",
    lambda time: "2024-13-45 25-61-61-0",
    lambda time: "²⁰²⁴" + time[4:],
)


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


def unknown_booleans(draft: Draft, rng: Random) -> None:
    draft.spell_booleans(rng.choice(["released pressed", "ложь истина", "2 3", "faux vrai"]))
    draft.may_refuse = True


def declared(draft: Draft, rng: Random) -> None:
    """What `reading.json` declares is read."""
    draft.spell_booleans("faux vrai")
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
    draft.tolerance, draft.may_refuse = 0.5 if "0f" in spelling else 0.0, True


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
    if rng.random() < 0.3:
        draft.columns = [str(cell) for cell in draft.rows.pop(0)]
    else:
        draft.columns = [rng.choice(["{} (x)", "obd.{}"]).format(name) for name in draft.columns]
    draft.refuse("lacks the column")


def before_the_header(draft: Draft, rng: Random) -> None:
    lines = rng.choice(["# logger 2.1\n# car: A1\n", "sep=,\n", "\n\n\n", "Logger,A1,,,\n"])
    draft.spoil.append(lambda content: lines.encode(draft.encoding) + content)
    draft.may_refuse = True


def no_table(draft: Draft, rng: Random) -> None:
    content = rng.choice(_EMPTY + _BINARY)
    draft.spoil.append(lambda _: content)
    draft.refuse()


def flipped_bytes(draft: Draft, rng: Random) -> None:
    draft.spoil.append(lambda content: flipped(content, rng, 30))
    draft.may_refuse, draft.is_known = True, False


def fewer_rows(draft: Draft, rng: Random) -> None:
    every = rng.choice([2, 4, 10])
    draft.rows = draft.rows[::every]
    draft.harmed.update(range(ROWS))
    if ROWS // every > 10:
        draft.refuse("Hz")


def other_time_formats(draft: Draft, rng: Random) -> None:
    draft.map_column("Time", rng.choice(_TIMES))
    draft.refuse("row ", "Time")


def finer_fractions(draft: Draft, rng: Random) -> None:
    """Zeros at the end, which are left out of the times and of the names of frames."""
    zeros = "0" * rng.randint(1, 5)
    draft.map_column("Time", lambda time: time + zeros)
    draft.frames = {name.replace(".jpg", f"{zeros}.jpg"): content for name, content in draft.frames.items()}


def raw_pedal(draft: Draft, rng: Random) -> None:
    """14 to 82 %, as the car's computer gives it: nobody would ever coast."""
    draft.map_column("ACCELERATOR_POS_D", lambda cell: f"{14.12 + 0.67 * float(cell):.2f}")
    draft.is_known, draft.expected_words = False, ("rescale",)


def no_frame_whole(draft: Draft, rng: Random) -> None:
    content = rng.choice([b"", b"\0" * 9000, draft.pictures[0][:-200], b"no picture"])
    draft.frames = dict.fromkeys(draft.frames, content)
    draft.refuse("no usable frame")


def frame_suffixes(draft: Draft, rng: Random) -> None:
    suffix = rng.choice([".JPG", ".jpeg", ".JPEG", ".Jpg"])
    draft.frames = {name.replace(".jpg", suffix): content for name, content in draft.frames.items()}


def decompression_bomb(draft: Draft, rng: Random) -> None:
    bomb = saved(Image.new("1", (_HUGE_PNG, _HUGE_PNG)), "PNG")
    draft.frames |= dict.fromkeys(draft.some_frames(rng, 2), bomb)
    draft.may_refuse = True


def black_camera(draft: Draft, rng: Random) -> None:
    draft.frames = dict.fromkeys(draft.frames, saved(Image.new("RGB", (640, 360))))
    draft.expected_words = ("black",)


def frame_twice(draft: Draft, rng: Random) -> None:
    for name in draft.some_frames(rng):
        draft.frames[name.replace(".jpg", rng.choice([".png", ".JPG", ".jpeg"]))] = draft.frames[name]
    draft.may_refuse = True


def region_junk(draft: Draft, rng: Random) -> None:
    regions = ["NaN, 0, 9, 9", "-5, 0, 640, 200", "0, 0, 0, 200", "0, 9999, 640, 200", "0, 0, 1e400, 200"]
    regions += ['"a", 0, 640, 200', "0, 0, 99999999999999999999, 200"]
    fields = '{{"x": {}, "y": {}, "width": {}, "height": {}}}'.format(*rng.choice(regions).split(", "))
    junk = [b"", b"{", b"null", b"[]", b"7", b"\xff\xfe{\0}\0", b"[" * 100_000, rng.randbytes(3000)]
    draft.files["roi.json"] = rng.choice([fields.encode()] * len(regions) + junk)
    draft.may_refuse = True


def no_regular_file(draft: Draft, rng: Random) -> None:
    target = rng.choice(["itself", "/dev/zero", "/dev/stdin", "/etc/passwd", "nowhere"])
    makers: list[Callable[[Path], None]] = [
        os.mkfifo,
        Path.mkdir,
        lambda path: os.mknod(path, stat.S_IFSOCK),
        *(lambda path: path.symlink_to(path if target == "itself" else target),) * 2,
    ]
    make = rng.choice(makers)
    name = rng.choice(["telemetry.csv", "roi.json", "odd.jpg", draft.times[3] + ".jpg"])

    def arrange(folder: Path) -> Path:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        return folder

    draft.arrange.append(arrange)
    draft.refuse(name if name != "telemetry.csv" else draft.name)


def folder_names(draft: Draft, rng: Random) -> None:
    names = ["2024-02-30_10-00-00", "٢٠٢٤-05-01_10-00-00", "２０２４-05-01_10-00-00", "2024-5-1_10-00-00"]
    names += ["0000-00-00_00-00-00", "drive", "%2e%2e", "$(id)", "x" * 200, "*", "--help"]
    names += [draft.name.replace("_", " "), f" {draft.name}"]
    names += [draft.name + end for end in (" - Copy", "\n", "é", ".")]
    name = rng.choice(names)
    draft.arrange.append(lambda folder: folder.rename(folder.with_name(name)))
    draft.refuse("YYYY-MM-DD_HH-MM-SS")


def telemetry_names(draft: Draft, rng: Random) -> None:
    name = rng.choice(["TELEMETRY.CSV", "Telemetry.csv", "telemetry.csv.txt", "telemetry (1).csv", "telemetry"])
    draft.arrange.append(lambda folder: (folder / "telemetry.csv").rename(folder / name).parent)
    draft.may_refuse = True


def deeper(draft: Draft, rng: Random) -> None:
    inside = rng.choice([draft.name, "data", "export"])

    def arrange(folder: Path) -> Path:
        aside = folder.rename(folder.with_name("aside"))
        folder.mkdir()
        return aside.rename(folder / inside).parent

    draft.arrange.append(arrange)
    draft.may_refuse = True


def hostile_zip(draft: Draft, rng: Random) -> None:
    paths = ("../evil.jpg", "/tmp/evil.jpg", "C:\\evil.jpg", "..\\..\\evil.jpg", f"{draft.name}/../../evil.jpg")
    entries = [(path, b"x", 0) for path in (*paths, f"{draft.name}/TELEMETRY.CSV", f"{draft.name}/a\nb.jpg")]
    entries += [
        (f"{draft.name}/telemetry.csv", b"again", 0),
        (f"{draft.name}/evil.jpg", b"/etc/passwd", 0o120777),
        (f"{draft.name}/evil.jpg", b"", 0o060666),
        (f"{draft.name}/evil.jpg", bytes(60_000_000), 0),
    ]
    name, content, mode = rng.choice(entries)

    def add(path: Path) -> None:
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)

    pack(draft, add, f"{draft.name}/")
    draft.refuse(f"{draft.name}.zip")


def broken_zip(draft: Draft, rng: Random) -> None:
    def nest(content: bytes) -> bytes:
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w") as archive:
            archive.writestr("inner.zip", content)
        return outer.getvalue()

    changes: list[Callable[[bytes], bytes]] = [
        lambda content: flipped(content, rng, 60),
        nest,
        lambda content: _ENCRYPTED.sub(rb"\1\1", content),
        lambda content: _METHOD.sub(rb"\1a", content, count=1),
        lambda content: content[: rng.randrange(len(content))],
        lambda content: b"",
        lambda content: rng.randbytes(5000),
        lambda content: b"Rar!\x1a\x07" + rng.randbytes(5000),
    ]
    number = max(0, rng.randrange(-1, len(changes)))  # flips twice as often
    pack(draft, lambda path: path.write_bytes(changes[number](path.read_bytes())))
    # A flip may hit what nobody reads; one in a frame is detected by its checksum.
    draft.may_refuse, draft.must_refuse = True, number > 0
