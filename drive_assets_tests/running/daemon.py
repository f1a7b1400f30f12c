"""Dagster's own daemon, and backfills for it, for tests and benchmarks."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

PROGRAM = str(Path(sys.executable).with_name("dagster-daemon"))


@contextmanager
def daemon(log_file: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The daemon, with this process's environment; it and its code server are gone after the block.

    Args:
        options: the definitions, by default the product's.
    """
    command = [PROGRAM, "run", *(options or ("-m", "drive_assets.definitions"))]
    with log_file.open("ab") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                    kill(each)


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def launch_backfill(instance: dg.DagsterInstance, graph: Any, asset: str, names: Sequence[str], name: str) -> None:
    """Request a backfill of an asset's partitions, as the UI does."""
    backfill = PartitionBackfill.from_asset_partitions(
        asset_graph=graph,
        backfill_id=name,
        tags={},
        backfill_timestamp=time.time(),
        asset_selection=[dg.AssetKey(asset)],
        partition_names=list(names),
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)


def backfill_status(instance: dg.DagsterInstance, name: str) -> BulkActionStatus:
    backfill = instance.get_backfill(name)
    assert backfill is not None
    return backfill.status
