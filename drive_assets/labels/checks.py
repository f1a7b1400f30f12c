"""Whether labels can be true: against the telemetry that they were made from, and against other recordings."""

from functools import lru_cache
from statistics import median

import dagster as dg

from drive_assets.partitions import RECORDINGS
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import PartitionCheck
from model.recording.folder import Recording
from model.recording.labels import contradictions
from model.recording.schema import ACTIONS, HORIZONS_S

MOST_TRUE = {"brake": 0.5, "coast": 0.95}
"""Shares of known labels: a driver who brakes, or coasts, more than that has a sensor that hangs."""
MOST_UNKNOWN = 0.5
EARLIER, LEAST_EARLIER = 20, 5
"""Recordings before this one in time that it is compared with, and how many there must be."""
TIMES = 5.0
"""How many times more, or less, than the median of those is a surprise."""
FITS_TELEMETRY = dg.AssetCheckSpec(
    "fits_telemetry",
    asset="future_labels",
    partitions_def=RECORDINGS,
    blocking=True,
    description="Each known label says what the telemetry says of that moment, and each row has its labels. Blocking: "
    "networks would learn from labels of other moments.",
)
PLAUSIBLE_RATES = dg.AssetCheckSpec(
    "plausible_rates",
    asset="future_labels",
    partitions_def=RECORDINGS,
    description=f"At most {MOST_TRUE['brake']:.0%} of the brake labels and {MOST_TRUE['coast']:.0%} of the coast "
    f"labels are true, at most {MOST_UNKNOWN:.0%} are unknown, and rates are not {TIMES:g} times those of the "
    "recordings before.",
)


def fits_telemetry(storage: Storage) -> PartitionCheck:
    """The check of `FITS_TELEMETRY` on recordings of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        recording = Recording(storage.recording(name))
        found = contradictions(recording.telemetry()[0], recording.labels(), recording.label_config())
        told = "; ".join(f"{label}: {text}" for label, text in list(found.items())[:3])
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{recording.labels_path}: {told}. Label the recording again." if found else "",
            metadata={"contradicted": len(found)},
        )

    return PartitionCheck(FITS_TELEMETRY, evaluate)


def plausible_rates(storage: Storage) -> PartitionCheck:
    """The check of `PLAUSIBLE_RATES` on recordings of this data root."""

    def evaluate(name: str) -> dg.AssetCheckResult:
        own = _rates_of(storage, name)
        earlier = [_rates_of(storage, other) for other in storage.recordings_before(name, EARLIER)]
        told = [*_out_of_bounds(own), *_surprises(own, [rates for rates in earlier if rates])]
        return dg.AssetCheckResult(
            passed=not told,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{name}: {'; '.join(told)}. Look at its timeline (report), then at the recorder."
            if told
            else "",
            metadata={label: round(rate, 4) for label, rate in own.items() if label.endswith("_1s")},
        )

    return PartitionCheck(PLAUSIBLE_RATES, evaluate)


def _out_of_bounds(rates: dict[str, float]) -> list[str]:
    told = [
        f"{rates[label]:.0%} of {label} are true, more than {most:.0%}"
        for action, most in MOST_TRUE.items()
        for label in [f"{action}_{HORIZONS_S[0]}s"]
        if rates[label] > most
    ]
    if rates["unknown"] > MOST_UNKNOWN:
        told.append(f"{rates['unknown']:.0%} of the labels are unknown: gaps, or a drive of seconds")
    return told


def _surprises(own: dict[str, float], earlier: list[dict[str, float]]) -> list[str]:
    if len(earlier) < LEAST_EARLIER:
        return []
    told = []
    for label in (f"{action}_{HORIZONS_S[0]}s" for action in ACTIONS):
        usual = median(rates[label] for rates in earlier)
        if usual > 0 and not usual / TIMES <= own[label] <= usual * TIMES:
            told.append(f"{label} is true in {own[label]:.1%}, in the {len(earlier)} recordings before in {usual:.1%}")
    return told


def _rates_of(storage: Storage, name: str) -> dict[str, float]:
    """Share of true among the known of each label, and of unknown among all; empty if not labelled."""
    path = storage.future_labels(name)
    return _rates(Recording(path.parent), path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=2 * EARLIER)
def _rates(recording: Recording, changed: int) -> dict[str, float]:
    labels = recording.labels()
    names = [f"{action}_{HORIZONS_S[0]}s" for action in ACTIONS]
    known = {name: labels[name].dropna() for name in names}
    rates = {name: float(values.mean()) if len(values) else 0.0 for name, values in known.items()}
    return rates | {"unknown": 1 - sum(map(len, known.values())) / max(len(names) * len(labels), 1)}
