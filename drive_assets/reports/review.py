"""The page of the review queue: clips that people tag by keyboard, and what tags do."""

import json
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from drive_assets.reports.links import file_link
from drive_assets.reports.page import Cell, Link, Page, Section, Table
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.dataset.review import CLIPS, QUEUE, TAGS, read_tags
from model.evaluation.results import REVIEW_GAIN, ReviewGain

WIDTH, HEIGHT, SECONDS = 480, 90, (-10, 5)
CURVES = ("speed", "pedal", "predicted")


class NewTag(BaseModel):
    """What the page sends."""

    model_config = ConfigDict(extra="forbid")

    recording: str
    time: str
    task: str
    kind: str
    tag: str
    note: str = Field("", max_length=500)
    who: str = Field(max_length=80)


def moments(storage: Storage) -> dict[str, Any]:
    """The content of clips.json. DataError if it is missing or damaged."""
    path = storage.review / CLIPS
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["clips"] = [{**clip, "id": moment_id(clip)} for clip in content["clips"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): materialise review_queue again.") from error
    return content


def moment_id(clip: dict[str, Any]) -> str:
    """By which page and server name a moment."""
    return "|".join(str(clip[name]) for name in ("recording", "time", "task", "kind"))


def tags_by_moment(storage: Storage) -> dict[str, dict[str, str]]:
    """The latest tag of each moment."""
    return {moment_id(tag._asdict()): tag._asdict() for tag in read_tags(storage.tags)}


def review_page(storage: Storage) -> Page:
    content = moments(storage)
    clips, tags = content["clips"], tags_by_moment(storage)
    for clip in clips:
        clip["pictures"] = [f"thumbnail/{clip['recording']}/{quote(name, safe='')}" for name in clip["frames"]]
        clip["curves"] = {name: _points(clip[name]) for name in CURVES}
        clip["action"] = [_x(since) for since, on in clip["action"] if on]
        clip["level"] = HEIGHT * (1 - clip["threshold"])
    shares = [
        [name, *(f"{part[kind]:.1%}" for kind in ("standing", "empty road"))]
        for name, part in content["situations"].items()
    ]
    files = [
        Link(path.name, file_link(storage, path)) for path in (storage.review / QUEUE, storage.tags) if path.exists()
    ]
    return Page(
        "Review queue",
        f"Moments of train and val, never of test, predicted by models that were not trained on the drive: "
        f"{content['predictor']}, {content['folds']} folds, at {content['false_alarms_per_hour']:g} false alarms an "
        f"hour; data version {content['data_version']}. Reasons are hints. Keys: j and k next and previous, 1 to "
        f"{len(TAGS)} tag, 0 take back, n note. Tags take effect when split_manifest is materialised again.",
        facts={"moments": len(clips), "tagged": sum(bool(tags.get(clip["id"], {}).get("tag")) for clip in clips)},
        sections=[
            Section("Moments", review={"clips": clips, "tags": tags, "names": TAGS}),
            Section(
                "Frequent situations",
                "Share of windows that end while the car stands, or without a vehicle in sight. Options of "
                "split_manifest (keep_standing, keep_empty_road) thin them out in train.",
                Table(("split", "standing", "empty road"), shares),
            ),
            Section("Files", links=files),
        ],
    )


def gain_page(storage: Storage) -> Page:
    """The three arms side by side, and what the review gains over each of the others."""
    gain = ReviewGain.read(storage.evaluations / REVIEW_GAIN)
    how = f"{gain.predictor}, {gain.seeds} seeds, at {gain.false_alarms_per_hour:g} false alarms an hour on test"
    rows: list[list[Cell]] = [
        [arm, each.windows, each.foreseen, _interval(gain.foreseen.get(arm)), each.onset_pr_auc,
         _interval(gain.onset_pr_auc.get(arm))]
        for arm, each in gain.arms.items()
    ]  # fmt: skip
    columns = ("train", "windows", "onsets foreseen", "reviewed minus this", "onset PR-AUC", "reviewed minus this")
    return Page(
        "Gain of the review",
        f"{gain.verdict}. {how}; data version {gain.data_version}.",
        facts={"windows of train that tags change": gain.changed},
        sections=[
            Section(
                "Three arms",
                "The same training on train untouched, reviewed, and with the review's weights on windows drawn at "
                "random. Means over seeds; paired 95 % intervals from resampling test.",
                Table(columns, rows),
            )
        ],
    )


def _interval(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:+.3f} to {bounds[1]:+.3f}" if bounds else ""


def _x(since: float) -> float:
    first, last = SECONDS
    return round((since - first) / (last - first) * WIDTH, 1)


def _points(curve: list[list[float]]) -> str:
    """Of an SVG polyline."""
    return " ".join(f"{_x(since)},{HEIGHT * (1 - min(max(value, 0), 1)):.0f}" for since, value in curve)
