"""How many ops do GPU work at the same time: the compute resource decides, unless somebody sets another limit."""

import dagster as dg

from drive_assets.resources.compute import Compute

GPU_POOL = "gpu"
_DEFAULT = "drive_assets/default of pool gpu"
"""Key in Dagster's store of the limit that was set here last."""


def set_default_limit(instance: dg.DagsterInstance, compute: Compute) -> None:
    """Set the limit of pool `gpu` to that of `compute`, unless somebody has set another one in the UI."""
    limit, events = compute.pool_limit, instance.event_log_storage
    current = {pool.name: pool.limit for pool in events.get_pool_limits() if not pool.from_default}.get(GPU_POOL)
    previous_default = instance.daemon_cursor_storage.get_cursor_values({_DEFAULT}).get(_DEFAULT)
    if current != limit and (current is None or str(current) == previous_default):
        events.set_concurrency_slots(GPU_POOL, limit)
        instance.daemon_cursor_storage.set_cursor_values({_DEFAULT: str(limit)})
