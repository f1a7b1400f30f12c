"""Checks whether outputs are up to date, evaluated by a sensor once a minute.

Nothing else would evaluate them: no run happens when a file is deleted, a recording fails or the splits are rebuilt.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from drive_assets.asset import declarations
from drive_assets.checks import check_result
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import check_event
from drive_assets.status import CURRENT, AssetStatus, asset_status, listed

TAKEN, TRUSTED = "all_are_taken", "none_is_doubtful"
MAX_LISTED = 5


def upkeep(definitions: Iterable[dg.AssetsDefinition]) -> dg.Definitions:
    """The checks of declared assets, and the sensor that evaluates them."""
    current = "Outputs exist on disk and were made from the current inputs and code."
    taken = (
        "No recording failed. Correct it and ingest it again, or forget it: job forget, or `drive-assets forget NAME`."
    )
    specs = [dg.AssetCheckSpec(CURRENT, asset=name, description=current) for name in declarations(definitions)]
    specs.append(dg.AssetCheckSpec(TAKEN, asset="recording", description=taken))
    trusted = "The checks of each recording passed. Look at the report of those that are named."
    specs.append(dg.AssetCheckSpec(TRUSTED, asset="recording", description=trusted))
    return dg.Definitions(asset_checks=[_checks(specs)], sensors=[status_sensor])


def evaluate(status: AssetStatus, check: str) -> dg.AssetCheckResult:
    """The result of a check, from an asset's status."""
    reasons, words = {
        CURRENT: (status.outdated, "out of date"),
        TAKEN: (status.failed, "failed"),
        TRUSTED: (status.doubtful, "doubtful"),
    }[check]
    return check_result(
        listed(reasons, MAX_LISTED),
        about=f"{len(reasons)} of {len(status.materialised) + len(status.missing)} {words}",
        metadata={
            "materialised": len(status.materialised),
            "missing": len(status.missing),
            words.replace(" ", "_"): len(reasons),
        },
    )._replace(asset_key=dg.AssetKey(status.asset), check_name=check)


def _checks(specs: Sequence[dg.AssetCheckSpec]) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(specs=specs, name="upkeep", can_subset=True)
    def check(context: dg.AssetCheckExecutionContext, storage: Storage) -> Iterator[dg.AssetCheckResult]:
        # A command's run has no repository; the job's own part of the graph has the asset and its inputs.
        graph = context.op_execution_context.get_step_execution_context().job_def.asset_layer.asset_graph
        selected = sorted(context.selected_asset_check_keys)
        statuses = {key: asset_status(context.instance, graph, storage, key) for key in {k.asset_key for k in selected}}
        for key in selected:
            yield evaluate(statuses[key.asset_key], key.name)

    return check


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks once a minute for recordings that failed or are doubtful, and for outputs that are out of date "
    f"or gone from the disk; evaluates the checks {TAKEN}, {TRUSTED} and {CURRENT} where that changed. Starts no run.",
)
def status_sensor(context: dg.SensorEvaluationContext, storage: Storage) -> dg.SensorResult:
    assert context.repository_def is not None
    graph, known = context.repository_def.asset_graph, json.loads(context.cursor or "{}")
    events = dict[str, dg.AssetCheckEvaluation]()
    for name in declarations(graph.assets_defs):
        status = asset_status(context.instance, graph, storage, dg.AssetKey(name))
        if status.materialised or status.failed:
            for check in (CURRENT, TAKEN, TRUSTED) if name == "recording" else (CURRENT,):
                key = dg.AssetCheckKey(dg.AssetKey(name), check)
                events[f"{name}, {check}"] = check_event(evaluate(status, check), key)
    texts = {name: str(event.description) for name, event in events.items()}
    return dg.SensorResult(
        skip_reason=" ".join(f"{name}: {text}." for name, text in texts.items() if text)
        or "All outputs are up to date.",
        cursor=json.dumps(texts),
        asset_events=[event for name, event in events.items() if known.get(name) != texts[name]],
    )
