"""Runs of the echo asset on the local cluster, in this process or in one that a test kills."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.resources.cluster.job_folder import JobFolder, Submission
from drive_assets_tests.cluster.graph import execute, settings
from drive_assets_tests.cluster.slurm import LocalCluster
from drive_assets_tests.cluster.worker import begun
from drive_assets_tests.waiting import until


@dataclass
class Lab:
    """A data root, its Dagster instance, and the cluster."""

    cluster: LocalCluster
    root: Path
    instance: dg.DagsterInstance

    @property
    def go(self) -> Path:
        """Jobs of runs with `wait` set wait for this file."""
        return self.root / "go"

    def run(self, first: str = "a", last: str = "a", changed: Any = None, **config: Any) -> dg.ExecuteInProcessResult:
        """One run of the asset for partitions `first` to `last`."""
        return execute(self.instance, settings(self.root, **(changed or {})), self._config(config), first, last)

    def start(self, last: str = "a", **config: Any) -> "subprocess.Popen[bytes]":
        """A run of partitions a to `last` in its own process, once its tags name its jobs and the job of a began."""
        before = len(self.instance.get_runs())
        given = {"chosen": settings(self.root), "config": self._config(config), "first": "a", "last": last}
        command = [sys.executable, "-W", "ignore", "-m", "drive_assets_tests.cluster.graph", json.dumps(given)]
        process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))

        def waits() -> bool:
            assert process.poll() is None
            runs = self.instance.get_runs()
            return len(runs) > before and "drive_assets/jobs" in runs[0].tags and begun(self.root / "a.txt") > 0

        try:
            until(waits, "the run waits for its job")
        except BaseException:
            process.kill()
            raise
        return process

    def killed(self, last: str = "a", **config: Any) -> None:
        """A run as `start` makes it, killed."""
        process = self.start(last, **config)
        process.kill()
        process.wait()

    def run_while(self, act: Callable[[], None]) -> dg.ExecuteInProcessResult:
        """A run of partition a during which `act` is called, once the job has begun."""
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(self.run, wait=True)
            try:
                until(lambda: begun(self.root / "a.txt"), "the job begins")
                act()
            finally:
                self.go.touch()
            return result.result()

    def made(self) -> dict[str, int]:
        """How often each job had begun, by materialised partition of the newest run."""
        run = self.instance.get_runs()[0].run_id
        records = self.instance.get_records_for_run(run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
        events = [record.event_log_entry.dagster_event for record in records]
        return {
            str(event.partition): int(event.step_materialization_data.materialization.metadata["begun"].value)
            for event in events
            if event and event.partition
        }

    def log(self) -> str:
        """Everything in the log of the newest run, including failures."""
        lines = []
        for entry in self.instance.all_logs(self.instance.get_runs()[0].run_id):
            event = entry.dagster_event
            failure = event.step_failure_data.user_failure_data if event and event.is_step_failure else None
            lines += [entry.user_message, str(failure.description) if failure else ""]
        return "\n".join(lines)

    def job_ids(self) -> list[str]:
        """The jobs of the newest run."""
        return self.instance.get_runs()[0].tags["drive_assets/jobs"].split(", ")

    def live_jobs(self) -> list[str]:
        return self.cluster.call("squeue", "--noheader", "--array", "--format=%i").split()

    def submission(self) -> tuple[JobFolder, Submission]:
        """The only job's folder and its submission."""
        (path,) = (self.root / "jobs").glob("echoes-*")
        submission = JobFolder(path).submission()
        assert submission is not None
        return JobFolder(path), submission

    def job_details(self) -> str:
        """What Slurm shows of the jobs in its queue."""
        return self.cluster.call("scontrol", "show", "job", *self.live_jobs())

    def _config(self, config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "wait": str(self.go)} if config.get("wait") else config
