"""A good drive in memory, which kinds of damage change before it is written; it knows what is right afterwards."""

import csv
import io
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal, cast

import pandas as pd
from PIL import Image

from model.recording.labels import LabelConfig
from model.recording.schema import HORIZONS_S

ROWS = 60
FORMAT = "%Y-%m-%d %H-%M-%S-%f"
COLUMNS = (
    "Time", "SPEED", "RPM", "ACCELERATOR_POS_D", "ENGINE_LOAD", "BRAKE_SIGNAL", "GEAR", "BRAKE_FORCE", "PRE_BRAKING",
    "WHILE_BRAKING",
)  # fmt: skip
NUMBERS = ("SPEED", "RPM", "ACCELERATOR_POS_D", "ENGINE_LOAD", "BRAKE_FORCE")


@dataclass
class Draft:
    """A drive of 2 Hz whose driver coasts and brakes every twelve seconds, and the damage done to it."""

    name: str
    pictures: list[bytes]
    columns: list[str] = field(default_factory=lambda: list(COLUMNS))
    rows: list[list[str] | str] = field(default_factory=list)
    """Cells, or a line as it is."""
    frames: dict[str, bytes] = field(default_factory=dict)
    """By file name."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What else lies in the folder."""
    separator: str = ","
    end: str = "\n"
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL
    encoding: str = "utf-8"
    spoil: list[Callable[[bytes], bytes]] = field(default_factory=list)
    """What is done to the bytes of the telemetry."""
    arrange: list[Callable[[Path], Path]] = field(default_factory=list)
    """What is done to the folder; each returns the path for `ingest`."""
    times: list[str] = field(default_factory=list)
    """Time of each true row."""
    harmed: set[int] = field(default_factory=set)
    """True rows that may be lost."""
    breaks: list[int] = field(default_factory=list)
    """True rows before which the clock jumps."""
    must_refuse: bool = False
    may_refuse: bool = False
    expected_words: tuple[str, ...] = ()
    """Words that the output must contain."""
    is_known: bool = True
    """Whether the values are known: not where the damage may turn one digit into another."""
    tolerance: float = 0.0
    """Of values that are written without their fractions."""

    def __post_init__(self) -> None:
        self.files["roi.json"] = b'{"x": 0, "y": 100, "width": 640, "height": 200}'
        start = datetime.strptime(self.name, "%Y-%m-%d_%H-%M-%S")
        for number in range(ROWS):
            time = stamp(start + timedelta(seconds=number / 2))
            self.times.append(time)
            self.rows.append(cells(time, number))
            self.frames[f"{time}.jpg"] = self.pictures[number % len(self.pictures)]

    def pick(self, rng: Random, most: int = 2) -> list[int]:
        """A few true rows that are whole yet, which may be lost from now on. The last is left to `cut_end`."""
        chosen = rng.sample(sorted(set(range(1, ROWS - 1)) - self.harmed), rng.randint(1, most))
        self.harmed.update(chosen)
        return chosen

    def cells(self, number: int) -> list[str]:
        """The cells of a true row, to be changed."""
        return cast(list[str], self.rows[self.place(number)])

    def place(self, number: int) -> int:
        """Where a true row stands."""
        time = self.times[number]
        return next(i for i, row in enumerate(self.rows) if isinstance(row, list) and row[0] == time)

    def add_columns(self, names: list[str], cell: str) -> None:
        self.columns.extend(names)
        for row in self.rows:
            if isinstance(row, list):
                row.extend([cell] * len(names))

    def refuse(self, *words: str) -> None:
        """The input must be refused, with these words."""
        self.must_refuse, self.expected_words = True, words

    def some_frames(self, rng: Random, most: int = 5) -> list[str]:
        return rng.sample(sorted(self.frames), rng.randint(1, most))

    def has_other_pictures(self) -> bool:
        """Whether the frames or their region are not as in an undamaged drive."""
        intact = Draft(self.name, self.pictures)
        return (self.frames, self.files) != (intact.frames, intact.files)

    def spell_booleans(self, pair: str) -> None:
        """Write other words for False and True."""
        no, yes = pair.split()
        self.map_column("BRAKE_SIGNAL", {"False": no, "True": yes}.__getitem__)

    def map_column(self, name: str, change: Callable[[str], str]) -> None:
        place = COLUMNS.index(name)
        for row in self.rows:
            if isinstance(row, list) and place < len(row):
                row[place] = change(row[place])

    def telemetry(self) -> bytes:
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter=self.separator, lineterminator=self.end, quoting=self.quoting)
        for row in [self.columns, *self.rows]:
            if isinstance(row, str):
                stream.write(row + self.end)
            else:
                writer.writerow(row)
        content = stream.getvalue().encode(self.encoding, errors="replace")
        for change in self.spoil:
            content = change(content)
        return content

    def write(self, parent: Path) -> Path:
        """Write the folder into `parent`; returns what is to be given to `ingest`."""
        given = parent / self.name
        given.mkdir(parents=True)
        for name, content in {"telemetry.csv": self.telemetry(), **self.frames, **self.files}.items():
            (given / name).write_bytes(content)
        for change in self.arrange:
            given = change(given)
        return given

    def wrong_rows(self, table: pd.DataFrame) -> list[str]:
        """Differences between the reader's table and the drive."""
        if not self.is_known:
            return []
        rows = {row["Time"]: row for row in table.to_dict("records")}
        wrong = [f"row {time} is none of the drive" for time in rows.keys() - set(self.times)]
        for number, time in enumerate(self.times):
            if time not in rows:
                wrong += [] if number in self.harmed else [f"row {time} is lost"]
                continue
            for name, value in truth(number).items():
                held = truth(number - 1)[name] if number in self.harmed else value  # in an empty cell
                if name in rows[time] and not any(
                    abs(rows[time][name] - known) <= self.tolerance for known in (value, held)
                ):
                    wrong.append(f"{name} of {time} is {rows[time][name]} and was {value}")
        return wrong[:5]

    def wrong_labels(self, table: pd.DataFrame) -> list[str]:
        """Labels that are wrong, or unknown though their row is there."""
        if not self.is_known:
            return []
        wrong, numbers = [], {time: number for number, time in enumerate(self.times)}
        for row in table.to_dict("records"):
            number = numbers[row["Time"]]
            for horizon in HORIZONS_S:
                later = number + 2 * horizon
                reachable = later < ROWS and not any(number < place <= later for place in self.breaks)
                for label, value in labels(later).items():
                    given = row[f"{label}_{horizon}s"]
                    is_lost = pd.isna(given) and (not reachable or later in self.harmed)
                    if not is_lost and (not reachable or pd.isna(given) or given != value):
                        wrong.append(f"{label}_{horizon}s of {row['Time']} is {given}")
        return wrong[:5]


Kind = Callable[[Draft, Random], None]


def flipped(content: bytes, rng: Random, most: int) -> bytes:
    """Content with 1 to `most` bits flipped."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, most)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pack(draft: Draft, change: Callable[[Path], object], prefix: str = "", method: int = zipfile.ZIP_STORED) -> None:
    """Replace the draft's folder by a zip beside it, and change that."""

    def arrange(folder: Path) -> Path:
        archive_path = folder.with_name(f"{folder.name}.zip")
        with zipfile.ZipFile(archive_path, "w", method) as archive:
            for path in sorted(folder.iterdir()):
                archive.writestr(prefix + path.name, path.read_bytes())
        shutil.rmtree(folder)
        change(archive_path)
        return archive_path

    draft.arrange.append(arrange)


def stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H-%M-%S}-{moment.microsecond // 100_000}"


def truth(number: int) -> dict[str, float | bool]:
    """What the car did in a row."""
    phase = number % 24
    braking, coasting = 18 <= phase < 22, 14 <= phase < 23
    return {
        "SPEED": 60.5 + phase,
        "RPM": 1200.25 + 20 * phase,
        "ACCELERATOR_POS_D": 0.0 if coasting else 30.5 + phase,
        "ENGINE_LOAD": 35.75 + phase,
        "BRAKE_SIGNAL": braking,
        "GEAR": 5,
        "BRAKE_FORCE": 0.25 if braking else -0.02,
    }


def cells(time: str, number: int) -> list[str]:
    return [time, *(str(value) for value in truth(number).values()), "[]", "[]"]


def labels(number: int) -> dict[str, float | bool]:
    row = truth(number)
    pedal, force = float(row["ACCELERATOR_POS_D"]), float(row["BRAKE_FORCE"])
    return {
        "brake": row["BRAKE_SIGNAL"],
        "coast": pedal < LabelConfig().coast_threshold,
        "brake_force": max(force, 0.0),
        "acc_pos": pedal,
    }
