"""Random kills while four jobs run on a real Slurm cluster: `python -m drive_assets_tests.campaign.cluster`.

After each, the run is asked for again until it succeeds, as a person or the daemon's retry does. Then every result must
be there and right, no job may have been done twice to its end, and none may be left in the queue.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil

from drive_assets_tests.cluster.graph import settings
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster
from drive_assets_tests.cluster.worker import begun, ended

KEYS = "abcd"
SECONDS = 6.0
"""What a job's work takes."""
TRIES = 4
LIMIT_S = 300.0


def run(root: Path) -> "subprocess.Popen[bytes]":
    given = {"chosen": settings(root), "config": {"seconds": SECONDS}, "first": "a", "last": "d"}
    command = [sys.executable, "-W", "ignore", "-m", "drive_assets_tests.cluster.graph", json.dumps(given)]
    log = (root / "runs.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def kill_run(cluster: LocalCluster, started: "subprocess.Popen[bytes]") -> None:
    started.kill()


def stop_run(cluster: LocalCluster, started: "subprocess.Popen[bytes]") -> None:
    """As a service that is restarted: nobody terminates the run."""
    started.send_signal(signal.SIGTERM)


def kill_dagster(cluster: LocalCluster, started: "subprocess.Popen[bytes]") -> None:
    """All processes of the run's session at once, as when its machine loses power."""
    os.killpg(started.pid, signal.SIGKILL)


def kill_worker(cluster: LocalCluster, started: "subprocess.Popen[bytes]") -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("SLURM_CONF") == str(cluster.config)
            if ours and "drive_assets_tests.cluster.worker" in process.cmdline():
                process.kill()
                return


def lose_node(cluster: LocalCluster, started: "subprocess.Popen[bytes]") -> None:
    """slurmd dies, Slurm notices, and it comes back."""
    cluster.processes["n1"].kill()
    cluster.stop("n1")
    cluster.call("scontrol", "update", "nodename=n1", "state=down", "reason=campaign")
    time.sleep(2)
    cluster.start_n1()
    cluster.call("scontrol", "update", "nodename=n1", "state=resume")


def kill_controller(cluster: LocalCluster, started: "subprocess.Popen[bytes]") -> None:
    cluster.processes["slurmctld"].kill()
    cluster.stop("slurmctld")
    time.sleep(2)
    cluster.start_controller()


def signal_jobs(cluster: LocalCluster, started: "subprocess.Popen[bytes]") -> None:
    """As ahead of the time limit."""
    for job in cluster.call("squeue", "--noheader", "--array", "--format=%i").split():
        cluster.call("scancel", "--signal=USR1", "--batch", job)


METHODS: list[Callable[[LocalCluster, "subprocess.Popen[bytes]"], None]] = [
    kill_run, stop_run, kill_dagster, kill_worker, lose_node, kill_controller, signal_jobs,
]  # fmt: skip


def trial(cluster: LocalCluster, root: Path, number: int, seed: int) -> tuple[str, list[str]]:
    """One kill; its kind with its moment, and what was wrong after it."""
    rng = random.Random(f"{seed} {number}")
    method, moment = METHODS[number % len(METHODS)], rng.uniform(0, SECONDS + 2)
    started = run(root)
    # The moment counts from the first job's beginning; some kills come while jobs are submitted.
    early = rng.random() < 0.2
    while started.poll() is None and not ((root / "jobs").is_dir() if early else begun(root / "a.txt")):
        time.sleep(0.05)
    time.sleep(moment if not early else moment / 4)
    hit = started.poll() is None
    method(cluster, started)
    name = f"{method.__name__} at {moment:.1f} s{' of submission' if early else ''}{'' if hit else ', after the end'}"
    faults = []
    for _ in range(TRIES):
        try:
            status = started.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            started.kill()
            faults.append("the run is stuck")
            break
        if status == 0:
            break
        started = run(root)
    else:
        faults.append(f"no success in {TRIES} runs")
    return name, faults + wrong(cluster, root)


def wrong(cluster: LocalCluster, root: Path) -> list[str]:
    faults = []
    for key in KEYS:
        path = root / f"{key}.txt"
        if not path.is_file() or path.read_text() != key:
            faults.append(f"{key} has no right result")
        if ended(path) != 1:
            faults.append(f"{key} was done {ended(path)} times to its end")
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
        made = instance.get_materialized_partitions(dg.AssetKey("echoes"))
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no other one after this time")
    options = parser.parse_args()
    began, bad, done = time.monotonic(), 0, Counter[str]()
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        os.environ.update({name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")})
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        for number in range(options.number):
            if time.monotonic() - began > options.seconds:
                break
            root = Path(folder) / str(number)
            home = root / "dagster"
            home.mkdir(parents=True)
            (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
            os.environ["DAGSTER_HOME"] = str(home)
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
