"""Random kills while four jobs run on a real Slurm cluster.

After each kill the run is requested again until it succeeds, as a person or the daemon's retry does. Then every result
must be right, no job may have been done twice to its end, and none may be left in the queue.
"""

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import dagster as dg
import psutil

from drive_assets_tests.campaign.trial import Trial
from drive_assets_tests.cluster import graph
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


class Requester:
    """Requests runs over all partitions, on its own instance in `root`/dagster."""

    process: subprocess.Popen[bytes]

    def __init__(self, root: Path, has_daemon: bool) -> None:
        """With `has_daemon`, its sensor requests runs, and it retries lost ones; else a command is the run."""
        self.root, self.has_daemon, self.requests, self.over_since = root, has_daemon, 0, 0.0
        home, chosen, config = root / "dagster", graph.settings(root), {"seconds": SECONDS}
        self.given = json.dumps({"chosen": chosen, "config": config, "first": "a", "last": "d"})
        self.environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            graph.GIVEN: json.dumps({"settings": chosen, "config": config}),
        }
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text(_CONFIG)
        self.runs()  # two processes that create the instance's databases at the same time would damage them
        if has_daemon:
            self.start()

    def start(self) -> None:
        """Start the daemon, or the run."""
        command = [sys.executable, "-W", "ignore", "-m", graph.__name__, self.given]
        if self.has_daemon:
            command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-m", graph.__name__]
        with (self.root / "runs.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def request(self) -> None:
        """Request a run, for the first time or again."""
        self.requests, self.over_since = self.requests + 1, 0.0
        if self.has_daemon:
            (self.root / graph.REQUEST).write_text(str(self.requests))
        else:
            self.start()

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"])

    def runs(self) -> Sequence[dg.DagsterRun]:
        with self.instance() as instance:
            return instance.get_runs()

    def outcome(self) -> bool | None:
        """Whether a run succeeded; None while one is active or will be retried."""
        runs = self.runs()
        if not self.has_daemon:
            # A command that is killed after its run has succeeded is not repeated: that would do all work again.
            return None if self.process.poll() is None else any(run.is_success for run in runs)
        if any(run.is_success for run in runs):
            return True
        if not runs or not all(run.is_finished for run in runs):
            self.over_since = 0.0
            return None
        self.over_since = self.over_since or time.monotonic()
        return False if time.monotonic() > self.over_since + RETRIED_S else None

    def kill(self, part: str = "") -> None:
        """Kill Dagster's processes with this part in their command line; jobs of the cluster are none."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_ours = process.environ().get("DAGSTER_HOME") == self.environment["DAGSTER_HOME"]
                if is_ours and part in " ".join(process.cmdline()):
                    process.kill()

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.kill()


def kill_daemon(cluster: LocalCluster, requester: Requester) -> None:
    """Kill and restart the daemon; the run's process lives, or dies with the code server."""
    requester.process.kill()
    requester.process.wait()
    time.sleep(2)
    requester.start()


def kill_dagster(cluster: LocalCluster, requester: Requester) -> None:
    """Kill the daemon, the code server and the run's processes together, as a loss of power does."""
    requester.kill()
    requester.process.wait()
    requester.start()


def kill_job(cluster: LocalCluster, requester: Requester) -> None:
    """Kill the worker of one job."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("SLURM_CONF") == str(cluster.config)
            if ours and "drive_assets_tests.cluster.worker" in process.cmdline():
                process.kill()
                return


def lose_node(cluster: LocalCluster, requester: Requester) -> None:
    """Kill slurmd, let Slurm notice, and bring it back."""
    cluster.lose_node("campaign")
    time.sleep(2)
    cluster.run("n1", "slurmd", "-D", "-N", "n1")
    cluster.call("scontrol", "update", "nodename=n1", "state=resume")


def kill_controller(cluster: LocalCluster, requester: Requester) -> None:
    cluster.processes["slurmctld"].kill()
    cluster.stop("slurmctld")
    time.sleep(2)
    cluster.start_controller()


def signal_jobs(cluster: LocalCluster, requester: Requester) -> None:
    """Signal all jobs as before their time limit."""
    for job in cluster.call("squeue", "--noheader", "--array", "--format=%i").split():
        cluster.call("scancel", "--signal=USR1", "--batch", job)


METHODS: dict[str, tuple[Callable[[LocalCluster, Requester], None], bool]] = {
    "kill the run's worker": (lambda cluster, requester: requester.kill("--multiprocessing-fork"), True),
    "kill the command": (lambda cluster, requester: requester.process.kill(), False),
    "kill the daemon": (kill_daemon, True),
    "kill a job": (kill_job, False),
    "kill Dagster": (kill_dagster, True),
    "lose a node": (lose_node, False),
    "terminate the command": (lambda cluster, requester: requester.process.terminate(), False),
    "kill the controller": (kill_controller, False),
    "signal the jobs": (signal_jobs, False),
}
"""With whether a daemon runs. A command is terminated as when a service is restarted: nobody terminates its run."""


def trials(folder: Path, seed: int, names: Sequence[str]) -> Generator[Trial]:
    """One kill after the other, each by the next method."""
    chosen = [name for name in METHODS if not names or name in names]
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as temporary:
        os.environ.update({name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")})
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        for count in itertools.count():
            name, root = chosen[count % len(chosen)], Path(temporary) / str(count)
            method, has_daemon = METHODS[name]
            requester, trial, started = Requester(root, has_daemon), Trial(count, name), time.monotonic()
            try:
                _attempt(cluster, requester, method, random.Random(f"{seed} {count}"), trial)
            finally:
                requester.end()
            trial.seconds, trial.output = time.monotonic() - started, (root / "runs.log").read_text()[-3000:]
            yield trial


def _attempt(
    cluster: LocalCluster, requester: Requester, method: Callable[..., None], rng: random.Random, trial: Trial
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


def _until_it_succeeds(requester: Requester) -> Iterator[str]:
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


def _faults(cluster: LocalCluster, requester: Requester) -> Iterator[str]:
    for key in KEYS:
        path = requester.root / f"{key}.txt"
        if not path.is_file() or path.read_text() != key:
            yield f"{key} has no right result"
        if ended(path) != 1:
            yield f"{key} was done {ended(path)} times to its end"
    with requester.instance() as instance:
        materialized = instance.get_materialized_partitions(dg.AssetKey("echoes"))
    active = [run.run_id for run in requester.runs() if not run.is_finished]
    if requester.has_daemon and active:
        yield f"runs {active} are still active"
    if materialized != set(KEYS):
        yield f"only {sorted(materialized)} are recorded"
    deadline = time.monotonic() + QUEUE_S
    while left := cluster.call("squeue", "--noheader", "--array", "--format=%i %T").splitlines():
        if time.monotonic() > deadline:
            yield f"left in the queue: {left}"
            return
        time.sleep(0.5)
