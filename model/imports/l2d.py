"""Drives of Learning to Drive (L2D, huggingface.co/datasets/yaak-ai/L2D): a LeRobot data set, version 3.

Its episodes are half minutes that overlap: those of a session are joined by their clock, and each frame is taken once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from model.common.errors import DataError
from model.common.progress import Log
from model.imports.extras import library
from model.imports.kinds import Drive, Importer
from model.imports.logs.raw import Found
from model.imports.pictures import encoded, half_seconds, open_video
from model.imports.signals import in_order
from model.imports.writing import Clock, Origin, write_recording

CAMERA = "observation.images.front_left"
"""The camera that looks ahead."""
ZONE = "Europe/Berlin"
VEHICLE, ACTIONS, CLOCK = "observation.state.vehicle", "action.continuous", "observation.state.timestamp"
LONGEST_GAP_S = 120.0
"""Episodes of a session further apart become two recordings."""


@dataclass(frozen=True)
class Episode:
    """A row of the table of episodes."""

    index: int
    data: Path
    video: Path
    video_from: float
    """s in the video's file"""
    start: float
    end: float
    """s since 1970"""
    session: str


class L2d(Importer):
    """The data set's folder, or one with a part of its files."""

    kind = "l2d"

    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        if not (path / "meta" / "info.json").is_file():
            return []
        drives: list[list[Episode]] = []
        for episode in _episodes(path):
            before = drives[-1][-1] if drives else None
            follows = before is not None and episode.start - before.end < LONGEST_GAP_S
            if before is not None and follows and before.session == episode.session:
                drives[-1].append(episode)
            else:
                drives.append([episode])
        return [
            Drive(
                self.kind,
                Clock(episodes[0].start, ZONE).name(episodes[0].start),
                path,
                tuple(dict.fromkeys(episode.video for episode in episodes)),
                {"episodes": ",".join(str(episode.index) for episode in episodes)},
            )
            for episodes in drives
        ]

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        wanted = {int(index) for index in drive.options["episodes"].split(",")}
        episodes = [episode for episode in _episodes(drive.place) if episode.index in wanted]
        tables = pd.concat([_rows(episode) for episode in episodes]).drop_duplicates(CLOCK).sort_values(CLOCK)
        origin = Origin(
            self.kind,
            "electric",
            licence="Apache-2.0",
            attribution="Learning to Drive (L2D), Yaak and Hugging Face",
            videos=[
                {"path": str(episode.video), "from_s": episode.video_from, "start": episode.start}
                for episode in episodes
            ],
            notes=["Pedals are interpolated by the data set to 10 Hz."],
        )
        found = _signals(tables)
        write_recording(
            folder,
            encoded(half_seconds(_frames(episodes))),
            lambda: found,
            Clock(episodes[0].start, ZONE),
            origin,
            log,
        )


def _info(folder: Path) -> dict[str, Any]:
    path = folder / "meta" / "info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version, features = info["codebase_version"], info["features"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no description of a LeRobot data set ({error}).") from error
    if not str(version).startswith("v3"):
        raise DataError(f"{path}: version {version}: expected v3; convert it with LeRobot's own script.")
    if missing := [name for name in (CAMERA, VEHICLE, ACTIONS, CLOCK) if name not in features]:
        raise DataError(f"{path}: expected L2D's features, without {', '.join(missing)}; it has {', '.join(features)}.")
    return dict(info)


def _episodes(folder: Path) -> list[Episode]:
    """Those whose data and video are there, in order of session and time."""
    info = _info(folder)
    library("pyarrow", "A LeRobot data set")
    paths = sorted((folder / "meta" / "episodes").rglob("*.parquet"))
    if not paths:
        raise DataError(f"{folder} has no table of episodes: expected meta/episodes/chunk-000/file-000.parquet.")
    found: list[Episode] = []
    spans: dict[Path, pd.DataFrame] = {}
    for row in pd.concat(map(pd.read_parquet, paths)).to_dict("records"):
        data = folder / info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        numbers = {name: row[f"videos/{CAMERA}/{name}"] for name in ("chunk_index", "file_index")}
        video = folder / info["video_path"].format(video_key=CAMERA, **numbers)
        if not (data.is_file() and video.is_file()):
            continue
        if data not in spans:
            clocks = pd.read_parquet(data, columns=["episode_index", CLOCK])
            spans[data] = clocks.groupby("episode_index")[CLOCK].agg(["min", "max"]) / 1e9
        start, end = spans[data].loc[row["episode_index"]]
        session = str(row.get("session_id") or row.get("canonical_name") or "")
        from_s = float(row[f"videos/{CAMERA}/from_timestamp"])
        found.append(Episode(row["episode_index"], data, video, from_s, start, end, session))
    if not found:
        raise DataError(f"{folder} has the data and the front camera's video of no episode: download both.")
    return sorted(found, key=lambda episode: (episode.session, episode.start))


def _rows(episode: Episode) -> pd.DataFrame:
    table = pd.read_parquet(episode.data, columns=["episode_index", CLOCK, VEHICLE, ACTIONS])
    return table[table["episode_index"] == episode.index]


def _frames(episodes: Sequence[Episode]) -> Iterator[tuple[float, Any]]:
    """Frames of the episodes by the car's clock, without those that the episode before has too."""
    last = -np.inf
    for episode in episodes:
        clock = np.sort(_rows(episode)[CLOCK].to_numpy(np.int64)) / 1e9
        if clock[-1] <= last:
            continue
        with open_video(episode.video) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 10)
            container.seek(int(episode.video_from / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                number = round((float(frame.pts * stream.time_base) - episode.video_from) * rate)
                if number >= len(clock):
                    break
                if number >= 0 and clock[number] > last:
                    last = float(clock[number])
                    yield last, frame


def _signals(table: pd.DataFrame) -> dict[str, Found]:
    t = table[CLOCK].to_numpy(np.int64) / 1e9
    vehicle, actions = np.stack(table[VEHICLE].to_list()), np.stack(table[ACTIONS].to_list())
    columns = {
        "SPEED": (np.abs(vehicle[:, 0]), f"{VEHICLE}[0], km/h"),
        "ACCELERATOR_POS_D": (actions[:, 0] * 100, f"{ACTIONS}[0]"),
        "BRAKE_SIGNAL": ((actions[:, 1] > 0).astype(float), f"{ACTIONS}[1] > 0"),
    }
    return {
        name: Found(in_order(t, values.astype(float)), source, len(t), 0, 0)
        for name, (values, source) in columns.items()
    }


IMPORTER = L2d()
