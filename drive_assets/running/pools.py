"""How many ops may have GPU work at a time: what the compute resource says, unless somebody chose another number."""

import dagster as dg

from drive_assets.resources.compute import Compute

GPU_POOL = "gpu"
_DEFAULT = "drive_assets/default of pool gpu"
"""Key of Dagster's store under which the limit stands that was set here last."""


def set_default_limit(instance: dg.DagsterInstance, compute: Compute) -> None:
    """Give the pool the limit of `compute`. One that was chosen in the UI stays."""
    limit, events = compute.pool_limit, instance.event_log_storage
    current = {pool.name: pool.limit for pool in events.get_pool_limits() if not pool.from_default}.get(GPU_POOL)
    ours = instance.daemon_cursor_storage.get_cursor_values({_DEFAULT}).get(_DEFAULT)
    if current != limit and (current is None or str(current) == ours):
        events.set_concurrency_slots(GPU_POOL, limit)
        instance.daemon_cursor_storage.set_cursor_values({_DEFAULT: str(limit)})
