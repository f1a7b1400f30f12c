"""`make demo-sharepoint`: recordings arrive in a library, and the sensor of a real Dagster daemon ingests them.

The library is the tests' local Graph server on a folder of simulated drives: no account is needed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from drive_assets.recordings.sharepoint.check_access import check_access
from drive_assets.recordings.sharepoint.sensor import sharepoint_sensor
from drive_assets.resources.storage import Storage, data_root
from drive_assets.running.instance import open_instance
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.drives import simulate_drives
from drive_assets_tests.graph_server import GraphServer
from model.common.errors import DataError

SIMULATION = SimulationConfig(recordings=3, duration_s=20.0)
SETTLING_S, INTERVAL_S = 3, 5
"""Short, so that the demo is."""
PATIENCE_S = 300.0
STOP_S = 20.0


def run_demo(log: Callable[[str], None]) -> bool:
    """Serve two recordings, then add a third; returns whether the sensor had all of them ingested."""
    started, storage = time.monotonic(), Storage.from_environment()
    storage.check_writable()
    library, drives = storage.root / "library", storage.simulated / "recordings"
    shutil.rmtree(library, ignore_errors=True)
    drives.mkdir(parents=True, exist_ok=True)
    log(f"Simulating {SIMULATION.recordings} drives of {SIMULATION.duration_s:.0f} s")
    first, second, third = simulate_drives(drives, SIMULATION, log)
    folder = library / "Drives"
    folder.mkdir(parents=True)
    shutil.copytree(first, folder / first.name)
    shutil.make_archive(str(folder / second.name), "zip", second)
    with GraphServer(library) as server:
        os.environ |= server.environment() | {"SHAREPOINT_FOLDER": "Drives"}
        os.environ |= {"DRIVE_ASSETS_SETTLING_S": str(SETTLING_S), "DRIVE_ASSETS_SENSOR_INTERVAL_S": str(INTERVAL_S)}
        log(f"\nA library with a folder and a zip is served at {server.graph_url}. `drive-assets sharepoint check`:")
        if not check_access(log):
            return False
        with open_instance() as instance, daemon(storage.root / "daemon.log"):
            log(f"\nDagster's daemon runs, its log is {storage.root / 'daemon.log'}. The sensor reports:")
            taken = wait_for(instance, {first.name, second.name}, log)
            if taken:
                log(f"\n{first.name} and {second.name} are ingested. Now {third.name} is uploaded. The sensor reports:")
                shutil.copytree(third, folder / f".{third.name}")
                (folder / f".{third.name}").rename(folder / third.name)
                taken = wait_for(instance, {third.name}, log)
    log(
        f"\n{'All three were ingested' if taken else 'Not all were ingested, see the log'}, "
        f"in {time.monotonic() - started:.0f} s:"
    )
    log(f"  recordings            {storage.recordings}")
    log(f"  the sensor's database {storage.root / 'sharepoint'}")
    log(f"Look at runs, sensor ticks and frames with `DRIVE_ASSETS_DATA={storage.root} make ui`.")
    return taken


@contextmanager
def daemon(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon in another process, with this one's environment."""
    command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-m", "drive_assets.definitions"]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(instance: dg.DagsterInstance, names: set[str], log: Callable[[str], None]) -> bool:
    """Wait until all these recordings are materialised; logs what the sensor reports when that changes."""
    deadline, logged = time.monotonic() + PATIENCE_S, ""
    while time.monotonic() < deadline:
        text = last_tick(instance)
        if text and text != logged:
            logged = text
            log(f"  {text}")
        if names <= instance.get_materialized_partitions(dg.AssetKey("recording")):
            return True
        time.sleep(0.5)
    return False


def last_tick(instance: dg.DagsterInstance) -> str:
    """What the SharePoint sensor reported in its last completed tick."""
    for state in instance.all_instigator_state():
        if state.instigator_name != sharepoint_sensor.name:
            continue
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=2):
            if tick.status.value == "SUCCESS":
                return f"{len(tick.run_ids)} run(s) requested"
            if tick.status.value == "FAILURE" and tick.error:
                return f"failed: {tick.error.message.strip()}"
            if tick.skip_reason:
                return tick.skip_reason
    return ""


def main() -> None:
    os.environ.setdefault("DRIVE_ASSETS_DATA", str(data_root() / "demo-sharepoint"))
    os.environ["DAGSTER_HOME"] = str(data_root() / "dagster")
    try:
        sys.exit(0 if run_demo(lambda line: print(line, flush=True)) else 1)
    except DataError as error:
        print(f"demo-sharepoint: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
