"""When an asset is made by itself."""

import dagster as dg

C = dg.AutomationCondition


def when_inputs_are_there(later: dg.AssetSelection | None = None) -> dg.AutomationCondition:
    """Once what it is made from is there, and again when that was made anew.

    As Dagster's `eager`, which leaves out for ever what was missing when it looked for the first time, such as
    recordings that a command took before the UI was started.

    Args:
        later: inputs that must be there, and whose updates do not count.
    """
    updated, lacking = C.any_deps_updated(), C.any_deps_missing()
    if later is not None:
        updated = updated.ignore(later)
    wanted = C.newly_missing() | (C.missing() & C.initial_evaluation()) | updated
    return (
        wanted.since(C.newly_requested() | C.newly_updated()) & ~lacking & ~C.any_deps_in_progress() & ~C.in_progress()
    )
