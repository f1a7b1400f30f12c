"""The mapping file of an import: where each channel is in the logs, and how their clocks relate to the video's."""

from collections.abc import Hashable
from datetime import date, datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import Field, field_validator

from model.common.config import Config
from model.common.errors import DataError
from model.imports.signals import NEAR_S, UNITS

NUMBERS = ("SPEED", "RPM", "ACCELERATOR_POS_D", "ENGINE_LOAD", "GEAR")
SWITCHES = ("BRAKE_SIGNAL", "ACCELERATOR_PRESSED", "ASSISTANCE", "REVERSE")
"""Channels that are on or off. ASSISTANCE says that the car, not the driver, works the pedals."""
Drivetrain = Literal["combustion", "hybrid", "electric", "unknown"]
ESTIMATE = "estimate"


class ChannelMapping(Config):
    """Where a channel is, and what its values mean."""

    source: list[str] = Field(
        min_length=1,
        description="Alternatives, of which the first that a log has is taken: a column of a wide CSV, a PID name of a "
        "long CSV, `message.signal` of a CAN log with a DBC, a channel of "
        "an MDF4 file, or `topic field.subfield` of MCAP and ROS",
    )
    log: str = Field(
        "", description="Name or pattern of the log that has it. Empty: the only one, or the first with it"
    )
    optional: bool = Field(False, description="Whether the drive is imported without this channel if no log has it")
    unit: str = Field("", description="Unit in the log, such as m/s; empty: the channel's own")
    scale: float = Field(1.0, description="Factor on the values, after the unit's")
    shift: float = Field(0.0, description="Added after the factor")
    pressed: list[str | float] = Field(
        [],
        description="Values of a switch that mean on; others mean off. Empty: all numbers but 0, and on, true, yes, "
        "pressed",
    )
    pressed_from: float | None = Field(
        None, description="Of a pressure or a travel: the smallest value, in the log's unit, that means on"
    )
    missing: list[str | float] = Field([], description="Values that mean that there was no answer")
    at_least: float | None = Field(None, description="Smallest value that can be; smaller ones are dropped and counted")
    at_most: float | None = Field(None, description="Largest value that can be; larger ones are dropped and counted")
    holds_s: float = Field(
        NEAR_S,
        gt=0,
        le=60,
        description="Seconds around a sample for which it counts. More for signals logged on change",
    )

    @field_validator("source", mode="before")
    @classmethod
    def _as_list(cls, source: Any) -> Any:
        return [source] if isinstance(source, str) else source


class LogMapping(Config):
    """A log or several of one kind, and their clock."""

    path: str = Field(min_length=1, description="File name or pattern, such as drive*.blf")
    layout: Literal["", "wide", "long"] = Field(
        "", description="Of a CSV: wide (a column a signal) or long (a row a value). Empty: wide"
    )
    separator: str = Field("", max_length=1, description="Of a CSV. Empty: as the header shows")
    decimal_mark: str = Field("", description="Of a CSV: point (.) or comma (,). Empty: as the numbers show")
    header_row: int = Field(0, ge=0, description="Line of a CSV's header, from 1; 0: the first that names the columns")
    time_column: str = Field("", description="Of a CSV. Empty: the first that is named as times are")
    zone_column: str = Field("", description="Of a CSV: a column whose texts name the times' zone, such as MESZ")
    name_column: str = Field("", description="Of a long CSV: the column of the signals' names")
    value_column: str = Field("", description="Of a long CSV: the column of the values")
    unit_column: str = Field("", description="Of a long CSV: the column of the units")
    dbc: list[str] = Field([], description="DBC files that decode a CAN log")
    bus: str = Field("", description="Channel of a CAN log with several, such as can0 or 1. Empty: all")
    clock: Literal["", "epoch", "relative", "midnight", "text"] = Field(
        "",
        description="What its times are: seconds since 1970, since the log's start or since midnight, or a date's "
        "text. Empty: as the values show",
    )
    clock_unit: Literal["", "s", "ms", "us", "ns"] = Field(
        "", description="Unit of times that are numbers. Empty: s, or of times since 1970 as their size shows"
    )
    time_format: str = Field("", description="Of times that are texts, in strftime codes. Empty: as they show")
    day: date | None = Field(None, description="Date of times since midnight. Empty: the date in the file's name")
    start: datetime | None = Field(None, description="Moment of time 0 of a relative clock. Empty: the video's start")
    zone: str = Field("", description="Time zone of its times, such as Europe/Berlin. Empty: the mapping's")
    rate_hz: float = Field(0.0, ge=0, description="Rows a second of a CSV without times; 0: it has times")

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        return checked_zone(zone)

    @field_validator("dbc")
    @classmethod
    def _beside_the_log(cls, dbc: list[str]) -> list[str]:
        if outside := [name for name in dbc if Path(name).name != name]:
            raise DataError(f"names of files beside the log, not {', '.join(outside)}: copy the DBC there")
        return dbc


class ImportMapping(Config):
    """A drive: its video, its logs, their clocks, and the channels."""

    preset: str = Field("", description="Mapping that this one adds to: torque, car-scanner, obd-fusion, racechrono")
    video: list[str] = Field(
        [], description="File names or patterns, in order of time. Empty: the videos in the folder"
    )
    video_start: datetime | None = Field(
        None, description="Moment of the video's first frame. Empty: as the file says, or its name"
    )
    offset_s: Annotated[float, Field(ge=-1e9, le=1e9)] | Literal["estimate"] = Field(
        0.0,
        description="Seconds to add to the logs' times so that they are the video's; `estimate`: from the picture's "
        "flow and the speed",
    )
    zone: str = Field("UTC", description="Time zone of the drive, such as Europe/Berlin")
    drivetrain: Drivetrain = Field("unknown", description="combustion, hybrid or electric")
    region: list[int] = Field([], description="Region of interest: x, y, width, height in px. Empty: the whole frame")
    logs: list[LogMapping] = Field([], description="The logs")
    channels: dict[str, ChannelMapping] = Field({}, description="By channel")

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        return checked_zone(zone)

    @field_validator("region")
    @classmethod
    def _four(cls, region: list[int]) -> list[int]:
        if region and len(region) != 4:
            raise DataError("x, y, width, height in px")
        return region

    @field_validator("channels")
    @classmethod
    def _known(cls, channels: dict[str, ChannelMapping]) -> dict[str, ChannelMapping]:
        if unknown := [name for name in channels if name not in NUMBERS + SWITCHES]:
            raise DataError(f"some of {', '.join(NUMBERS + SWITCHES)}, not {', '.join(unknown)}")
        for name, channel in channels.items():
            if channel.unit and channel.unit not in UNITS.get(name, {}):
                known = ", ".join(UNITS.get(name, {})) or "none"
                raise DataError(
                    f"a unit of {name} among {known}, not {channel.unit}; use `scale` and `shift` for others"
                )
        return channels


def checked_zone(zone: str) -> str:
    """`zone` if it is a time zone's name, or empty."""
    try:
        if zone:
            ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DataError(f"a time zone such as Europe/Berlin, not {zone!r}") from None
    return zone


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(problem=f"{twice} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> ImportMapping:
    """The mapping in a YAML file, over its preset.

    Raises:
        DataError: no YAML, an unknown key, a key twice, or a value that does not fit.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no mapping: expected text in UTF-8; save it as such.") from error
    content = _load(text, str(path))
    try:
        name = str(content.get("preset", ""))
        return ImportMapping(**(preset(name) | content if name else content))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def preset(name: str) -> dict[str, Any]:
    """The content of a preset. Raises DataError if there is none of this name."""
    folder = resources.files("model.imports") / "presets"
    names = sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml"))
    if name not in names:
        raise DataError(f"preset {name}: expected one of {', '.join(names)}.")
    return _load((folder / f"{name}.yaml").read_text(encoding="utf-8"), name)


def _load(text: str, what: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, _OnceLoader)
    except yaml.YAMLError as error:
        raise DataError(f"{what} is no mapping: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{what} is no mapping: expected keys such as video, logs and channels.")
    return content


def checked_moment(moment: datetime, zone: str) -> float:
    """s since 1970; a moment without a zone is one in `zone`."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).timestamp()
