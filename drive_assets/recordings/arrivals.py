"""What all sensors of recordings have in common: when a recording is taken, and what a tick tells."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from pydantic import Field

from drive_assets.partitions import KEYS_PER_CALL, RECORDINGS
from drive_assets.recordings.archives import listing
from drive_assets.recordings.sources import Source, origin, register
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import seconds_from_environment
from model.common.config import fingerprint

INTERVAL_S = max(1, round(seconds_from_environment("DRIVE_ASSETS_SENSOR_INTERVAL_S", 30)))
"""Between two ticks of a sensor."""
TAGS = {"dagster/max_retries": "3"}
"""A run whose process was lost, say with its machine, goes on by itself (`run_retries` in dagster.yaml)."""
SHOWN = 5
"""Names that a tick lists of each kind."""


def now() -> float:
    """Seconds since 1970; the one clock of all sensors."""
    return time.time()


def clock() -> float:
    """Seconds from some moment on; by it a tick's own time is measured."""
    return time.monotonic()


class ArrivalRules(dg.ConfigurableResource):
    """When a recording that arrives is taken, and how much a tick of a sensor does."""

    settling_s: float = Field(
        default=600.0,
        ge=0,
        description="Taken once nothing in it changed for this long, so that half-copied drives are not.",
    )
    most_a_tick: int = Field(default=200, ge=1, description="Runs that one tick requests at most; the next goes on.")
    slice_s: float = Field(
        default=40.0, ge=0, description="Seconds that one tick works at most; Dagster ends a tick after 60."
    )

    @classmethod
    def from_environment(cls) -> "ArrivalRules":
        """With `DRIVE_ASSETS_SETTLING_S`, if that is set.

        Raises:
            DataError: it is no number of seconds.
        """
        return cls(settling_s=seconds_from_environment("DRIVE_ASSETS_SETTLING_S", 600.0))


@dataclass(frozen=True)
class Arrival:
    """A complete and settled recording that a sensor found."""

    source: Source
    key: str
    """Identifies the item and its content."""
    sizes: str
    """`listing` of its files."""


@dataclass
class Tick:
    """What a tick saw and asks for."""

    rules: ArrivalRules
    requested: list[Arrival] = field(default_factory=list)
    told: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=lambda: clock())

    @property
    def is_full(self) -> bool:
        return len(self.requested) >= self.rules.most_a_tick

    @property
    def spent_s(self) -> float:
        return clock() - self.started

    @property
    def is_over(self) -> bool:
        return self.spent_s >= self.rules.slice_s

    def tell(self, kind: str, what: str) -> None:
        """Note one thing of a kind, such as ("not settled", "2024-05-01_10-00-00 changed 20 s ago")."""
        self.told.setdefault(kind, []).append(what)

    def warn(self, kind: str, what: str) -> None:
        """Tell what somebody should see even if the tick requests something."""
        self.tell(kind, what)
        self.warnings.append(f"{what}: {kind}")

    def summary(self, nothing: str) -> str:
        """All that was told, by kind, with counts and the first few of each; `nothing` if there is nothing to tell."""
        parts = [f"{len(self.requested)} requested"] if self.requested else []
        for kind, items in self.told.items():
            shown = "; ".join(items[:SHOWN]) + (f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
            parts.append(f"{len(items)} {kind}: {shown}")
        return ". ".join(parts or [nothing]) + "."

    def result(
        self, context: dg.SensorEvaluationContext, storage: Storage, cursor: str, nothing: str
    ) -> dg.SensorResult:
        """Remember the sources, and ask for partitions and runs; the tick's text says what was seen."""
        summary = self.summary(nothing)
        for warning in self.warnings:
            context.log.warning(warning)
        if not self.requested:
            return dg.SensorResult(skip_reason=summary, cursor=cursor)
        context.log.info(summary)
        register(storage, [arrival.source for arrival in self.requested])
        names = sorted(arrival.source.name for arrival in self.requested)
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(arrival.key, partition_key=arrival.source.name, tags=TAGS) for arrival in self.requested
            ],
            dynamic_partitions_requests=[
                RECORDINGS.build_add_request(names[i : i + KEYS_PER_CALL]) for i in range(0, len(names), KEYS_PER_CALL)
            ],
            cursor=cursor,
        )


def rival(storage: Storage, arrival: Arrival, tick: Tick) -> str:
    """Why a recording's name is not free: another source holds it with other content. Empty if it is free.

    A name belongs to the source that it was first requested from. Another one of the same kind gets it once the first
    is gone; a source of another kind never.
    """
    name, folder = arrival.source.name, storage.recording(arrival.source.name)
    for other in tick.requested:
        if other.source.name == name:
            return f"{arrival.source.location} and {other.source.location} are both {name}; the latter is taken"
    earlier = origin(storage, name)
    if (
        earlier is not None
        and earlier.kind == arrival.source.kind
        and (earlier.place == arrival.source.place or earlier.is_gone(storage))
    ):
        return ""
    if folder.is_dir():
        if listing(sizes_of(folder)) == arrival.sizes:
            return ""
    elif earlier is None:
        return ""
    place = earlier.location if earlier is not None else str(folder)
    return f"{name} is there already from {place} with other content than {arrival.source.location}"


def sizes_of(folder: Path) -> list[tuple[str, int]]:
    """Name and size in bytes of the files in a folder."""
    with os.scandir(folder) as entries:
        return [(entry.name, entry.stat().st_size) for entry in entries if entry.is_file()]


def key_of(item: str, name: str, *content: object) -> str:
    """A run key: what is requested once. The name belongs to it, since a recording that is renamed is another one."""
    return f"{item}:{fingerprint(name, *content)}"


def age_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
