"""When assets are materialised automatically."""

import dagster as dg

C = dg.AutomationCondition


def when_inputs_are_there(later: dg.AssetSelection | None = None) -> dg.AutomationCondition:
    """Once all inputs exist, and again when one of them is materialised again.

    Dagster's `eager` never requests what was missing at its first evaluation, such as recordings that a command
    ingested before the UI was started.

    Args:
        later: inputs that must exist, but whose updates do not trigger anything.
    """
    updated, missing = C.any_deps_updated(), C.any_deps_missing()
    if later is not None:
        updated = updated.ignore(later)
    wanted = C.newly_missing() | (C.missing() & C.initial_evaluation()) | updated
    return (
        wanted.since(C.newly_requested() | C.newly_updated()) & ~missing & ~C.any_deps_in_progress() & ~C.in_progress()
    )


def once_inputs_settle() -> dg.AutomationCondition:
    """After some of the input's partitions were materialised, as soon as none is in progress."""
    updated = C.any_deps_updated().since(C.newly_requested() | C.newly_updated())
    return updated & ~C.any_deps_in_progress() & ~C.in_progress()
