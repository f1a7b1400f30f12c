"""Drives of Learning to Drive (L2D, huggingface.co/datasets/yaak-ai/L2D), a LeRobot data set of version 3.

Its episodes are half minutes that overlap: those of a session are joined by their clock, and each frame is taken once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.progress import Log
from model.imports.kinds import Drive, Importer
from model.imports.logs.raw import Found
from model.imports.pictures import encoded, half_seconds, open_video
from model.imports.signals import EPOCH, LATEST
from model.imports.writing import Clock, Origin, write_recording

CAMERA = "observation.images.front_left"
"""The camera that looks ahead."""
ZONE = "Europe/Berlin"
VEHICLE, ACTIONS, CLOCK = "observation.state.vehicle", "action.continuous", "observation.state.timestamp"
LONGEST_GAP_S = 120.0
"""Episodes of a session further apart become two recordings."""
_PATHS = {"data": "data/chunk-{:03d}/file-{:03d}.parquet", CAMERA: f"videos/{CAMERA}/chunk-{{:03d}}/file-{{:03d}}.mp4"}
"""Files of the data and of a camera, by chunk and file number."""
_TOUCHED = 0.01
"""Share of the brake pedal's way from which on it is pressed."""


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
        zone = options.get("zone", ZONE)
        drives: list[list[Episode]] = []
        for episode in _episodes(path):
            before = drives[-1][-1] if drives else None
            if before and before.session == episode.session and episode.start - before.end < LONGEST_GAP_S:
                drives[-1].append(episode)
            else:
                drives.append([episode])
        return [
            Drive(
                self.kind,
                Clock(episodes[0].start, zone).name(episodes[0].start),
                path,
                tuple(dict.fromkeys(file for episode in episodes for file in (episode.data, episode.video))),
                options | {"episodes": ",".join(str(episode.index) for episode in episodes)},
            )
            for episodes in drives
        ]

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        wanted = {int(index) for index in drive.options["episodes"].split(",")}
        episodes = [episode for episode in _episodes(drive.place) if episode.index in wanted]
        rows = _rows(episodes)
        origin = Origin(
            self.kind,
            "electric",
            drive=episodes[0].session,
            licence="Apache-2.0",
            attribution="Learning to Drive (L2D), Yaak and Hugging Face",
            notes=[
                "Pedals are interpolated by the data set to 10 Hz.",
                "Nothing says whether driver assistance was engaged.",
            ],
        )
        write_recording(
            folder,
            encoded(half_seconds(_frames(episodes, rows, origin, log))),
            lambda: _signals(rows),
            Clock(episodes[0].start, drive.options.get("zone", ZONE)),
            origin,
            log,
        )


def _check(folder: Path) -> None:
    """Raises DataError unless the folder is L2D in LeRobot's version 3."""
    path = folder / "meta" / "info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version, features = str(info["codebase_version"]), list(info["features"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not describe a LeRobot data set ({error}): download it again.") from error
    if not version.startswith("v3"):
        raise DataError(f"{path}: version {version}: expected v3. Convert the data set with LeRobot's own script.")
    if missing := [name for name in (CAMERA, VEHICLE, ACTIONS, CLOCK) if name not in features]:
        raise DataError(
            f"{path} lacks {', '.join(missing)}: expected the features of L2D; it has {', '.join(features)}."
        )


@lru_cache(1)  # is asked for by each drive
def _episodes(folder: Path) -> list[Episode]:
    """Those whose data and video are there, in order of session and time."""
    _check(folder)
    paths = sorted((folder / "meta" / "episodes").rglob("*.parquet"))
    if not paths:
        raise DataError(f"{folder} has no table of episodes: expected meta/episodes/chunk-000/file-000.parquet.")
    found: list[Episode] = []
    spans: dict[Path, pd.DataFrame] = {}
    for row in pd.concat([_table(path) for path in paths]).to_dict("records"):
        try:
            index, from_s = int(row["episode_index"]), float(row[f"videos/{CAMERA}/from_timestamp"])
            data, video = (
                folder / path.format(*(int(row[f"{key}/{part}"]) for part in ("chunk_index", "file_index")))
                for key, path in (("data", _PATHS["data"]), (f"videos/{CAMERA}", _PATHS[CAMERA]))
            )
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{paths[0]} has no place of each episode ({error}): expected LeRobot's columns."
            ) from error
        if not (data.is_file() and video.is_file()):
            continue
        if data not in spans:
            clocks = _table(data, ["episode_index", CLOCK])
            spans[data] = clocks.groupby("episode_index")[CLOCK].agg(["min", "max"]) / 1e9
        if index in spans[data].index:
            start, end = spans[data].loc[[index]].to_numpy(float)[0].tolist()
            if not EPOCH < start <= end < LATEST:
                raise DataError(f"{data}: {CLOCK} of episode {index} is not in ns since 1970: download it again.")
            session = str(row.get("session_id") or row.get("canonical_name") or index)
            found.append(Episode(index, data, video, from_s, start, end, session))
    if not found:
        raise DataError(f"{folder} has the data and the front camera's video of no episode: download both.")
    return sorted(found, key=lambda episode: (episode.session, episode.start))


def _table(path: Path, columns: list[str] | None = None, filters: list[tuple[Any, ...]] | None = None) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=columns, filters=filters)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} cannot be read as Parquet ({reason}): download it again.") from error


def _rows(episodes: Sequence[Episode]) -> pd.DataFrame:
    """What the car measured in the episodes, by the car's clock, with the columns t (s), episode_index and values."""
    indices = [episode.index for episode in episodes]
    columns = ["episode_index", CLOCK, VEHICLE, ACTIONS]
    files = dict.fromkeys(episode.data for episode in episodes)
    rows = pd.concat([_table(path, columns, [("episode_index", "in", indices)]) for path in files])
    vehicle, actions = np.stack(rows[VEHICLE].to_list()), np.stack(rows[ACTIONS].to_list())
    t = rows[CLOCK].to_numpy(np.int64) / 1e9
    table = {"episode_index": rows["episode_index"], "t": t, "speed": vehicle[:, 0]}
    return pd.DataFrame(table | {"gas": actions[:, 0], "brake": actions[:, 1]}).sort_values("t", ignore_index=True)


def _frames(episodes: Sequence[Episode], rows: pd.DataFrame, origin: Origin, log: Log) -> Iterator[tuple[float, Any]]:
    """Frames of the episodes by the car's clock, without those that the episode before has too.

    Raises:
        DataError: no video can be read.
    """
    last = -np.inf
    problems: list[str] = []
    for episode in episodes:
        clock = rows.loc[rows["episode_index"] == episode.index, "t"].to_numpy()
        if clock[-1] <= last:
            continue
        try:
            for t, frame in _new_frames(episode, clock, last):
                last = t
                yield t, frame
            log(f"Episode {episode.index}: {len(clock)} rows")
            origin.videos.append({"path": str(episode.video), "from_s": episode.video_from, "start": episode.start})
        except DataError as error:
            problems.append(str(error))
            origin.notes.append(f"Episode {episode.index} is left out: {error}")
    if not origin.videos:
        raise DataError(problems[0])


def _new_frames(episode: Episode, clock: npt.NDArray[np.float64], last: float) -> Iterator[tuple[float, Any]]:
    """Time and frame of those of the episode, whose frames have the times `clock`, that come after `last`."""
    import av

    first = int(np.searchsorted(clock, last, side="right"))
    with open_video(episode.video) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or 10)
        container.seek(int((episode.video_from + first / rate) / stream.time_base), stream=stream)
        try:
            for frame in container.decode(stream):
                number = round((float(frame.pts * stream.time_base) - episode.video_from) * rate)
                if number >= len(clock):
                    return
                if number >= first:
                    yield float(clock[number]), frame
        except av.error.FFmpegError as error:
            raise DataError(f"{episode.video} cannot be decoded ({error.strerror}): download it again.") from error


def _signals(rows: pd.DataFrame) -> dict[str, Found]:
    t = rows["t"].to_numpy()
    return {
        "SPEED": Found.of(t, rows["speed"].to_numpy(), f"{VEHICLE}[0], km/h"),
        "ACCELERATOR_POS_D": Found.of(t, rows["gas"].to_numpy() * 100, f"{ACTIONS}[0]"),
        "BRAKE_SIGNAL": Found.of(t, rows["brake"].to_numpy() > _TOUCHED, f"{ACTIONS}[1] > {_TOUCHED}"),
    }


IMPORTER = L2d()
