"""What all sensors of recordings share: when a recording is requested, and what a tick reports."""

import time
from dataclasses import dataclass, field

import dagster as dg
from pydantic import Field

from drive_assets.partitions import KEYS_PER_CALL, RECORDINGS, is_recording_name
from drive_assets.recordings.files import Files, listing, missing_files
from drive_assets.recordings.source import Source
from drive_assets.recordings.sources import name_conflict, register
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import Seconds, setting
from model.common.printable import printable

INTERVAL_S = max(1, round(setting("DRIVE_ASSETS_SENSOR_INTERVAL_S", Seconds, 30)))
"""Between two ticks of a sensor."""
TAGS = {"dagster/max_retries": "3"}
"""A run whose process is lost, for example with its machine, restarts by itself (`run_retries` in dagster.yaml)."""
MAX_NAMES = 5
"""Names that a tick lists of each kind."""
REFUSED, INCOMPLETE, WRONG_NAME = "refused", "not complete", "not named YYYY-MM-DD_HH-MM-SS"
NAME_IN_USE = "not taken, since the name is in use"


def now() -> float:
    """Seconds since 1970; the one clock of all sensors."""
    return time.time()


class ArrivalRules(dg.ConfigurableResource):
    """When a recording that arrives is requested, and how much one tick of a sensor does."""

    settling_s: float = Field(
        default=600.0,
        ge=0,
        description="Seconds without a change after which a recording is requested, so that half-copied ones are not.",
    )
    most_a_tick: int = Field(default=200, ge=1, description="Most runs that one tick requests; the next continues.")
    slice_s: float = Field(
        default=40.0, ge=0, description="Most seconds that one tick works; Dagster ends a tick after 60."
    )

    @classmethod
    def from_environment(cls) -> "ArrivalRules":
        """With `DRIVE_ASSETS_SETTLING_S`, if that is set.

        Raises:
            DataError: it is no number of seconds.
        """
        return cls(settling_s=setting("DRIVE_ASSETS_SETTLING_S", Seconds, 600.0))


@dataclass
class Tick:
    """What one tick of a sensor saw and requests."""

    storage: Storage
    rules: ArrivalRules
    requested: dict[str, tuple[str, Source]] = field(default_factory=dict)
    """Run key and source of each recording, by name"""
    notes: dict[str, list[str]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def is_full(self) -> bool:
        return len(self.requested) >= self.rules.most_a_tick

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self.started

    def note(self, kind: str, text: str) -> None:
        """Report one thing of a kind, such as ("refused", "week.zip is no complete zip")."""
        self.notes.setdefault(kind, []).append(printable(text))

    def is_settled(self, label: str, changed: float) -> bool:
        """Whether the settling time passed since a change at the time `changed`; reports it if not."""
        age, settling = now() - changed, self.rules.settling_s
        if age < settling:
            self.note("not settled", f"{label} changed {_duration(age)} ago (settling time {_duration(settling)})")
        return age >= settling

    def request(self, source: Source, key: str, files: Files | None, where: str) -> str:
        """Request a recording, or report why not: its name is wrong or in use, or it lacks a file.

        Args:
            key: of the run: identifies the source's folder or zip, and its content.
            files: None if only the ingestion will show them.
            where: names the recording in a report.

        Returns:
            The kind of the report; empty if the recording is requested.
        """
        kind, text = NAME_IN_USE, ""
        if not is_recording_name(source.name):
            kind, text = WRONG_NAME, where
        elif files is not None and (missing := missing_files(files)):
            kind, text = INCOMPLETE, f"{where} lacks {missing}"
        elif source.name in self.requested:
            other = self.requested[source.name][1].location
            text = f"{source.location} and {other} are both {source.name}; the latter is taken"
        else:
            text = name_conflict(self.storage, source, listing(files or []))
        if text:
            self.note(kind, text)
            return kind
        self.requested[source.name] = (key, source)
        return ""

    def summary(self, nothing: str) -> str:
        """All notes by kind, with counts and the first few of each; `nothing` if there are none."""
        parts = [f"{len(self.requested)} requested"] if self.requested else []
        for kind, texts in self.notes.items():
            more = [f"and {len(texts) - MAX_NAMES} more"] if len(texts) > MAX_NAMES else []
            parts.append(f"{len(texts)} {kind}: {'; '.join([*texts[:MAX_NAMES], *more])}")
        return ". ".join(parts or [nothing]) + "."

    def result(self, context: dg.SensorEvaluationContext, cursor: str, nothing: str) -> dg.SensorResult:
        """Register the sources, and request partitions and runs; the tick's text is the summary."""
        summary = self.summary(nothing)
        if not self.requested:
            return dg.SensorResult(skip_reason=summary, cursor=cursor)
        context.log.info(summary)
        register(self.storage, [source for _, source in self.requested.values()])
        names = sorted(self.requested)
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(key, partition_key=name, tags=TAGS) for name, (key, _) in self.requested.items()
            ],
            dynamic_partitions_requests=[
                RECORDINGS.build_add_request(names[i : i + KEYS_PER_CALL]) for i in range(0, len(names), KEYS_PER_CALL)
            ],
            cursor=cursor,
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
