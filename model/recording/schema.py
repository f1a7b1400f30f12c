"""The table of channels and of labels: columns, features, ranges, tasks and their fingerprint derive from it.

Free of torch: the manifest and the launchpad show it. A new channel or label is a line here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.common.config import fingerprint
from model.common.errors import DataError

Kind = Literal["number", "flag", "gear"]
Gear = Literal["onehot", "continuous"]


@dataclass(frozen=True)
class Channel:
    """A column of `telemetry.csv`."""

    name: str
    unit: str
    kind: Kind = "number"
    plausible: tuple[float, float] | None = None
    """Values outside are a failed reading: the row is dropped and counted."""
    scaling: tuple[float, float] | None = None
    """The range that becomes [0, 1] for the networks."""
    sentinel: float | None = None
    """What loggers write for "no answer"; dropped where the values around it contradict."""
    fastest: float | None = None
    """The largest change a second that can be."""
    required: bool = False
    """Whether a recording must have the column, unless it is imported or declares that it lacks the channel. Others
    are no input where they are missing."""
    input: bool = False
    """Whether the networks see it, in the order of the table."""
    stands_for: str = ""
    """The channel in whose place it is an input, and gives labels, where a recording lacks that one."""


@dataclass(frozen=True)
class Label:
    """A column of `future_labels.csv`: what a channel says some seconds later."""

    name: str
    horizon_s: int
    channel: str
    """What it is looked up from."""
    binary: bool
    """Whether it is a task that a network can predict; else a number beside the tasks."""


PEDAL = "ACCELERATOR_POS_D"
PRESSED = "ACCELERATOR_PRESSED"
BRAKE = "BRAKE_SIGNAL"
GEARS = 6
"""0 (neutral) to 5."""
WINDOW_FRAMES = 20
"""Frames of a window, unless a data set is made with another length."""
CHANNELS = {
    channel.name: channel
    for channel in (
        Channel(
            "SPEED",
            "km/h",
            plausible=(-30.0, 400.0),  # backwards, too
            scaling=(0.0, 150.0),
            sentinel=255.0,  # a byte of ones
            fastest=50.0,
            required=True,
            input=True,
        ),
        Channel("RPM", "1/min", plausible=(0.0, 12_000.0), scaling=(650.0, 4500.0), input=True),
        Channel(PEDAL, "%", plausible=(-10.0, 110.0), scaling=(0.0, 100.0), required=True, input=True),
        Channel("ENGINE_LOAD", "%", plausible=(-10.0, 150.0), scaling=(0.0, 100.0), input=True),
        Channel(BRAKE, "", kind="flag", required=True),
        Channel("GEAR", "", kind="gear", scaling=(0.0, GEARS - 1.0), input=True),
        Channel("BRAKE_FORCE", "share of 9.81 m/s2", plausible=(-3.0, 3.0)),
        Channel(PRESSED, "", kind="flag", scaling=(0.0, 1.0), input=True, stands_for=PEDAL),
        Channel("ASSISTANCE", "", kind="flag"),  # the car, not the driver, works the pedals
        Channel("REVERSE", "", kind="flag"),
    )
}
HORIZONS_S = (1, 2, 3, 4, 5)
STEP_MS = 500
"""Of the 2 Hz of labels, windows and networks."""
ACTIONS = ("brake", "coast")
"""What the driver does at a frame, and in the binary labels after it."""
STATES = (*ACTIONS, "slow")
"""The same, and whether the car slows: from its speed alone, so that it is known of every car."""
_QUANTITIES = (
    (ACTIONS[0], BRAKE, True),
    (ACTIONS[1], PEDAL, True),
    ("brake_force", "BRAKE_FORCE", False),
    ("acc_pos", PEDAL, False),
)
LABELS = tuple(
    Label(f"{quantity}_{h}s", h, channel, binary) for h in HORIZONS_S for quantity, channel, binary in _QUANTITIES
)
"""In the order of the file's columns."""

TIME = "Time"
SPELLINGS = {TIME.lower(): TIME} | {
    spelling.lower(): name
    for name, channel in CHANNELS.items()
    for spelling in (name, f"{name} ({channel.unit})", f"{name} [{channel.unit}]")
}
"""Columns by what a header may call them, in lower case: with their unit too, if it is the channel's."""
REQUIRED_COLUMNS = (TIME, *(name for name, channel in CHANNELS.items() if channel.required))
INPUTS = tuple(name for name, channel in CHANNELS.items() if channel.input)
"""Channels that the networks can see, in their order."""
FEATURES = tuple(name for name in INPUTS if not CHANNELS[name].stands_for)
"""Those that they see of a recording that has all of them."""
LABEL_COLUMNS = (TIME, *(label.name for label in LABELS))
BINARY_LABELS = tuple(f"{name}_{h}s" for name, _, binary in _QUANTITIES if binary for h in HORIZONS_S)
SLOW_LABELS = tuple(f"slow_{h}s" for h in HORIZONS_S)
"""Labels besides, which the fingerprint of the schema leaves out: data sets from before they existed stay valid."""
TASKS = (*BINARY_LABELS, *SLOW_LABELS)
"""Labels that a network can predict."""
TARGETS = tuple(f"{name}_{h}s" for name, _, binary in _QUANTITIES if not binary for h in HORIZONS_S)
DEFAULT_TASKS = ("brake_1s", "brake_2s", "coast_1s", "coast_2s")
BOX_VALUES = ("class_id", "confidence", "x1", "y1", "x2", "y2", "area")
"""Values of a detection in a split file, px of the region of interest."""
BOX_FEATURES = BOX_VALUES[1:]
"""Those that the networks see, as shares of the region."""
GEAR_CODINGS: tuple[Gear, ...] = ("onehot", "continuous")


def telemetry_dim(inputs: Sequence[str], gear: str = "onehot") -> int:
    """Telemetry features a frame, of these channels."""
    return sum(GEARS if CHANNELS[name].kind == "gear" and gear == "onehot" else 1 for name in inputs)


TELEMETRY_DIM = {gear: telemetry_dim(FEATURES, gear) for gear in GEAR_CODINGS}


def check_inputs(names: Sequence[str], what: str) -> None:
    """Raises DataError unless `names` are distinct channels that can be inputs."""
    unknown = [name for name in names if name not in INPUTS]
    if unknown or len(set(names)) != len(names):
        raise DataError(f"{what} {', '.join(names)}: expected distinct channels of {', '.join(INPUTS)}.")


def used_schema(inputs: Sequence[str]) -> dict[str, Any]:
    """What the meaning of a split and of a network's weights depends on, JSON-ready, with its fingerprint."""
    content = {
        "scaling": {name: list(CHANNELS[name].scaling or ()) for name in inputs},
        "labels": [[label.name, label.horizon_s, label.channel] for label in LABELS],
        "box_values": list(BOX_VALUES),
    }
    return {**content, "fingerprint": fingerprint(list(inputs), content)}


def check_schema(schema: str, inputs: Sequence[str], what: str, advice: str) -> None:
    """Raises DataError unless `schema` is the fingerprint of today's schema of these inputs."""
    unknown = [name for name in inputs if name not in INPUTS]
    expected = "" if unknown else used_schema(inputs)["fingerprint"]
    if unknown or schema != expected:
        reason = f"{', '.join(unknown)} is no input now" if unknown else f"schema {schema or 'unknown'}, now {expected}"
        raise DataError(
            f"{what} was made with other channels, scaling ranges or labels than this version has ({reason}): {advice}."
        )
