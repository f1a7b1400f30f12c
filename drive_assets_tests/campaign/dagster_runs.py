"""Who asks for the run of a trial: a command, or Dagster's daemon as a team runs it."""

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
"""What a job's work takes."""
RETRIED_S = 40.0
"""In which the daemon retries a run that was lost, or nobody does."""
_CONFIG = """\
telemetry: {enabled: false}
run_coordinator:
  {module: dagster._core.run_coordinator, class: QueuedRunCoordinator, config: {dequeue_interval_seconds: 1}}
run_launcher: {module: drive_assets.running.run_launcher, class: WatchedRunLauncher}
run_monitoring: {enabled: true, poll_interval_seconds: 5}
run_retries: {enabled: true, max_retries: 0, retry_on_asset_or_op_failure: false}
"""


class Asked(ABC):
    """A run over all partitions that somebody asked for, on an instance of its own in `root`/dagster."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, 0
        (root / "dagster").mkdir(parents=True)
        (root / "dagster" / "dagster.yaml").write_text(_CONFIG)
        self.environment = {**os.environ, "DAGSTER_HOME": str(root / "dagster")}
        with self.instance():  # two processes that make its databases at once would spoil them
            pass

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"])

    def has_succeeded(self) -> bool:
        """Whether a run has."""
        with self.instance() as instance:
            return bool(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])))

    @abstractmethod
    def ask(self) -> None:
        """Ask, for the first time or anew."""

    @abstractmethod
    def outcome(self) -> bool | None:
        """Whether the run succeeded; None while it goes on, or will be retried."""

    @abstractmethod
    def end(self) -> None:
        """End what is left."""

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.root / "runs.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def processes(self) -> Iterator[psutil.Process]:
        """All of Dagster's that work on this instance; jobs of the cluster are none."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("DAGSTER_HOME") == self.environment["DAGSTER_HOME"]:
                    yield process


class Command(Asked):
    """A run in a process of its own, as `drive-assets run` is."""

    process: "subprocess.Popen[bytes]"

    def ask(self) -> None:
        given = {"chosen": settings(self.root), "config": {"seconds": SECONDS}, "first": "a", "last": "d"}
        command = ["-W", "ignore", "-m", "drive_assets_tests.cluster.graph", json.dumps(given)]
        self.process = self.start(sys.executable, *command)

    def outcome(self) -> bool | None:
        if self.process.poll() is None:
            return None
        # A command that is killed when its run has succeeded need not be given again: that would make all anew.
        return self.process.returncode == 0 or self.has_succeeded()

    def end(self) -> None:
        self.process.kill()


class Service(Asked):
    """The daemon with its code server, which starts each run in a process of its own and retries those that it lost."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.environment[GIVEN] = json.dumps({"settings": settings(root), "config": {"seconds": SECONDS}})
        self.over_since: float | None = None
        self.start_daemon()

    def start_daemon(self) -> None:
        program = str(Path(sys.executable).with_name("dagster-daemon"))
        self.daemon = self.start(program, "run", "-m", "drive_assets_tests.cluster.graph")

    def ask(self) -> None:
        self.asked, self.over_since = self.asked + 1, None
        (self.root / REQUEST).write_text(str(self.asked))

    def outcome(self) -> bool | None:
        if self.has_succeeded():
            return True
        with self.instance() as instance:
            runs = instance.get_runs()
        if not runs or not all(run.is_finished for run in runs):
            self.over_since = None
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
