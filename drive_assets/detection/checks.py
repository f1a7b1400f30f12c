"""Checks of detectors: are they good enough to annotate with?"""

import dagster as dg

from drive_assets.checks import ERROR, WARN, check_result

MIN_MAP50 = 0.1
"""A detector with less on its own validation images misses most vehicles, or sees them everywhere."""


def _finds_vehicles(asset: str, blocking: bool) -> dg.AssetChecksDefinition:
    consequence = "Blocking: annotations use it." if blocking else "Warns: annotations use it only if weights name it."

    @dg.asset_check(
        asset=asset,
        blocking=blocking,
        description=f"mAP50 on val is at least {MIN_MAP50:g}: worse annotations spoil a data set. {consequence}",
    )
    def finds_vehicles(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        event = context.instance.get_latest_materialization_event(dg.AssetKey(asset))
        materialization = event.asset_materialization if event else None
        value = materialization.metadata["map50"].value if materialization else None
        map50 = float(value) if isinstance(value, (int, float)) else 0.0
        return check_result(
            [] if map50 >= MIN_MAP50 else [f"mAP50 on val is {map50:.2f}, at least {MIN_MAP50:g} is needed"],
            "Train longer or on more images, or name other weights in the launchpad of annotations.",
            about=asset,
            severity=ERROR if blocking else WARN,
            metadata={"map50": map50},
        )

    return finds_vehicles


boxy_finds_vehicles = _finds_vehicles("boxy_detector", blocking=True)
nuimages_finds_vehicles = _finds_vehicles("nuimages_detector", blocking=False)
