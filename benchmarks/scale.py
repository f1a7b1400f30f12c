"""Orchestration at fleet scale: 100,000 recordings in a real Dagster instance on PostgreSQL.

    python -m benchmarks.scale [--recordings 100000] [--batch 500]

A real run records `--batch` recordings by an asset that only touches files. The events of the rest are copied from one
within the database: storing them one by one would take hours, and reading them is what is measured. Each figure is wall
time and processor time, PostgreSQL's and the web server's too; the load is printed, since it weighs on both.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import psutil
import sqlalchemy as sa

from benchmarks.dagster_servers import daemon_ticks, web_server
from benchmarks.data_path import generate, ours_labels
from drive_assets_tests.postgres import Postgres, postgres

if TYPE_CHECKING:
    from drive_assets.resources.storage import Storage

SERVERS: list[psutil.Process] = []
"""PostgreSQL's, whose times hold those of its processes that have ended."""
PARTS = ("manifest", "instance")
RECORDING = {"path": ["recording"]}
ASSETS = ("recording", "annotations", "future_labels")
NODE = "query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { id %s } } }"
QUERIES = {
    "page: partitions and their states": NODE
    % "partitionKeysByDimension { name type partitionKeys } assetPartitionStatuses { ... on DefaultPartitionStatuses "
    "{ materializedPartitions materializingPartitions failedPartitions } }",
    "page: counts of partitions": NODE % "partitionStats { numMaterialized numPartitions numFailed numMaterializing }",
    "page: definition": NODE % "description jobNames dependencyKeys { path } dependedByKeys { path } kinds",
    "page: last events": "query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset { id "
    "assetMaterializations(limit: 100) { timestamp runId partition metadataEntries { label } } } } }",
}
"""As the asset's page sends them, without the fields that do not depend on the number of partitions."""


def measured(what: str, do: Callable[[], Any]) -> Any:
    wall, cpu = time.perf_counter(), processor_s()
    result = do()
    wall, cpu = time.perf_counter() - wall, processor_s() - cpu
    print(f"{what}: {wall:.2f} s, {cpu:.2f} s of processor; load {os.getloadavg()[0]:.0f}", flush=True)
    return result


def processor_s() -> float:
    """Of this process and all below it: the web server, PostgreSQL, and programs that have ended."""
    total = time.process_time() + sum(os.times()[2:4])
    for child in [*psutil.Process().children(recursive=True), *SERVERS]:
        with contextlib.suppress(psutil.Error):
            total += sum(child.cpu_times()[:4])
    return total


def names(count: int) -> list[str]:
    first = datetime(2015, 1, 1)
    return [f"{first + timedelta(minutes=37 * number):%Y-%m-%d_%H-%M-%S}" for number in range(count)]


def touch_files(instance: dg.DagsterInstance, root: Path, keys: list[str]) -> None:
    """One run over `keys`, by an asset that touches a file for each."""
    from drive_assets.running.batches import Event, each_partition

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(keys))
    def touched(context: dg.AssetExecutionContext) -> Iterator[Event]:
        def touch(key: str) -> dg.MaterializeResult:
            (root / key).touch()
            return dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(root / key)})

        yield from each_partition(context, touch)

    ends = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    job = dg.Definitions([touched]).resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    assert job.execute_in_process(instance=instance, tags=ends, run_config=quiet).success


def fill(instance: dg.DagsterInstance, url: str, first: str) -> None:
    """Events of the ingestion, annotation and labelling of every recording."""
    for name in ASSETS:
        tags = {"dagster/data_version": "1", "dagster/code_version": "1"}
        instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=first, tags=tags))
    with sa.create_engine(url).begin() as database:
        for name in ASSETS:
            values = {"asset": json.dumps([name]), "first": first}
            rest = (
                "FROM event_logs e, dynamic_partitions p "
                "WHERE e.asset_key = :asset AND e.partition = :first AND p.partition <> :first"
            )
            columns = "run_id, dagster_event_type, timestamp, step_key, asset_key"
            chosen = ", ".join(f"e.{column}" for column in columns.split(", "))
            database.execute(
                sa.text(
                    f"INSERT INTO event_logs ({columns}, partition, event) "
                    f"SELECT {chosen}, p.partition, replace(e.event, :first, p.partition) {rest} "
                    "AND e.dagster_event_type = 'ASSET_MATERIALIZATION'"
                ),
                values,
            )
            database.execute(
                sa.text(
                    "INSERT INTO asset_event_tags (asset_key, event_id, event_timestamp, key, value) "
                    "SELECT t.asset_key, e.id, e.timestamp, t.key, t.value FROM event_logs e, asset_event_tags t "
                    "JOIN event_logs f ON f.id = t.event_id WHERE e.asset_key = :asset AND f.asset_key = :asset "
                    "AND f.partition = :first AND e.partition <> :first"
                ),
                values,
            )
        count = database.execute(sa.text("SELECT count(*) FROM event_logs")).scalar()
    with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as database:
        database.execute(sa.text("ANALYZE"))
    print(f"{count:,} events")


def ticks(instance: dg.DagsterInstance) -> None:
    """Of all sensors that run by default, in Dagster's own daemon; an inbox that is settled has nothing new."""
    print("ticks in the daemon, s:")
    for name, seconds in daemon_ticks(instance, ("automation_sensor", "inbox_sensor", "status_sensor")).items():
        print(f"  {name}: {', '.join(f'{each:.1f}' for each in seconds)}", flush=True)


def manifest(storage: "Storage", keys: list[str]) -> None:
    """Of all recordings, which lie there by links to the files of one; what is read of it is what is kept of each."""
    from drive_assets.splits.manifest import changed_recordings
    from model.common.files import write_json
    from model.dataset.assignment import SplitConfig
    from model.dataset.splits import build_manifest
    from model.dataset.summaries import summarise
    from model.dataset.summary_cache import SETTLED_S, SummaryCache, stamp_of
    from model.dataset.windows import WindowConfig
    from model.recording.folder import Recording

    window = WindowConfig(stride=1)
    split = SplitConfig(accept_implausible=keys)  # the generator's channels are no real car's
    one = Recording(storage.root / "one" / keys[0])
    one.folder.parent.mkdir()
    generate(one.folder, 0)
    ours_labels([one.folder])
    for when in one.telemetry()[0]["Time"]:
        (one.folder / f"{when}.jpg").touch()
    write_json(one.details_path, {"roi": [0, 320, 1920, 575], "camera": []})
    summary = measured("read a recording of 3,592 rows for the manifest", lambda: summarise(one, window))
    assert summary.stats is not None
    cache = SummaryCache(storage.summaries, window)
    for number, key in enumerate(keys):
        own = Recording(storage.recording(key))
        own.folder.mkdir(parents=True)
        for name in one.digests():
            (own.folder / name).symlink_to(one.folder / name)
        moved, stats = (
            2_220_000 * number,
            replace(summary.stats, name=key, windows=summary.stats.windows - number % 1000),
        )
        sample = {when + moved: checksum for when, checksum in summary.sample.items()}
        each = replace(summary, stats=stats, sample=sample)
        cache.used[key] = (stamp_of(own)[0], each)
    cache.save()
    time.sleep(SETTLED_S)  # what has just changed would be read again
    content = measured(
        "manifest, nothing changed",
        lambda: build_manifest(storage.recordings, keys, window, split, None, storage.summaries),
    )
    assert len(content["recordings"]) == len(keys)
    measured("write it", lambda: write_json(storage.manifest, content))
    print(f"  {storage.manifest.stat().st_size / 1e6:.0f} MB, kept {storage.summaries.stat().st_size / 1e6:.0f} MB")
    time.sleep(1)
    found = measured("what changed since", lambda: changed_recordings(storage, keys))
    assert not found


def scale(server: Postgres, count: int, batch: int, root: Path, parts: list[str]) -> None:
    from drive_assets.partitions import recording_keys, register_recordings
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance
    from drive_assets.running.ui import prepare_services

    keys = names(count)
    if "manifest" in parts:
        manifest(Storage.from_environment(), keys)
    if "instance" not in parts:
        return
    prepare_services()
    with open_instance() as instance:
        measured(f"register {count:,} recordings", lambda: register_recordings(instance, keys))
        measured("read their names", lambda: recording_keys(instance))
        (root / "touched").mkdir()
        measured(f"a run over {batch} partitions", lambda: touch_files(instance, root / "touched", keys[:batch]))
        measured("fill the event log", lambda: fill(instance, server.url("dagster"), keys[0]))
        code = "from drive_assets.definitions import defs; defs.get_repository_def()"
        measured("load of the code location", lambda: subprocess.run([sys.executable, "-c", code], check=True))
        measured("materialised recordings", lambda: len(instance.get_materialized_partitions(dg.AssetKey("recording"))))
        with web_server() as (ask, _):
            for what, query in QUERIES.items():
                ask(query, key=RECORDING)
                size = measured(what, lambda q=query: ask(q, key=RECORDING))
                print(f"  {size / 1e6:.1f} MB")
        ticks(instance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    with postgres("dagster", "mlflow") as server, tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        SERVERS.append(psutil.Process(int((server.folder / "data" / "postmaster.pid").read_text().split()[0])))
        os.environ |= {
            "DRIVE_ASSETS_DATA": folder,
            "DAGSTER_HOME": str(root / "dagster"),
            "DRIVE_ASSETS_POSTGRES": server.url("dagster"),
            "DRIVE_ASSETS_SETTLING_S": "1",
            "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
        }
        for name in names(options.recordings)[: options.recordings // 10]:  # a year's, say, still lie in the inbox
            (root / "inbox" / name).mkdir(parents=True)
            (root / "inbox" / name / "telemetry.csv").write_text("Time\n")
            (root / "inbox" / name / f"{name[:10]} {name[11:]}-0.jpg").touch()
        scale(server, options.recordings, options.batch, root, options.parts)


if __name__ == "__main__":
    main()
