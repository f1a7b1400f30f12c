"""The first listing of 100,000 items by the SharePoint sensor: seconds per tick, memory, requests without a change.

    python -m benchmarks.sharepoint_sensor [--recordings 200] [--frames 499] [--page-size 200]

The library is the tests' local Graph server, in another process than the sensor.
Limits: 40 s per tick, 300 MiB in the sensor's process, one request for a tick without a change.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

from drive_assets_tests.graph_server import GraphServer
from drive_assets_tests.graph_server.drive import Drive, Entry, create_id

SETTLING_S = 1.0


class SyntheticDrive(Drive):
    """Recordings without files on disk, to be listed: `recordings` folders of `frames` frames and a telemetry.csv."""

    def __init__(self, recordings: int, frames: int) -> None:
        super().__init__()
        for number in range(recordings):
            name = f"20{24 + number // 372:02}-{1 + number // 31 % 12:02}-{1 + number % 31:02}_10-00-00"
            folder = self._add(name, self.root_id, is_folder=True)
            self._add("telemetry.csv", folder, 100 * frames)
            for frame in range(frames):
                self._add(f"{name[:10]} 10-00-{frame:05}.jpg", folder, 320_000)

    def _add(self, name: str, parent_id: str, size: int = 0, is_folder: bool = False) -> str:
        self.version += 1
        item_id = create_id(f"{parent_id}/{name}")
        self.put(Entry(item_id, name, parent_id, is_folder, size, 1_700_000_000 * 10**9, self.version))
        return item_id


def run_sensor(data: str, slice_s: float) -> None:
    """Tick until all is requested; prints one line of figures per tick as JSON."""
    import dagster as dg

    from drive_assets.recordings.arrivals import ArrivalRules
    from drive_assets.recordings.sharepoint.library import connect, read_settings
    from drive_assets.recordings.sharepoint.sensor import sharepoint_sensor
    from drive_assets.resources.storage import Storage

    rules = ArrivalRules(settling_s=SETTLING_S, slice_s=slice_s)
    storage, cursor, requested, idle = Storage(data_root=data, inbox_root=data), None, 0, 0
    client = connect(read_settings(), patience_s=slice_s / 4)
    with dg.instance_for_test() as instance:
        while idle < 2:
            started, before = time.perf_counter(), client.requests_sent
            resources = {"storage": storage, "arrival_rules": rules}
            with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
                result = sharepoint_sensor(context)
            assert isinstance(result, dg.SensorResult)
            cursor, runs = result.cursor, len(result.run_requests or [])
            requested += runs
            figures = {
                "seconds": round(time.perf_counter() - started, 2),
                "requests": client.requests_sent - before,
                "runs": runs,
                "MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
            print(json.dumps(figures), flush=True)
            idle = idle + 1 if requested and not runs else 0
            time.sleep(SETTLING_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--frames", type=int, default=499)
    parser.add_argument("--page-size", type=int, default=200)
    parser.add_argument("--slice", type=float, default=40.0, help="seconds that a tick may work")
    options = parser.parse_args()

    drive = SyntheticDrive(options.recordings, options.frames)
    print(f"{len(drive.entries)} items in pages of {options.page_size}")
    with tempfile.TemporaryDirectory() as data, GraphServer(drive=drive, page_size=options.page_size) as server:
        os.environ |= server.environment()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=run_sensor, args=(str(Path(data)), options.slice))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
