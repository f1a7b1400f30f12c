"""Random kills while four jobs run on a real Slurm cluster.

After each kill the run is requested again until it succeeds, as a person or the daemon's retry does. Then every result
must be right, no job may have been done twice to its end, and none may be left in the queue.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import dagster as dg
import psutil

from drive_assets_tests.campaign.trial import Trial
from drive_assets_tests.cluster.graph import GIVEN, REQUEST, settings
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster
from drive_assets_tests.cluster.worker import begun, ended

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
KEYS = "abcd"
TRIES = 4
LIMIT_S = 300.0
QUEUE_S = 60.0


class Command:
    """A run over all partitions in its own process, as `drive-assets run` is, on its own instance in `root`/dagster."""

    process: subprocess.Popen[bytes]

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dagster").mkdir(parents=True)
        (root / "dagster" / "dagster.yaml").write_text(_CONFIG)
        self.environment = {**os.environ, "DAGSTER_HOME": str(root / "dagster")}
        with self.instance():  # two processes that create its databases at the same time would damage them
            pass

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"])

    def runs(self) -> Sequence[dg.DagsterRun]:
        with self.instance() as instance:
            return instance.get_runs()

    def request(self) -> None:
        """Request a run, for the first time or again."""
        given = {"chosen": settings(self.root), "config": {"seconds": SECONDS}, "first": "a", "last": "d"}
        self.start(sys.executable, "-W", "ignore", "-m", "drive_assets_tests.cluster.graph", json.dumps(given))

    def outcome(self) -> bool | None:
        """Whether the run succeeded; None while it is active or will be retried."""
        if self.process.poll() is None:
            return None
        # A command that is killed after its run has succeeded is not repeated: that would do all work again.
        return self.process.returncode == 0 or any(run.is_success for run in self.runs())

    def start(self, *command: str) -> None:
        with (self.root / "runs.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def processes(self) -> Iterator[psutil.Process]:
        """Dagster's processes on this instance, without jobs of the cluster."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("DAGSTER_HOME") == self.environment["DAGSTER_HOME"]:
                    yield process

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


class Service(Command):
    """The daemon with its code server, which starts each run in its own process and retries lost runs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.environment[GIVEN] = json.dumps({"settings": settings(root), "config": {"seconds": SECONDS}})
        self.requests, self.over_since = 0, 0.0
        self.start_daemon()

    def start_daemon(self) -> None:
        self.start(
            str(Path(sys.executable).with_name("dagster-daemon")), "run", "-m", "drive_assets_tests.cluster.graph"
        )

    def request(self) -> None:
        self.requests, self.over_since = self.requests + 1, 0.0
        (self.root / REQUEST).write_text(str(self.requests))

    def outcome(self) -> bool | None:
        runs = self.runs()
        if any(run.is_success for run in runs):
            return True
        if not runs or not all(run.is_finished for run in runs):
            self.over_since = 0.0
            return None
        self.over_since = self.over_since or time.monotonic()
        return False if time.monotonic() > self.over_since + RETRIED_S else None


def _kill(processes: Iterator[psutil.Process], part: str = "") -> None:
    """Kill the processes with this part in their command line."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if part in " ".join(process.cmdline()):
                process.kill()


def kill_run_worker(cluster: LocalCluster, requester: Service) -> None:
    """Kill the processes of the run; the daemon and its code server live."""
    _kill(requester.processes(), "--multiprocessing-fork")


def kill_daemon(cluster: LocalCluster, requester: Service) -> None:
    """Kill and restart the daemon; the run's process lives, or dies with the code server."""
    requester.process.kill()
    requester.process.wait()
    time.sleep(2)
    requester.start_daemon()


def kill_dagster(cluster: LocalCluster, requester: Service) -> None:
    """Kill the daemon, the code server and the run's processes together, as a loss of power does."""
    _kill(requester.processes())
    requester.process.wait()
    requester.start_daemon()


def kill_job(cluster: LocalCluster, requester: Command) -> None:
    """Kill the worker of one job."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("SLURM_CONF") == str(cluster.config)
            if ours and "drive_assets_tests.cluster.worker" in process.cmdline():
                process.kill()
                return


def lose_node(cluster: LocalCluster, requester: Command) -> None:
    """Kill slurmd, let Slurm notice, and bring it back."""
    cluster.processes["n1"].kill()
    cluster.stop("n1")
    cluster.call("scontrol", "update", "nodename=n1", "state=down", "reason=campaign")
    time.sleep(2)
    cluster.run("n1", "slurmd", "-D", "-N", "n1")
    cluster.call("scontrol", "update", "nodename=n1", "state=resume")


def kill_controller(cluster: LocalCluster, requester: Command) -> None:
    cluster.processes["slurmctld"].kill()
    cluster.stop("slurmctld")
    time.sleep(2)
    cluster.start_controller()


def signal_jobs(cluster: LocalCluster, requester: Command) -> None:
    """Signal all jobs as before their time limit."""
    for job in cluster.call("squeue", "--noheader", "--array", "--format=%i").split():
        cluster.call("scancel", "--signal=USR1", "--batch", job)


METHODS: dict[str, tuple[Callable[..., None], type[Command]]] = {
    "kill the run's worker": (kill_run_worker, Service),
    "kill the command": (lambda cluster, requester: requester.process.kill(), Command),
    "kill the daemon": (kill_daemon, Service),
    "kill a job": (kill_job, Command),
    "kill Dagster": (kill_dagster, Service),
    "lose a node": (lose_node, Command),
    "terminate the command": (lambda cluster, requester: requester.process.terminate(), Command),
    "kill the controller": (kill_controller, Command),
    "signal the jobs": (signal_jobs, Command),
}
"""A command is terminated as when a service is restarted: nobody terminates its run."""


def trials(folder: Path, seed: int, names: Sequence[str]) -> Generator[Trial]:
    """One kill after the other, each by the next method."""
    chosen = [name for name in METHODS if not names or name in names]
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as temporary:
        os.environ.update({name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")})
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        for count in itertools.count():
            name, root = chosen[count % len(chosen)], Path(temporary) / str(count)
            method, requester_type = METHODS[name]
            requester = requester_type(root)
            trial, started = Trial(count, name), time.monotonic()
            try:
                _attempt(cluster, requester, method, random.Random(f"{seed} {count}"), trial)
            finally:
                requester.end()
            trial.seconds, trial.output = time.monotonic() - started, (root / "runs.log").read_text()[-3000:]
            yield trial


def _attempt(
    cluster: LocalCluster, requester: Command, method: Callable[..., None], rng: random.Random, trial: Trial
) -> None:
    """Kill some time after the first job's beginning, or (early) after the jobs' folder was created."""
    root, moment, is_early = requester.root, rng.uniform(0, SECONDS + 2), rng.random() < 0.2
    trial.what += f" {moment:.1f} s after the first job began" if not is_early else " while jobs are submitted"
    requester.request()
    while requester.outcome() is None and not ((root / "jobs").is_dir() if is_early else begun(root / "a.txt")):
        time.sleep(0.1)
    time.sleep(moment / 4 if is_early else moment)
    trial.hit = requester.outcome() is None
    method(cluster, requester)
    trial.faults += [*_until_it_succeeds(requester), *_faults(cluster, requester)]


def _until_it_succeeds(requester: Command) -> Iterator[str]:
    """Request the run again if nobody retries it, as a person does; yields a fault if that does not help."""
    for _ in range(TRIES):
        deadline = time.monotonic() + LIMIT_S
        while (outcome := requester.outcome()) is None:
            if time.monotonic() > deadline:
                yield "the run is stuck"
                return
            time.sleep(0.5)
        if outcome:
            return
        requester.request()
    yield f"no success in {TRIES} runs"


def _faults(cluster: LocalCluster, requester: Command) -> Iterator[str]:
    for key in KEYS:
        path = requester.root / f"{key}.txt"
        if not path.is_file() or path.read_text() != key:
            yield f"{key} has no right result"
        if ended(path) != 1:
            yield f"{key} was done {ended(path)} times to its end"
    with requester.instance() as instance:
        materialized = instance.get_materialized_partitions(dg.AssetKey("echoes"))
    active = [run.run_id for run in requester.runs() if not run.is_finished]
    if isinstance(requester, Service) and active:
        yield f"runs {active} are still active"
    if materialized != set(KEYS):
        yield f"only {sorted(materialized)} are recorded"
    deadline = time.monotonic() + QUEUE_S
    while left := cluster.call("squeue", "--noheader", "--array", "--format=%i %T").splitlines():
        if time.monotonic() > deadline:
            yield f"left in the queue: {left}"
            return
        time.sleep(0.5)
