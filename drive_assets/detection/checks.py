"""Whether a detector learnt enough to annotate with."""

import dagster as dg

LEAST_MAP50 = 0.1
"""Below this on its own validation images a detector misses most vehicles, or sees them everywhere."""


def _check(asset: str, blocking: bool) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="finds_vehicles",
        blocking=blocking,
        description=f"mAP50 on val is at least {LEAST_MAP50:g}: annotations with less poison a data set. "
        + ("Blocking: annotations use it." if blocking else "Warns: annotations use it only if its weights are named."),
    )
    def finds_vehicles(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        event = context.instance.get_latest_materialization_event(dg.AssetKey(asset))
        made = event.asset_materialization if event else None
        value = made.metadata["map50"].value if made else None
        map50 = float(value) if isinstance(value, (int, float)) else 0.0
        passed = map50 >= LEAST_MAP50
        return dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
            description=""
            if passed
            else f"{asset}: mAP50 on val is {map50:.2f}, at least {LEAST_MAP50:g} is needed to annotate with it. Train "
            "longer or on more images, or name other weights in the launchpad of annotations.",
            metadata={"map50": map50},
        )

    return finds_vehicles


DETECTOR_CHECKS = [_check("boxy_detector", blocking=True), _check("nuimages_detector", blocking=False)]
