"""Checks of labels: do they match the telemetry, and are they plausible?"""

import dagster as dg

from drive_assets.checks import ERROR, check_result, partition_check
from drive_assets.resources.storage import Storage
from model.recording.folder import Recording
from model.recording.labels import contradictions
from model.recording.schema import ACTIONS, HORIZONS_S

MAX_TRUE = {"brake": 0.5, "coast": 0.95}
"""Shares of known labels: a driver who brakes, or coasts, more than that has a stuck sensor."""
MAX_UNKNOWN = 0.5
LABELS = {f"{action}_{HORIZONS_S[0]}s": MAX_TRUE[action] for action in ACTIONS}


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
    f"At most {MAX_TRUE['brake']:.0%} of the brake labels and {MAX_TRUE['coast']:.0%} of the coast labels are true, "
    f"and at most {MAX_UNKNOWN:.0%} are unknown."
)
def plausible_rates(storage: Storage, name: str) -> dg.AssetCheckResult:
    labels = Recording(storage.recording(name)).labels()[list(LABELS)].astype("boolean")
    known = labels.notna().mean()
    rates = labels.mean().fillna(0.0).astype(float)
    unknown = 1 - float(known[known > 0].mean() if known.any() else 0)  # of labels that the source gives at all
    problems = [
        f"{rates[label]:.0%} of {label} are true, more than {most:.0%}"
        for label, most in LABELS.items()
        if rates[label] > most
    ]
    if unknown > MAX_UNKNOWN:
        problems.append(f"{unknown:.0%} of the labels are unknown: gaps, driver assistance, or a drive of seconds")
    return check_result(
        problems,
        "Look at its timeline (report), then check the recorder.",
        about=name,
        metadata={label: round(float(rates[label]), 4) for label in LABELS},
    )
