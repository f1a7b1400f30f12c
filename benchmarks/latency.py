"""What a user waits for: python -m benchmarks.latency [--rounds 5]

A command that labels one small recording, against the import of the definitions alone; and a run launched in the UI,
from the launch to the start of its step and to its end, by a real `drive-assets ui` on an instance of its own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import requests

from benchmarks.backfill import write_telemetry

NAME = "2020-01-01_00-00-00"
IMPORT = "from drive_assets.definitions import defs; defs.get_repository_def()"
LAUNCH = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  ... on LaunchRunSuccess { run { runId } } } }"""
PARAMS = {
    "selector": {
        "repositoryName": "__repository__",
        "repositoryLocationName": "drive_assets.definitions",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": ["future_labels"]}],
    },
    "mode": "default",
    "runConfigData": {},
    "executionMetadata": {"tags": [{"key": "dagster/partition", "value": NAME}]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(DRIVE_ASSETS_DATA=folder, DAGSTER_HOME=f"{folder}/dagster")
        measure(options.rounds)


def measure(rounds: int) -> None:
    from drive_assets.partitions import register_recordings
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance
    from drive_assets_tests.browser.walk import served

    write_telemetry(Storage.from_environment().recording(NAME))
    with open_instance() as instance:
        register_recordings(instance, [NAME])
        imported = repeated(rounds, lambda: timed(["-c", IMPORT]))
        command = ["-m", "drive_assets.cli", "run", "--select", "future_labels", "--recordings", NAME]
        instance.report_runless_asset_event(materialization())
        labelled = repeated(rounds, lambda: timed(command))
        print(f"import of the definitions {imported:.2f} s; a command with one small asset {labelled:.2f} s, "
              f"{labelled - imported:.2f} s more")  # fmt: skip
        with served() as urls:
            waits = [launched(urls["dagster"], instance) for _ in range(rounds)]
        print(f"launched in the UI: step begins after {spread([w[0] for w in waits])} s, "
              f"run ends after {spread([w[1] for w in waits])} s")  # fmt: skip


def materialization() -> Any:
    import dagster as dg

    return dg.AssetMaterialization("recording", partition=NAME)


def timed(arguments: Sequence[str]) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-W", "ignore", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def repeated(rounds: int, measure: Callable[[], float]) -> float:
    measure()  # reads files from the disk
    return statistics.median(measure() for _ in range(rounds))


def spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"


def launched(dagster: str, instance: Any) -> tuple[float, float]:
    """Seconds from a launch to the start of the run's step, and to its end."""
    import dagster as dg

    from drive_assets_tests.browser.walk import token

    started = time.time()
    query, headers = {"query": LAUNCH, "variables": {"params": PARAMS}}, {"Authorization": f"Bearer {token()}"}
    answer = requests.post(f"{dagster}/graphql", json=query, headers=headers, timeout=120)
    run_id = answer.json()["data"]["launchPipelineExecution"]["run"]["runId"]
    while not instance.get_run_by_id(run_id).is_finished:
        time.sleep(0.1)
    begun = instance.all_logs(run_id, of_type={dg.DagsterEventType.STEP_START})[0]
    record = instance.get_run_record_by_id(run_id)
    assert record is not None and record.dagster_run.status == dg.DagsterRunStatus.SUCCESS
    return begun.timestamp - started, (record.end_time or 0) - started


if __name__ == "__main__":
    main()
