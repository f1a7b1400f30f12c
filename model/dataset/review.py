"""review.csv: what people noted at moments of drives, and which windows of train and val that leaves out or weighs.

The file only grows: a later row about the same moment replaces an earlier one. Test is never filtered.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from model.common.config import Config
from model.common.errors import DataError
from model.common.files import locked, write_bytes
from model.dataset.windows import RecordingArrays
from model.recording.folder import parse_recording_name

TAGS = ("label wrong", "not the driver's choice", "bad sensor", "hard")
QUEUE, CLIPS = "queue.csv", "clips.json"
KINDS = ("missed", "false alarm", "doubtful label")
COLUMNS = ("recording", "split", "time", "task", "kind", "reason", "probability", "threshold", "score")
"""Of the queue"""
REVIEWED = ("train", "val")
"""Splits that tags change."""
LOCK = ".review.lock"
MOST_TEXT = 500
"""Characters of a note"""
STANDING_KMH = 1.0
Weights = npt.NDArray[np.float32]


class ReviewConfig(Config):
    """What the data set does with tags, and with situations that are over-represented."""

    weights: dict[str, float] = Field(
        {"label wrong": 0.0, "not the driver's choice": 0.0, "bad sensor": 0.0, "hard": 1.0},
        description="Weight in the training loss of windows near a moment with a tag; 0: left out of train and "
        "val. A tag that is not named has weight 1. Test keeps all its windows",
    )
    reach_s: float = Field(
        3.0, ge=0, le=60, description="A tag concerns windows that end at most this long before or after its moment, s"
    )
    keep_standing: float = Field(
        1.0, ge=0, le=1, description="Share that is kept of train's windows that end while the car stands"
    )
    keep_empty_road: float = Field(
        1.0, ge=0, le=1, description="Share that is kept of train's windows that end without a vehicle in sight"
    )
    same_drive: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Drives that share this much of their telemetry count as one and are used once; lower it to leave "
        "out near duplicates, which the manifest lists as similar",
    )

    @model_validator(mode="after")
    def _known_tags(self) -> Self:
        if unknown := self.weights.keys() - {*TAGS}:
            raise DataError(f"weights of {', '.join(sorted(unknown))}: expected tags of {', '.join(TAGS)}.")
        if wrong := [tag for tag, weight in self.weights.items() if not 0 <= weight <= 100]:
            raise DataError(f"weights of {', '.join(wrong)}: expected numbers from 0 to 100.")
        return self


class Tag(NamedTuple):
    """A row of review.csv."""

    recording: str
    time: str
    """As `moment_text`"""
    task: str
    kind: str
    tag: str
    """One of TAGS; empty: only a note, or an earlier tag is taken back"""
    note: str
    who: str
    at: str
    """When it was stored, UTC"""

    @property
    def moment(self) -> tuple[str, ...]:
        return self[:4]


class Weighted(NamedTuple):
    """A tag that changes the data set."""

    recording: str
    time: str
    weight: float


def moment_text(clock_ms: int) -> str:
    """A moment by the recorder's clock, as review.csv spells it."""
    moment = datetime.fromtimestamp(clock_ms / 1000, UTC)
    return f"{moment:%Y-%m-%d %H-%M-%S}-{clock_ms % 1000:03d}"


def moment_ms(text: str) -> int:
    """The inverse of `moment_text`. ValueError if the text is none."""
    moment = datetime.strptime(text, "%Y-%m-%d %H-%M-%S-%f").replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def read_tags(path: Path) -> list[Tag]:
    """The latest row about each moment; none where there is no file. DataError names a row that is none."""
    if not path.is_file():
        return []
    latest: dict[tuple[str, ...], Tag] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for number, row in enumerate(csv.reader(stream), 1):
            if number == 1 or not row:
                if number == 1 and tuple(row) != Tag._fields:
                    raise DataError(f"{path}, row 1: expected the columns {', '.join(Tag._fields)}; restore them.")
                continue
            try:
                tag = Tag(*row)
                parse_recording_name(tag.recording)
                moment_ms(tag.time)
                if tag.tag not in ("", *TAGS):
                    raise ValueError(f"tag {tag.tag!r}, expected one of {', '.join(TAGS)} or none")
            except (DataError, ValueError, TypeError) as error:
                raise DataError(f"{path}, row {number}: {error}; correct or remove the row.") from None
            latest[tag.moment] = tag
    return list(latest.values())


def store_tag(path: Path, tag: Tag) -> None:
    """Add a row. People who tag at once wait for each other, and a reader sees all of a row or nothing of it."""
    if tag.tag not in ("", *TAGS):
        raise DataError(f"Tag {tag.tag!r}: expected one of {', '.join(TAGS)}, or none.")
    if not tag.who.strip():
        raise DataError("A tag needs the name of who sets it: enter yours in the field Reviewer.")
    with locked(path.with_name(LOCK)):
        content = path.read_bytes() if path.is_file() else ",".join(Tag._fields).encode() + b"\n"
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(tag._replace(note=_plain(tag.note), who=_plain(tag.who)))
        write_bytes(path, content.rstrip(b"\r\n") + b"\n" + line.getvalue().encode())


def _plain(text: str) -> str:
    """On one line, and no formula for a spreadsheet."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[:MOST_TEXT]).split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def relevant(tags: Iterable[Tag], config: ReviewConfig, split_of: Mapping[str, str]) -> list[Weighted]:
    """The tags that can change a data set: with another weight than 1, in train or val, or of no recording in it."""
    weighted = [Weighted(tag.recording, tag.time, config.weights.get(tag.tag, 1.0)) for tag in tags]
    return sorted(
        each for each in weighted if each.weight != 1 and split_of.get(each.recording, REVIEWED[0]) in REVIEWED
    )


@dataclass(frozen=True)
class Review:
    """Tags and options as a manifest records them."""

    config: ReviewConfig
    tags: Sequence[Weighted] = ()

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self:
        """What a manifest records; the defaults if nothing was tagged."""
        content = manifest.get("review", {})
        return cls(ReviewConfig(**content.get("config", {})), [Weighted(*each) for each in content.get("tags", [])])

    @property
    def thins(self) -> bool:
        return self.config.keep_standing < 1 or self.config.keep_empty_road < 1

    def concerns(self, recording: str, split: str) -> bool:
        """Whether windows of a recording may get another weight than 1."""
        tagged = any(tag.recording == recording for tag in self.tags)
        return (split in REVIEWED and tagged) or (split == REVIEWED[0] and self.thins)

    def weights(
        self, recording: str, split: str, arrays: RecordingArrays, length: int
    ) -> tuple[Weights, set[Weighted]]:
        """The weight of each window (W,), 0 for those to leave out, and the tags that have a window near them."""
        last = arrays.window_start.astype(np.int64) + length - 1
        weights, matched = np.ones(len(last), np.float32), set[Weighted]()
        if split == REVIEWED[0] and self.thins:
            _thin(weights, _stands(arrays)[last], self.config.keep_standing)
            _thin(weights, np.asarray(~arrays.detection_mask[last].any(axis=1)), self.config.keep_empty_road)
        for tag in self.tags if split in REVIEWED else ():
            if tag.recording == recording:
                near = np.abs(arrays.clock_ms[last] - moment_ms(tag.time)) <= self.config.reach_s * 1000
                weights[near] *= tag.weight
                matched |= {tag} if near.any() else set()
        return weights, matched


def _stands(arrays: RecordingArrays) -> npt.NDArray[np.bool_]:
    """(F,) whether the car stands; nowhere if the speed is no input."""
    if "SPEED" not in arrays.traits.inputs:
        return np.zeros(len(arrays.time_ms), bool)
    return np.asarray(np.abs(arrays.telemetry[:, arrays.traits.inputs.index("SPEED")]) < STANDING_KMH)


def _thin(weights: Weights, rows: npt.NDArray[np.bool_], share: float) -> None:
    """Keep an evenly spaced share of the windows of a mask."""
    number = np.cumsum(rows)
    weights[rows & (np.floor(number * share) == np.floor((number - 1) * share))] = 0.0
