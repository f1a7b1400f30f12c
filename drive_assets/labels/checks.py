"""Checks of labels: do they match the telemetry, and are they plausible next to other recordings?"""

from functools import lru_cache
from statistics import median

import dagster as dg

from drive_assets.checks import ERROR, check_result, partition_check
from drive_assets.resources.storage import Storage
from model.recording.folder import Recording
from model.recording.labels import contradictions
from model.recording.schema import ACTIONS, HORIZONS_S

MAX_TRUE = {"brake": 0.5, "coast": 0.95}
"""Shares of known labels: a driver who brakes, or coasts, more than that has a stuck sensor."""
MAX_UNKNOWN = 0.5
EARLIER, MIN_EARLIER = 20, 5
"""Preceding recordings to compare with, at most and at least."""
MAX_RATIO = 5.0
"""Largest ratio to their median rate."""
LABELS = tuple(f"{action}_{HORIZONS_S[0]}s" for action in ACTIONS)


@partition_check(blocking=True)
def fits_telemetry(storage: Storage, name: str) -> dg.AssetCheckResult:
    """Each row has labels, and each known label matches the telemetry of its moment. Blocking: networks would learn
    from wrong labels."""
    recording = Recording(storage.recording(name))
    wrong = contradictions(recording.telemetry()[0], recording.labels(), recording.label_config())
    return check_result(
        [f"{label}: {text}" for label, text in list(wrong.items())[:3]],
        "Label the recording again.",
        about=str(recording.labels_path),
        severity=ERROR,
        metadata={"contradicted": len(wrong)},
    )


@partition_check(
    f"At most {MAX_TRUE['brake']:.0%} of the brake labels and {MAX_TRUE['coast']:.0%} of the coast labels are true, at "
    f"most {MAX_UNKNOWN:.0%} are unknown, and rates are within {MAX_RATIO:g} times those of the preceding recordings."
)
def plausible_rates(storage: Storage, name: str) -> dg.AssetCheckResult:
    rates = _rates_of(storage, name)
    earlier = [_rates_of(storage, other) for other in storage.recordings_before(name, EARLIER)]
    return check_result(
        [*_out_of_bounds(rates), *_changes(rates, [other for other in earlier if other])],
        "Look at its timeline (report), then check the recorder.",
        about=name,
        metadata={label: round(rates[label], 4) for label in LABELS},
    )


def _out_of_bounds(rates: dict[str, float]) -> list[str]:
    problems = [
        f"{rates[label]:.0%} of {label} are true, more than {MAX_TRUE[action]:.0%}"
        for action, label in zip(ACTIONS, LABELS, strict=True)
        if rates[label] > MAX_TRUE[action]
    ]
    if rates["unknown"] > MAX_UNKNOWN:
        problems.append(f"{rates['unknown']:.0%} of the labels are unknown: gaps, or a drive of seconds")
    return problems


def _changes(rates: dict[str, float], earlier: list[dict[str, float]]) -> list[str]:
    if len(earlier) < MIN_EARLIER:
        return []
    usual = {label: median(other[label] for other in earlier) for label in LABELS}
    return [
        f"{label} is true in {rates[label]:.1%}, in {usual[label]:.1%} of the {len(earlier)} preceding recordings"
        for label in LABELS
        if usual[label] > 0 and not usual[label] / MAX_RATIO <= rates[label] <= usual[label] * MAX_RATIO
    ]


def _rates_of(storage: Storage, name: str) -> dict[str, float]:
    """Share of true among the known labels of each action, and of unknown among all; empty if there are no labels."""
    path = storage.future_labels(name)
    return _rates(Recording(path.parent), path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=2 * EARLIER)
def _rates(recording: Recording, changed: int) -> dict[str, float]:
    labels = recording.labels()
    known = {label: labels[label].dropna() for label in LABELS}
    rates = {label: float(values.mean()) if len(values) else 0.0 for label, values in known.items()}
    return rates | {"unknown": 1 - sum(map(len, known.values())) / max(len(LABELS) * len(labels), 1)}
