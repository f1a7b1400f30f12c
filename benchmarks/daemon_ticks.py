"""How long the sensors' ticks take in Dagster's own daemon.

`evaluate_automation_conditions`, which is for tests, reads all partition keys a hundred times a tick; the daemon does
not.
"""

import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorType, TickStatus


def daemon_ticks(
    instance: dg.DagsterInstance, names: Collection[str], count: int = 2, most_s: float = 150.0
) -> dict[str, list[float]]:
    """Seconds of the first `count` ticks of sensors that run by default; fewer if they are not done in `most_s`."""
    program = str(Path(sys.executable).with_name("dagster-daemon"))
    command = [program, "run", "-m", "drive_assets.definitions"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            ends = time.monotonic() + most_s
            while time.monotonic() < ends:
                found = _ended(instance, names)
                if all(len(found[name]) >= count for name in names):
                    break
                time.sleep(1)
            return {name: ticks[:count] for name, ticks in _ended(instance, names).items()}
        finally:
            daemon.terminate()


def _ended(instance: dg.DagsterInstance, names: Collection[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in names}
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.name in found:
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
            ended = [(tick.timestamp, tick.end_timestamp) for tick in ticks if tick.status != TickStatus.STARTED]
            found[state.name] = [end - start for start, end in reversed(ended) if end]
    return found
