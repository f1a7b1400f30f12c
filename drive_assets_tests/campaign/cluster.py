"""Random kills while four jobs run on a real Slurm cluster: `python -m drive_assets_tests.campaign.cluster`.

After each, the run is asked for again until it succeeds, as a person or the daemon's retry does. Then every result must
be there and right, no job may have been done twice to its end, and none may be left in the queue.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil

from drive_assets_tests.campaign.dagster_runs import SECONDS, Asked, Command, Service
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster
from drive_assets_tests.cluster.worker import begun, ended

KEYS = "abcd"
TRIES = 4
LIMIT_S = 300.0


def kill_command(cluster: LocalCluster, asked: Asked) -> None:
    """The process that asked for the run and does it."""
    assert isinstance(asked, Command)
    asked.process.kill()


def stop_command(cluster: LocalCluster, asked: Asked) -> None:
    """As a service that is restarted: nobody terminates the run."""
    assert isinstance(asked, Command)
    asked.process.send_signal(signal.SIGTERM)


def kill_run_worker(cluster: LocalCluster, asked: Asked) -> None:
    """The processes of the run, beside a daemon and its code server that live."""
    for process in asked.processes():
        with contextlib.suppress(psutil.Error):
            if "--multiprocessing-fork" in process.cmdline():
                process.kill()


def kill_daemon(cluster: LocalCluster, asked: Asked) -> None:
    """The daemon alone, which is started again; the run's process lives, or dies with the code server."""
    assert isinstance(asked, Service)
    asked.daemon.kill()
    asked.daemon.wait()
    time.sleep(2)
    asked.start_daemon()


def kill_dagster(cluster: LocalCluster, asked: Asked) -> None:
    """The daemon, the code server and the run's processes at once, as when their machine loses power."""
    assert isinstance(asked, Service)
    for process in asked.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()
    asked.daemon.wait()
    asked.start_daemon()


def kill_job(cluster: LocalCluster, asked: Asked) -> None:
    """The worker of one job."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("SLURM_CONF") == str(cluster.config)
            if ours and "drive_assets_tests.cluster.worker" in process.cmdline():
                process.kill()
                return


def lose_node(cluster: LocalCluster, asked: Asked) -> None:
    """slurmd dies, Slurm notices, and it comes back."""
    cluster.processes["n1"].kill()
    cluster.stop("n1")
    cluster.call("scontrol", "update", "nodename=n1", "state=down", "reason=campaign")
    time.sleep(2)
    cluster.start_n1()
    cluster.call("scontrol", "update", "nodename=n1", "state=resume")


def kill_controller(cluster: LocalCluster, asked: Asked) -> None:
    cluster.processes["slurmctld"].kill()
    cluster.stop("slurmctld")
    time.sleep(2)
    cluster.start_controller()


def signal_jobs(cluster: LocalCluster, asked: Asked) -> None:
    """As ahead of the time limit."""
    for job in cluster.call("squeue", "--noheader", "--array", "--format=%i").split():
        cluster.call("scancel", "--signal=USR1", "--batch", job)


Method = Callable[[LocalCluster, Asked], None]
METHODS: list[tuple[Method, type[Asked]]] = [
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


def trial(cluster: LocalCluster, root: Path, number: int, seed: int) -> tuple[str, list[str]]:
    """One kill; its kind with its moment, and what was wrong after it."""
    rng = random.Random(f"{seed} {number}")
    (method, kind), moment = METHODS[number % len(METHODS)], rng.uniform(0, SECONDS + 2)
    # The moment counts from the first job's beginning; some kills come while jobs are submitted.
    early = rng.random() < 0.2
    asked = kind(root)
    try:
        asked.ask()
        while asked.outcome() is None and not ((root / "jobs").is_dir() if early else begun(root / "a.txt")):
            time.sleep(0.1)
        time.sleep(moment if not early else moment / 4)
        hit = asked.outcome() is None
        method(cluster, asked)
        name = (
            f"{method.__name__} at {moment:.1f} s{' of submission' if early else ''}{'' if hit else ', after the end'}"
        )
        return name, [*until_it_succeeds(asked), *wrong(cluster, asked)]
    finally:
        asked.end()


def until_it_succeeds(asked: Asked) -> Iterator[str]:
    """Ask again where nobody retries, as a person does; what is wrong if that does not help."""
    for _ in range(TRIES):
        ends = time.monotonic() + LIMIT_S
        while (outcome := asked.outcome()) is None:
            if time.monotonic() > ends:
                yield "the run is stuck"
                return
            time.sleep(0.5)
        if outcome:
            return
        asked.ask()
    yield f"no success in {TRIES} runs"


def wrong(cluster: LocalCluster, asked: Asked) -> list[str]:
    faults, root = [], asked.root
    for key in KEYS:
        path = root / f"{key}.txt"
        if not path.is_file() or path.read_text() != key:
            faults.append(f"{key} has no right result")
        if ended(path) != 1:
            faults.append(f"{key} was done {ended(path)} times to its end")
    with asked.instance() as instance:
        made = instance.get_materialized_partitions(dg.AssetKey("echoes"))
        goes_on = [run.run_id for run in instance.get_runs() if not run.is_finished]
    if isinstance(asked, Service) and goes_on:
        faults.append(f"runs {goes_on} seem to go on")
    if made != set(KEYS):
        faults.append(f"recorded are only {sorted(made)}")
    ends = time.monotonic() + 60
    while left := cluster.call("squeue", "--noheader", "--array", "--format=%i %T").splitlines():
        if time.monotonic() > ends:
            return [*faults, f"left in the queue: {left}"]
        time.sleep(0.5)
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    parser.add_argument("--number", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill, for a campaign in pieces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no other one after this time")
    options = parser.parse_args()
    began, bad, done = time.monotonic(), 0, Counter[str]()
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        os.environ.update({name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")})
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        for number in range(options.first, options.first + options.number):
            if time.monotonic() - began > options.seconds:
                break
            root = Path(folder) / str(number)
            name, faults = trial(cluster, root, number, options.seed)
            done[name.split()[0]] += 1
            bad += bool(faults)
            print(f"{number:3} {name}: {'; '.join(faults) or 'as undisturbed'}", flush=True)
            if faults:
                print((root / "runs.log").read_text()[-3000:], flush=True)
    print(f"{sum(done.values())} kills ({dict(done)}), {bad} with faults, in {time.monotonic() - began:.0f} s")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
