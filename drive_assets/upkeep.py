"""Whether what is there is current: as checks, which a sensor evaluates anew once a minute.

Nothing sets them off otherwise: no run happens when a file goes, a recording is refused, or the splits are made anew.
"""

import json
import time
from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from drive_assets.partitions import NO_NAME, RECORDINGS, misnamed_recordings
from drive_assets.recordings import arrivals
from drive_assets.resources.storage import Storage
from drive_assets.status import AssetStatus, asset_status

CURRENT, TAKEN = "is_current", "all_are_taken"
SPECS = [
    dg.AssetCheckSpec(
        TAKEN,
        asset="recording",
        description="No recording was refused, and none was added by hand that has no source or is no recording's "
        "name. Put it right and take it again, or forget it: job forget, or `drive-assets forget NAME`.",
    ),
    *(
        dg.AssetCheckSpec(
            CURRENT,
            asset=name,
            description="What is made is of the inputs and the code that there are now, and on the disk.",
        )
        for name in ("annotations", "future_labels", "h5_split", "checkpoint", "evaluation", "model_comparison")
    ),
]
SHOWN = 5
LONG_S, RESTS = 2.0, 30
"""A look that takes more of the processor, as over tens of thousands of recordings, is followed by so many times as
much rest."""


def found(status: AssetStatus, check: str) -> dg.AssetCheckResult:
    """What a check finds in an asset's status."""
    wrong = status.refused if check == TAKEN else status.stale
    words = "refused" if check == TAKEN else "out of date"
    names = [f"{key}: {reason}" if key else reason for key, reason in list(wrong.items())[:SHOWN]]
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return dg.AssetCheckResult(
        passed=not wrong,
        asset_key=status.asset,
        check_name=check,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(wrong)} {words}: {'; '.join(names)}{more}" if wrong else "",
        metadata={words.replace(" ", "_"): len(wrong), "made": len(status.made), "missing": len(status.missing)},
    )


@dg.multi_asset_check(specs=SPECS, name="upkeep", can_subset=True)
def upkeep(context: dg.AssetCheckExecutionContext, storage: Storage) -> Iterator[dg.AssetCheckResult]:
    # A command's run has no repository; its own part of the graph tells of the asset and what it is made from.
    graph = context.op_execution_context.get_step_execution_context().job_def.asset_layer.asset_graph
    for key in sorted(context.selected_asset_check_keys):
        yield found(asset_status(context.instance, graph, storage, key.asset_key), key.name)


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks once a minute for what was refused, is out of date or gone from the disk, and evaluates the "
    f"checks {TAKEN} and {CURRENT} anew where that changed. Removes partitions that were added under a name that no "
    "recording can have. Starts no run.",
)
def status_sensor(context: dg.SensorEvaluationContext, storage: Storage) -> dg.SensorResult | dg.SkipReason:
    """Evaluations of the checks whose outcome changed since the last tick."""
    assert context.repository_def is not None
    cursor = json.loads(context.cursor or "{}")
    if arrivals.now() < cursor.get("rests_until", 0.0):
        return dg.SkipReason(f"The last look took long: the next is at {_clock(cursor['rests_until'])}.")
    began, before = time.thread_time(), cursor.get("told", {})
    graph, now, changed = context.repository_def.asset_graph, dict[str, str](), []
    for spec in [spec for spec in SPECS if graph.has(spec.asset_key)]:
        name = spec.asset_key.to_user_string()
        status = asset_status(context.instance, graph, storage, spec.asset_key)
        if not status.made and not status.refused:
            continue
        result = found(status, spec.name)
        now[name] = str(result.description)
        if before.get(name) != now[name]:
            changed.append(result)
    told = [f"{name}: {text}" for name, text in now.items() if text]
    misnamed = misnamed_recordings(context.instance)
    if misnamed:
        told.insert(0, f"Removed, since {NO_NAME}: {', '.join(map(repr, misnamed))}.")
    took = time.thread_time() - began
    rests_until = arrivals.now() + RESTS * took if took > LONG_S else 0.0
    return dg.SensorResult(
        skip_reason=" ".join(told) or "All that is made is current.",
        cursor=json.dumps({"told": now, "rests_until": rests_until}),
        dynamic_partitions_requests=[RECORDINGS.build_delete_request(misnamed)] if misnamed else None,
        asset_events=[
            *(dg.AssetObservation("recording", partition=key, metadata={"removed": NO_NAME}) for key in misnamed),
            *(
                dg.AssetCheckEvaluation(
                    asset_key=spec_result.asset_key,
                    check_name=str(spec_result.check_name),
                    passed=spec_result.passed,
                    metadata=spec_result.metadata,
                    severity=spec_result.severity,
                    description=spec_result.description,
                )
                for spec_result in changed
                if spec_result.asset_key is not None
            ),
        ],
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


defs = dg.Definitions(asset_checks=[upkeep], sensors=[status_sensor])
