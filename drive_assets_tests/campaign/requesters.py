"""The process that requests the run of a trial: a command, or Dagster's daemon as a team runs it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil

from drive_assets_tests.cluster.graph import GIVEN, REQUEST, settings

SECONDS = 6.0
"""Duration of a job's work."""
RETRIED_S = 40.0
"""Time in which the daemon retries a lost run, if it does."""
_CONFIG = """\
telemetry: {enabled: false}
run_coordinator: {module: dagster, class: QueuedRunCoordinator, config: {dequeue_interval_seconds: 1}}
run_launcher: {module: drive_assets.running.run_launcher, class: WatchedRunLauncher}
run_monitoring: {enabled: true, poll_interval_seconds: 5}
run_retries: {enabled: true, max_retries: 0, retry_on_asset_or_op_failure: false}
"""


class Requester(ABC):
    """Requests runs over all partitions on its own instance in `root`/dagster."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dagster").mkdir(parents=True)
        (root / "dagster" / "dagster.yaml").write_text(_CONFIG)
        self.environment = {**os.environ, "DAGSTER_HOME": str(root / "dagster")}
        with self.instance():  # two processes that create its databases at the same time would damage them
            pass

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"])

    def has_succeeded(self) -> bool:
        """Whether any run has succeeded."""
        with self.instance() as instance:
            return bool(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])))

    @abstractmethod
    def request(self) -> None:
        """Request a run, for the first time or again."""

    @abstractmethod
    def outcome(self) -> bool | None:
        """Whether the run succeeded; None while it is active or will be retried."""

    @abstractmethod
    def end(self) -> None:
        """End the processes that are left."""

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.root / "runs.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def processes(self) -> Iterator[psutil.Process]:
        """Dagster's processes on this instance, without jobs of the cluster."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("DAGSTER_HOME") == self.environment["DAGSTER_HOME"]:
                    yield process


class Command(Requester):
    """A run in its own process, as `drive-assets run` is."""

    process: "subprocess.Popen[bytes]"

    def request(self) -> None:
        given = {"chosen": settings(self.root), "config": {"seconds": SECONDS}, "first": "a", "last": "d"}
        command = ["-W", "ignore", "-m", "drive_assets_tests.cluster.graph", json.dumps(given)]
        self.process = self.start(sys.executable, *command)

    def outcome(self) -> bool | None:
        if self.process.poll() is None:
            return None
        # A command that is killed after its run has succeeded is not repeated: that would do all work again.
        return self.process.returncode == 0 or self.has_succeeded()

    def end(self) -> None:
        self.process.kill()


class Service(Requester):
    """The daemon with its code server, which starts each run in its own process and retries lost runs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.environment[GIVEN] = json.dumps({"settings": settings(root), "config": {"seconds": SECONDS}})
        self.requests, self.over_since = 0, 0.0
        self.start_daemon()

    def start_daemon(self) -> None:
        program = str(Path(sys.executable).with_name("dagster-daemon"))
        self.daemon = self.start(program, "run", "-m", "drive_assets_tests.cluster.graph")

    def request(self) -> None:
        self.requests, self.over_since = self.requests + 1, 0.0
        (self.root / REQUEST).write_text(str(self.requests))

    def outcome(self) -> bool | None:
        if self.has_succeeded():
            return True
        with self.instance() as instance:
            runs = instance.get_runs()
        if not runs or not all(run.is_finished for run in runs):
            self.over_since = 0.0
            return None
        self.over_since = self.over_since or time.monotonic()
        return False if time.monotonic() > self.over_since + RETRIED_S else None

    def end(self) -> None:
        self.daemon.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.wait(30)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
