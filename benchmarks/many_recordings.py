"""How the UI and the commands fare with many recordings: python -m benchmarks.many_recordings [--recordings 10000]

Registers recordings and their events on an instance of its own, without files. Measured are the load of the code
location, the size of an event, queries as those behind pages of the UI on a real web server, a tick of the
automation and `drive-assets status`; against the same with a hundred recordings. And ticks of the inbox sensor.
"""

import argparse
import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from benchmarks.dagster_servers import web_server

REPORTED = 100
PAGE = """{ assetNodeOrError(assetKey: {path: ["recording"]}) { ... on AssetNode {
  partitionKeys
  partitionStats { numMaterialized numPartitions numMaterializing numFailed }
  assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions } }
  assetMaterializations(limit: 50) { partition timestamp metadataEntries { label } }
} } }"""
PARTITIONS = """{ assetNodeOrError(assetKey: {path: ["recording"]}) { ... on AssetNode {
  partitionKeysByDimension { name type partitionKeys }
  partitionStats { numMaterialized numPartitions numMaterializing numFailed }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } }
} } }"""
CATALOG = """{ assetNodes { assetKey { path } groupName description kinds
  partitionStats { numMaterialized numPartitions numMaterializing numFailed }
  assetMaterializations(limit: 1) { timestamp partition }
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
} }"""
LOAD = """
import time
import psutil
started = time.monotonic()
from drive_assets.definitions import defs
defs.get_repository_def().load_all_definitions()
print(time.monotonic() - started, time.process_time(), psutil.Process().memory_info().rss / 2**20)
"""


FRAMES = 3592


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=10_000)
    options = parser.parse_args()
    for work, count in ((measure_inbox, 20), (measure, 100), (measure, options.recordings)):
        with tempfile.TemporaryDirectory() as folder:
            process = multiprocessing.get_context("spawn").Process(target=work, args=(count, folder))
            process.start()
            process.join()


def measure_inbox(count: int, folder: str) -> None:
    """Print ms of the processor a recording of `FRAMES` frames in ticks of the inbox sensor."""
    import dagster as dg

    from drive_assets.recordings import inbox
    from drive_assets.recordings.arrivals import ArrivalRules
    from drive_assets.resources.storage import Storage

    storage = Storage(data_root=folder, inbox_root=f"{folder}/inbox")
    for number in range(count):
        drive = storage.inbox / f"{datetime(2020, 1, 1) + timedelta(hours=number):%Y-%m-%d_%H-%M-%S}"
        drive.mkdir(parents=True)
        for name in ("telemetry.csv", *(f"2020-01-01 00-00-00-{frame}.jpg" for frame in range(FRAMES))):
            (drive / name).write_bytes(b"x")
    resources = {"storage": storage, "arrival_rules": ArrivalRules(settling_s=0)}
    cursor: str | None = None
    for what in ("new", "unchanged"):
        with dg.build_sensor_context(cursor=cursor, resources=resources) as context:
            _ = context.resources  # made now
            started = time.process_time()
            result = inbox.inbox_sensor(context)
            cpu = time.process_time() - started
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        print(f"{count:6,} recordings  in the inbox, {what:9} {cpu / count * 1000:8.2f} ms of CPU each", flush=True)


def measure(count: int, folder: str) -> None:
    """Print seconds, MiB and kB with `count` recordings, in a process of its own."""
    os.environ.update(DRIVE_ASSETS_DATA=folder, DAGSTER_HOME=f"{folder}/dagster")
    from dagster_shared.serdes import serialize_value

    from drive_assets.definitions import defs
    from drive_assets.partitions import register_recordings
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance
    from drive_assets.status import read_status

    def show(what: str, value: float, cpu: float | None = None) -> None:
        of_cpu = "" if cpu is None else f"   {cpu:7.2f} s of CPU"
        print(f"{count:6,} recordings  {what:36} {value:9.2f}{of_cpu}", flush=True)

    names = [f"{datetime(2020, 1, 1) + timedelta(hours=hour):%Y-%m-%d_%H-%M-%S}" for hour in range(count)]
    event = event_of_a_drive()
    show("an event of recording, kB", len(serialize_value(event)) / 1000)
    with open_instance() as instance:
        show("registering, s", *timed(lambda: register_recordings(instance, names)))
        first = [event._replace(partition=name) for name in names[:REPORTED]]
        show("events of a hundred, s", *timed(lambda: [instance.report_runless_asset_event(each) for each in first]))
        copy_events(Path(folder) / "dagster" / "history" / "runs" / "index.db", names[0], names[REPORTED:])
        load = [sys.executable, "-W", "ignore", "-c", LOAD]
        wall, cpu, megabytes = map(float, subprocess.check_output(load, text=True).split())
        show("load of the code location, s", wall, cpu)
        show("its memory, MiB", megabytes)
        with web_server() as (ask, server):
            show("asset page of recording, s", *timed(lambda: ask(PAGE), server))
            show("the same again, s", *timed(lambda: ask(PAGE), server))
            show("partitions page of recording, s", *timed(lambda: ask(PARTITIONS), server))
            show("catalog of all assets, s", *timed(lambda: ask(CATALOG), server))
        graph, cursor = defs.resolve_asset_graph(), list[str]()
        show("first tick, s", *timed(lambda: cursor.append(tick(graph, instance, ""))))
        show("tick, s", *timed(lambda: tick(graph, instance, cursor[0])))
        storage = Storage.from_environment()
        show("drive-assets status, s", *timed(lambda: read_status(instance, graph, storage)))
    show("memory of all this, MiB", psutil.Process().memory_info().rss / 2**20)


def tick(graph: Any, instance: Any, cursor: str) -> str:
    """A tick of the automation as the daemon does it; the next cursor.

    `evaluate_automation_conditions` is no measure: it reads all partitions again for each node of a condition.
    """
    from dagster import AssetSelection
    from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
    from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
    from dagster._daemon import asset_daemon

    read = asset_daemon.asset_daemon_cursor_from_instigator_serialized_cursor
    before = read(cursor, graph) if cursor else AssetDaemonCursor.empty(0)
    evaluation = AutomationTickEvaluationContext(
        evaluation_id=before.evaluation_id + 1,
        instance=instance,
        asset_graph=graph,
        cursor=before,
        materialize_run_tags={},
        observe_run_tags={},
        auto_observe_asset_keys=set(),
        asset_selection=AssetSelection.all(),
        logger=logging.getLogger(__name__),
        emit_backfills=True,
    )
    _, after, _ = evaluation.evaluate()
    return asset_daemon.asset_daemon_cursor_to_instigator_serialized_cursor(after)


def copy_events(database: Path, name: str, others: Sequence[str]) -> None:
    """The event of a recording for others, as rows: by Dagster's interface ten thousand take minutes."""
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        for table, key in (("event_logs", "partition"), ("asset_event_tags", "event_id")):
            where = (
                "partition = ?" if key == "partition" else "event_id = (select id from event_logs where partition = ?)"
            )
            row = dict(connection.execute(f"select * from {table} where {where}", (name,)).fetchone())
            top = connection.execute(f"select max(id) from {table}").fetchone()[0]
            first_event = connection.execute("select max(id) from event_logs").fetchone()[0] - len(others)
            rows = []
            for number, other in enumerate(others, 1):
                copy = {
                    column: value.replace(name, other) if isinstance(value, str) else value
                    for column, value in row.items()
                }
                copy |= {"id": top + number} | ({} if key == "partition" else {"event_id": first_event + number})
                rows.append(tuple(copy.values()))
            marks = ", ".join("?" * len(row))
            connection.executemany(f"insert into {table} values ({marks})", rows)


def timed(work: Callable[[], object], process: int | None = None) -> tuple[float, float]:
    """Seconds, and those of CPU, of this process or another."""
    used = psutil.Process(process)
    started, before = time.monotonic(), used.cpu_times()
    work()
    after = used.cpu_times()
    return time.monotonic() - started, after.user - before.user + after.system - before.system


def event_of_a_drive() -> Any:
    """The event of a drive that was really taken."""
    import dagster as dg

    from drive_assets.recordings.assets import _result
    from drive_assets.recordings.ingest import IngestReport
    from drive_assets_tests.drives import write_drive
    from model.recording.content import content_hash
    from model.recording.folder import inspect_recording

    with tempfile.TemporaryDirectory() as folder:
        drive = write_drive(Path(folder) / "2019-12-31_10-00-00")
        made = _result(drive, IngestReport(inspect_recording(drive), content_hash(drive), str(drive), "new"), ())
    return dg.AssetMaterialization("recording", metadata=made.metadata, tags={"dagster/data_version": "1"})


if __name__ == "__main__":
    main()
