"""Labels of many small recordings: python -m benchmarks.backfill [--recordings 1000]

A backfill through Dagster's daemon, as the UI launches it, from its launch to its end, on an instance and a data root
of its own; and one batch in one process, as `drive-assets run --select future_labels` makes it.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

ROWS = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(DRIVE_ASSETS_DATA=folder, DAGSTER_HOME=f"{folder}/dagster")
        measure(options.recordings, Path(folder))


def measure(count: int, folder: Path) -> None:
    from drive_assets.definitions import defs
    from drive_assets.partitions import register_recordings
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance
    from drive_assets.running.materialize import materialize
    from drive_assets_tests.running.daemon import daemon

    storage = Storage.from_environment()
    names = [f"{datetime(2020, 1, 1) + timedelta(hours=hour):%Y-%m-%d_%H-%M-%S}" for hour in range(count)]
    for name in names:
        write_telemetry(storage.recording(name))
    with open_instance() as instance:
        register_recordings(instance, names)
        log = folder / "daemon.log"
        with daemon(log):
            while "Checking" not in log.read_text():  # its code server has loaded the definitions
                time.sleep(0.2)
            wall, starts = through_the_daemon(instance, defs.resolve_asset_graph(), names)
        print(f"{count} labels by the daemon: {wall:.1f} s, {count / wall:.1f} partitions/s")
        print(
            f"  runs of {dict(Counter(size for _, size in starts))} partitions, begun after {[s for s, _ in starts]} s"
        )
        repository = defs.get_repository_def()
        materialize(repository, instance, "future_labels", names[:1])  # imports what is imported once
        wall, cpu = time.monotonic(), time.process_time()
        assert materialize(repository, instance, "future_labels", names[:250])
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    each = cpu / min(count, 250)
    print(f"a batch of 250 in one process: {wall:.1f} s; {each * 1000:.1f} ms of CPU each")


def through_the_daemon(instance: Any, graph: Any, names: Sequence[str]) -> tuple[float, list[tuple[float, int]]]:
    """Seconds of a backfill; and of each of its runs the seconds after which it began, and its partitions."""
    import dagster as dg
    from dagster._core.execution.backfill import BulkActionStatus

    from drive_assets_tests.running.daemon import backfill_status, launch_backfill

    started = time.time()
    launch_backfill(instance, graph, "future_labels", names, "benchmark")
    while (status := backfill_status(instance, "benchmark")) == BulkActionStatus.REQUESTED:
        time.sleep(0.2)
    assert status == BulkActionStatus.COMPLETED_SUCCESS, status
    runs = instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": "benchmark"}))
    made = (dg.DagsterEventType.ASSET_MATERIALIZATION,)
    sizes = [len(instance.all_logs(run.dagster_run.run_id, of_type=set(made))) for run in runs]
    ended = max(run.end_time for run in runs)
    starts = sorted((round(run.start_time - started, 1), size) for run, size in zip(runs, sizes, strict=True))
    return ended - started, starts


def write_telemetry(folder: Path) -> None:
    """A drive without frames, which labels do not need."""
    from drive_assets_tests.drives import HEADER

    folder.mkdir(parents=True)
    date, clock = folder.name.split("_")
    start = datetime.strptime(f"{date} {clock}", "%Y-%m-%d %H-%M-%S")
    lines = [HEADER]
    for row in range(ROWS):
        moment, phase = start + timedelta(seconds=row // 2), row % 24
        brake, pedal = 18 <= phase < 22, 0.0 if 14 <= phase < 23 else 30.0
        lines.append(f"{moment:%Y-%m-%d %H-%M-%S}-{5 * (row % 2)},{90 + phase},2000,{pedal},40,{brake},5,-0.02,[],[]")
    (folder / "telemetry.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
