"""Random kills while four jobs run on a real Slurm cluster.

After each kill the run is requested again until it succeeds, as a person or the daemon's retry does. Then every result
must be right, no job may have been done twice to its end, and none may be left in the queue.
"""

import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dagster as dg
import psutil

from drive_assets_tests.campaign.requesters import SECONDS, Command, Requester, Service
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster
from drive_assets_tests.cluster.worker import begun, ended

KEYS = "abcd"
TRIES = 4
LIMIT_S = 300.0
QUEUE_S = 60.0


def kill_command(cluster: LocalCluster, requester: Requester) -> None:
    """Kill the process that requested the run and executes it."""
    assert isinstance(requester, Command)
    requester.process.kill()


def stop_command(cluster: LocalCluster, requester: Requester) -> None:
    """Stop it as a service is restarted: nobody terminates the run."""
    assert isinstance(requester, Command)
    requester.process.send_signal(signal.SIGTERM)


def kill_run_worker(cluster: LocalCluster, requester: Requester) -> None:
    """Kill the processes of the run; the daemon and its code server live."""
    for process in requester.processes():
        with contextlib.suppress(psutil.Error):
            if "--multiprocessing-fork" in process.cmdline():
                process.kill()


def kill_daemon(cluster: LocalCluster, requester: Requester) -> None:
    """Kill and restart the daemon; the run's process lives, or dies with the code server."""
    assert isinstance(requester, Service)
    requester.daemon.kill()
    requester.daemon.wait()
    time.sleep(2)
    requester.start_daemon()


def kill_dagster(cluster: LocalCluster, requester: Requester) -> None:
    """Kill the daemon, the code server and the run's processes together, as a loss of power does."""
    assert isinstance(requester, Service)
    for process in requester.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()
    requester.daemon.wait()
    requester.start_daemon()


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
    cluster.processes["n1"].kill()
    cluster.stop("n1")
    cluster.call("scontrol", "update", "nodename=n1", "state=down", "reason=campaign")
    time.sleep(2)
    cluster.start_n1()
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


Method = Callable[[LocalCluster, Requester], None]
METHODS: list[tuple[Method, type[Requester]]] = [
    (kill_run_worker, Service),
    (kill_command, Command),
    (kill_daemon, Service),
    (kill_job, Command),
    (kill_dagster, Service),
    (lose_node, Command),
    (stop_command, Command),
    (kill_controller, Command),
    (signal_jobs, Command),
]


@dataclass
class Trial:
    """One kill, and what was wrong after it."""

    number: int
    method: str
    moment_s: float
    """After the first job's beginning, or after the jobs' folder was created if `early`."""
    early: bool
    hit: bool = True
    """Whether the run was still active at that moment."""
    faults: list[str] = field(default_factory=list)


def campaign(
    folder: Path, number: int, seed: int, seconds: float, names: Sequence[str], tell: Callable[[str], None]
) -> list[Trial]:
    """At most `number` kills in at most `seconds` seconds; each appends a line to `cluster.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    started, trials = time.monotonic(), list[Trial]()
    methods = [(method, kind) for method, kind in METHODS if not names or method.__name__ in names]
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as temporary:
        os.environ.update({name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")})
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        for count in range(number):
            if time.monotonic() - started > seconds:
                tell(f"The time is over after {count} of {number} kills.")
                break
            root = Path(temporary) / str(count)
            trials.append(_attempt(cluster, root, count, seed, *methods[count % len(methods)]))
            _record(folder, root, trials[-1], tell)
    return trials


def _attempt(cluster: LocalCluster, root: Path, number: int, seed: int, method: Method, kind: type[Requester]) -> Trial:
    rng = random.Random(f"{seed} {number}")
    trial = Trial(number, method.__name__, rng.uniform(0, SECONDS + 2), rng.random() < 0.2)
    requester = kind(root)
    try:
        requester.request()
        while requester.outcome() is None and not ((root / "jobs").is_dir() if trial.early else begun(root / "a.txt")):
            time.sleep(0.1)
        time.sleep(trial.moment_s / 4 if trial.early else trial.moment_s)
        trial.hit = requester.outcome() is None
        method(cluster, requester)
        trial.faults += [*_until_it_succeeds(requester), *_faults(cluster, requester)]
    finally:
        requester.end()
    return trial


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
        active = [run.run_id for run in instance.get_runs() if not run.is_finished]
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


def _record(folder: Path, root: Path, trial: Trial, tell: Callable[[str], None]) -> None:
    with (folder / "cluster.jsonl").open("a") as stream:
        stream.write(json.dumps(asdict(trial)) + "\n")
    when = f"{trial.moment_s:.1f} s{' of submission' if trial.early else ''}{'' if trial.hit else ', after the end'}"
    tell(f"{trial.number:3} {trial.method} at {when}: {'; '.join(trial.faults) or 'as undisturbed'}")
    if trial.faults:
        tell((root / "runs.log").read_text()[-3000:])
