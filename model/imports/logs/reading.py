"""Reads the channels of a mapping from its logs."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.imports.logs import can_bus, mdf, table, topics
from model.imports.logs.raw import Found, Raw, find
from model.imports.mapping import ChannelMapping, ImportMapping, LogMapping, checked_moment
from model.imports.signals import is_since_1970

TABLES, BUSES = (".csv", ".txt", ".tsv"), (".log", ".blf", ".asc", ".trc")
MEASUREMENTS, TOPICS = (".mf4", ".mdf"), (".mcap", ".bag", ".db3")
LOGS = TABLES + BUSES + MEASUREMENTS + TOPICS


def log_files(folder: Path, mapping: ImportMapping) -> list[tuple[Path, LogMapping]]:
    """The files of the mapping's logs.

    Raises:
        DataError: a pattern fits none, or leads out of the folder.
    """
    files = []
    for log in mapping.logs:
        paths = sorted(path for path in folder.iterdir() if fnmatch.fnmatch(path.name, log.path))
        if not paths:
            inside = ", ".join(sorted(path.name for path in folder.iterdir())[:12])
            raise DataError(f"{folder} has no log {log.path}: found {inside or 'nothing'}.")
        zoned = log if log.zone else log.replace(zone=mapping.zone)
        files += [(path, zoned) for path in paths]
    return files


def names(path: Path, log: LogMapping) -> list[str]:
    """The signals that a log has."""
    reader, arguments = _reader(path, log)
    return list(reader.names(*arguments))


def read_channels(folder: Path, mapping: ImportMapping) -> dict[str, Found]:
    """The mapping's channels, each from the first log that has it, and from the others under the same entry of `logs`.

    Raises:
        DataError: a log cannot be read, or no log has a channel.
    """
    wanted = sorted({source for channel in mapping.channels.values() for source in channel.source})
    raws = []
    for path, log in log_files(folder, mapping):
        reader, arguments = _reader(path, log)
        raws.append((path, log, reader.read(*arguments[:2], wanted, *arguments[2:])))
    found = {name: _find(name, channel, raws) for name, channel in mapping.channels.items()}
    return {name: each for name, each in found.items() if each is not None}


def _find(name: str, channel: ChannelMapping, raws: Sequence[tuple[Path, LogMapping, dict[str, Raw]]]) -> Found | None:
    """A channel's signal; None if it is optional and no log has it."""
    for source in channel.source:
        having = [
            (path, log, raw[source])
            for path, log, raw in raws
            if source in raw and (not channel.log or fnmatch.fnmatch(path.name, channel.log))
        ]
        if having:
            _, log, first = having[0]
            same = [(each, raw) for each, other, raw in having if other is log]
            joined = Raw(
                np.concatenate([_on_clock(raw.t, log) for _, raw in same]),
                np.concatenate([raw.values for _, raw in same]),
                first.unit,
                max(raw.steps_back for _, raw in same),
            )
            return find(
                name, channel, f"{', '.join(each.name for each, _ in same)}: {source}", joined, log.decimal_mark
            )
    if channel.optional:
        return None
    places = ", ".join(str(path) for path, _, _ in raws) or "no log"
    raise DataError(
        f"{name}: {' and '.join(channel.source)} is in none of {places}; `drive-assets import video --draft` lists the "
        "signals."
    )


def _on_clock(t: npt.NDArray[np.float64], log: LogMapping) -> npt.NDArray[np.float64]:
    """`t` (N,) since 1970, if the log or the mapping says so; else since the log's start."""
    if log.clock == "relative" and is_since_1970(t):
        t = t - np.nanmin(t)
    if log.clock == "epoch" and not is_since_1970(t):
        raise DataError(f"{log.path}: its times are not since 1970, as `clock` says: set clock_unit, or remove clock.")
    if log.start is None or is_since_1970(t):
        return t
    return t + checked_moment(log.start, log.zone)


def _reader(path: Path, log: LogMapping) -> tuple[Any, tuple[Any, ...]]:
    """The module that reads a log, and the arguments of its `names`."""
    suffix = path.suffix.lower()
    if suffix in MEASUREMENTS and not log.dbc:
        return mdf, (path, log)
    if takes_dbc(path):
        return can_bus, (path, log, can_bus.read_databases([path.parent / each for each in log.dbc]))
    if suffix in TOPICS:
        return topics, (path, log)
    if suffix in TABLES:
        return table, (path, log)
    raise DataError(f"{path}: expected a log, one of {', '.join(LOGS)}.")


def takes_dbc(path: Path) -> bool:
    """Whether a log may hold the bytes of a CAN bus."""
    suffix = path.suffix.lower()
    return suffix in (*BUSES, *MEASUREMENTS) or (suffix == ".csv" and _is_gvret(path))


def _is_gvret(path: Path) -> bool:
    with path.open("rb") as file:
        return can_bus.GVRET_HEADER.match(file.read(200).decode("latin-1").removeprefix("\xef\xbb\xbf")) is not None
