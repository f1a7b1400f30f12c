"""Drafts a mapping file from what lies in a drive's folder."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from model.common.errors import DataError
from model.imports.kinds import VIDEOS
from model.imports.logs.reading import LOGS, TABLES, names, takes_dbc
from model.imports.mapping import LogMapping, preset

SUGGESTIONS = {
    "SPEED": (
        r"(?<![a-z])(?<!set_)(vehicle_?\s?)?speed\b",
        r"v_?ego|lon_?vel|twist\.linear\.x|geschwindigkeit|vitesse|velocidad",
    ),
    "ACCELERATOR_POS_D": (
        r"acc\w*_?\s?ped|gas_?ped|accelerator_?\s?pos|throttle_ped",
        r"pedal_?\s?(position)?_?\s?d\b|pedal_?pos",
    ),
    "BRAKE_SIGNAL": (r"brake_?\s?(pressed|switch|light|applied|signal)", r"brake_?\s?pedal"),
    "ASSISTANCE": (r"(cruise|acc)_?\s?(active|engaged|enabled)", r"autopilot|cruise_?\s?state|enabled$"),
    "RPM": (r"(?<![a-z])rpm\b|engine_?\s?speed",),
    "ENGINE_LOAD": (r"engine_?\s?load",),
}
"""Names that signals of the channels often have, in lower case, the best first."""
PRESET_HEADERS = {
    "torque": r"GPS Time\s*,\s*Device Time",
    "car-scanner": r"SECONDS\W+PID\W+VALUE\W+UNITS",
    "obd-fusion": r"# ?StartTime|OBD ?Fusion",
    "racechrono": r"RaceChrono",
}
"""What the beginning of a CSV has that a preset reads."""
_HEADER = """\
# What this drive's channels are. Check each line; remove what the car does not have.
# Keys: docs/import.md. Times without a zone are in `zone`.
"""
_SIGNALS = 200
"""Of a log, that are listed at most."""


def draft(folder: Path) -> str:
    """The text of a mapping for the videos and logs in `folder`: guesses to be checked, and the signals as comments.

    Raises:
        DataError: it holds no log, or one that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: expected one with a video and its logs.")
    inside = sorted(path for path in folder.iterdir() if path.is_file())
    logs = [path for path in inside if path.suffix.lower() in LOGS]
    if not logs:
        raise DataError(f"{folder} holds no log: expected one of {', '.join(LOGS)}.")
    content: dict[str, Any] = {
        "video": [path.name for path in inside if path.suffix.lower() in VIDEOS],
        "zone": "UTC",
        "drivetrain": "unknown",
    }
    known = next(filter(None, map(_preset_of, logs)), "")
    comments: list[str] = []
    if known:
        content = {"preset": known} | content
        read = preset(known)["logs"][0]
    else:
        content |= {"logs": [], "channels": {}}
    databases = [path.name for path in inside if path.suffix.lower() == ".dbc"]
    for path in logs:
        entry: dict[str, Any] = {"path": path.name} | ({"dbc": databases} if databases and takes_dbc(path) else {})
        found = names(path, LogMapping(**(read | entry if known else entry)))
        comments += [f"# {path.name}:", *(f"#   {name}" for name in found[:_SIGNALS])]
        comments += [f"#   and {len(found) - _SIGNALS} more"] if len(found) > _SIGNALS else []
        if not known:
            content["logs"].append(entry)
            for channel, patterns in SUGGESTIONS.items():
                fitting = next(filter(None, (_fitting(found, channel, pattern) for pattern in patterns)), "")
                if fitting and channel not in content["channels"]:
                    content["channels"][channel] = {"source": fitting}
    return _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True) + "\n".join(comments) + "\n"


def _fitting(signals: Sequence[str], channel: str, pattern: str) -> str:
    """The signal whose name fits a channel best, rather than its message's; empty if none does."""
    ranks = {}
    for signal in signals:
        message, _, name = signal.lower().rpartition(".")
        if re.search(pattern, signal.lower()):
            kind = channel.lower().partition("_")[0]
            ranks[name != channel.lower(), not re.search(pattern, name), kind not in message, len(signal)] = signal
    return ranks[min(ranks)] if ranks else ""


def _preset_of(path: Path) -> str:
    """The preset that reads a CSV; empty if none does."""
    if path.suffix.lower() not in TABLES:
        return ""
    with path.open("rb") as file:
        start = file.read(4000).decode("utf-8", errors="replace")
    return next((name for name, header in PRESET_HEADERS.items() if re.search(header, start)), "")
