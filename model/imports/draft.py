"""Drafts a mapping file from what lies in a drive's folder."""

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from model.common.errors import DataError
from model.imports.kinds import VIDEOS
from model.imports.logs.reading import LOGS, names
from model.imports.mapping import LogMapping

SUGGESTIONS = {
    "SPEED": r"(?<!\w)(vehicle_?)?speed\b|v_?ego|lon_?vel|twist\.linear\.x",
    "ACCELERATOR_POS_D": r"acc\w*_?\s?ped|gas_?ped|accelerator_?pos|pedal_?\s?(position)?_?\s?d\b|throttle_ped",
    "BRAKE_SIGNAL": r"brake_?\s?(pressed|switch|light|pedal|applied|signal)",
    "ASSISTANCE": r"cruise_?\s?(active|engaged|enabled|state)|acc_?active|autopilot|enabled$",
    "RPM": r"\brpm\b|engine_?\s?speed",
    "ENGINE_LOAD": r"engine_?\s?load",
}
"""Names that signals of the channels often have, in lower case."""
_HEADER = """\
# What this drive's channels are. Check each line; remove what the car does not have.
# `drive-assets import video` describes the keys.
"""


def draft(folder: Path, dbc: Iterable[str] = ()) -> str:
    """The text of a mapping for the videos and logs in `folder`: guesses to be checked, and every signal as a comment.

    Raises:
        DataError: it holds no log.
    """
    inside = sorted(path for path in folder.iterdir() if path.is_file())
    logs = [path for path in inside if path.suffix.lower() in LOGS]
    if not logs:
        raise DataError(f"{folder} holds no log: expected one of {', '.join(LOGS)}.")
    databases = list(dbc) or [path.name for path in inside if path.suffix.lower() == ".dbc"]
    entries, channels, comments = [], {}, []
    for path in logs:
        needs_dbc = path.suffix.lower() not in (".csv", ".txt", ".tsv", ".mcap", ".bag", ".db3")
        entry = {"path": path.name} | ({"dbc": databases} if needs_dbc and databases else {})
        entries.append(entry)
        found = names(path, LogMapping(**entry))
        comments += [f"# {path.name}:", *(f"#   {name}" for name in found)]
        for channel, pattern in SUGGESTIONS.items():
            fitting = [name for name in found if re.search(pattern, name.lower())]
            if fitting and channel not in channels:
                channels[channel] = {"source": fitting[:3]}
    content = {
        "video": [path.name for path in inside if path.suffix.lower() in VIDEOS],
        "zone": "UTC",
        "drivetrain": "unknown",
        "logs": entries,
        "channels": channels,
    }
    return _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True) + "\n".join(comments) + "\n"
