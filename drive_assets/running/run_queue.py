"""Dagster's queue of runs, which refuses a partition that does not exist. Named in dagster.yaml."""

from dagster import DagsterRun, partition_loading_context
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

PARTITION_TAGS = ("dagster/partition", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


class CheckedRunQueue(QueuedRunCoordinator):
    """Dagster takes any key, and the run would end in a traceback of its own."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Queue a run, or fail it with one sentence."""
        reason = _unknown_partition(context)
        if not reason:
            return super().submit_run(context)
        self._instance.report_run_failed(context.dagster_run, reason)
        return self._instance.get_run_by_id(context.dagster_run.run_id) or context.dagster_run


def _unknown_partition(context: SubmitRunContext) -> str:
    run, graph = context.dagster_run, context.workspace.asset_graph
    for asset in sorted(run.asset_selection or ()):
        definition = graph.get(asset).partitions_def if graph.has(asset) else None
        if definition is None:
            continue
        keys = [run.tags[tag] for tag in PARTITION_TAGS if tag in run.tags]
        if not keys:
            return f"{asset.to_user_string()} has partitions, and none was chosen: choose one when you launch it."
        with partition_loading_context(dynamic_partitions_store=context.workspace.instance):
            unknown = [key for key in keys if not definition.has_partition_key(key)]
        if unknown:
            return (
                f"{asset.to_user_string()} has no partition {unknown[0]!r}: choose one that its page lists under "
                "Partitions. A recording becomes one when it is taken, and is none any more once it is forgotten."
            )
    return ""
