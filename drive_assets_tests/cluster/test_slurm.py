"""Jobs on a real Slurm cluster of two nodes, and what becomes of them when Dagster, Slurm or the job itself dies."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from drive_assets.resources.cluster import slurm as slurm_module
from drive_assets.resources.cluster.commands import SlurmCommands, SlurmUnavailable, State
from drive_assets.resources.cluster.job_folder import JobFolder, Messages
from drive_assets.resources.cluster.queue import Queue
from drive_assets.resources.cluster.settings import Size
from drive_assets_tests.cluster.graph import EchoCompute, execute, settings
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster, reason_against
from drive_assets_tests.cluster.worker import begun

pytestmark = pytest.mark.skipif(bool(reason_against()), reason=f"no Slurm cluster here: {reason_against()}")
LONG_S = 150


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as started:
        yield started


@pytest.fixture
def root(cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data root; jobs that a failed test left are ended."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    yield tmp_path
    cluster.call("scancel", "--user=root")


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as ours:
        yield ours


@pytest.fixture
def run(root: Path, instance: dg.DagsterInstance) -> Callable[..., dg.ExecuteInProcessResult]:
    """One run of the asset for partitions `first` to `last`."""

    def run(first: str = "a", last: str = "a", changed: Any = None, **config: Any) -> dg.ExecuteInProcessResult:
        return execute(instance, settings(root, **(changed or {})), config, first, last)

    return run


@pytest.fixture
def while_it_runs(run: Callable[..., dg.ExecuteInProcessResult], root: Path) -> Callable[..., Any]:
    """A run of partition a in which something is done once its job has begun."""

    def while_it_runs(act: Callable[[], None], **config: Any) -> dg.ExecuteInProcessResult:
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(run, wait=str(root / "go"), **config)
            try:
                until(lambda: begun(root / "a.txt"), "the job begins")
                act()
            finally:
                (root / "go").touch()
            return result.result()

    return while_it_runs


def until(condition: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < ends, f"not in time: {what}"
        time.sleep(0.05)


def bring_back(cluster: LocalCluster, node: str) -> None:
    """Resume a node whose slurmd was started again; until it has registered, that may not last."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        state = cluster.call("sinfo", "-h", "-n", node, "-o", "%t").split()[0]
        if state == "idle":
            return
        if state.startswith("down"):
            cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
        time.sleep(0.2)


def started(root: Path, instance: dg.DagsterInstance, *, last: str = "a", **config: Any) -> subprocess.Popen[bytes]:
    """A run in a process of its own, once its tags name its jobs, and the job of a has begun."""
    before = len(instance.get_runs())
    given = {"chosen": settings(root), "config": config, "first": "a", "last": last}
    command = [sys.executable, "-W", "ignore", "-m", "drive_assets_tests.cluster.graph", json.dumps(given)]
    process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))

    def waits() -> bool:
        assert process.poll() is None
        runs = instance.get_runs()
        return len(runs) > before and "drive_assets/jobs" in runs[0].tags and begun(root / "a.txt") > 0

    try:
        until(waits, "the run waits for its job")
    except BaseException:
        process.kill()
        raise
    return process


def made(instance: dg.DagsterInstance, run_id: str) -> dict[str, int]:
    """How often each job had been begun, by the materialised partition."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    events = [record.event_log_entry.dagster_event for record in records]
    return {
        str(event.partition): int(event.step_materialization_data.materialization.metadata["begun"].value)
        for event in events
        if event and event.partition
    }


def told(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    """All that the run's log says, failures included."""
    entries = instance.all_logs(result.run_id)
    failures = [
        str(event.step_failure_data.user_failure_data.description)
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    ]
    return "\n".join([entry.user_message for entry in entries] + failures)


def jobs_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.tags["drive_assets/jobs"].split(", ")


def folders(root: Path) -> list[JobFolder]:
    return [JobFolder(path) for path in (root / "jobs").glob("echoes-*")]


def live(cluster: LocalCluster) -> list[str]:
    return cluster.call("squeue", "--noheader", "--array", "--format=%i").split()


def test_partitions_of_a_run_are_an_array_with_several_a_task(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    result = run("a", "d", {"size": {"per_task": 2}})
    assert result.success, told(instance, result)
    assert made(instance, result.run_id) == dict.fromkeys("abcd", 1)
    jobs = jobs_of(instance, result.run_id)
    array = jobs[0].partition("_")[0]
    assert jobs == [f"{array}_0", f"{array}_1"]
    processes = {key: (root / f"{key}.begun").read_text() for key in "abcd"}
    assert processes["a"] == processes["c"] != processes["b"] == processes["d"]
    assert all(f"{key} begins" in told(instance, result) for key in "abcd")
    assert [(root / f"{key}.txt").read_text() for key in "abcd"] == list("abcd")
    assert list((root / "jobs").rglob("*.env")) == []  # they may hold secrets
    again = run("a", "b")
    assert made(instance, again.run_id) == {"a": 2, "b": 2}  # a result is taken once; who asks anew gets it anew


def test_each_partition_is_recorded_when_it_is_done_and_not_done_again_if_the_run_is_killed(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    waiting = {"wait": str(root / "go"), "fault": "slow", "faulty": "a"}
    process = started(root, instance, last="c", **waiting)
    (record,) = instance.get_runs()
    until(lambda: made(instance, record.run_id) == {"b": 1, "c": 1}, "the quick ones are recorded")
    assert process.poll() is None
    process.kill()
    process.wait()
    (root / "go").touch()
    result = run("a", "c", **waiting)
    assert made(instance, result.run_id) == {"a": 1, "b": 1, "c": 1}


def test_many_runs_ask_slurm_as_often_as_one(root: Path, cluster: LocalCluster) -> None:
    asked = []
    compute = EchoCompute(**{**settings(root), "echo": Size()})

    def ask() -> Mapping[str, State]:
        asked.append(time.time())
        return SlurmCommands().states(compute.name_prefix)

    (root / "jobs").mkdir()
    queues = [Queue(root / "jobs", ask) for _ in range(10)]
    assert [queue.states(60) for queue in queues] == [{}] * 10
    assert len(asked) == 1
    queues[0].invalidate()  # a job was submitted
    assert queues[1].states(60) == {}
    cluster.stop("slurmctld")
    try:
        queues[0].invalidate()
        for queue in queues:
            with pytest.raises(SlurmUnavailable, match="squeue gets no answer from Slurm"):
                queue.states(60)
    finally:
        cluster.start_controller()
        until(lambda: "idle" in cluster.call("sinfo", "-h", "-o", "%t"), "the cluster is back")
    assert len(asked) == 3


def test_a_run_that_died_leaves_its_job_and_the_next_takes_it_over(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult], cluster: LocalCluster
) -> None:
    process = started(root, instance, last="b", wait=str(root / "go"))
    process.kill()
    process.wait()
    until(lambda: begun(root / "b.txt"), "the other job begins")
    (job, other) = live(cluster)
    (root / "go").touch()
    result = run("a", "b", wait=str(root / "go"))
    assert result.success
    assert jobs_of(instance, result.run_id) == [job, other]
    assert made(instance, result.run_id) == {"a": 1, "b": 1}


def test_a_result_that_came_while_no_run_was_there_is_taken(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult], cluster: LocalCluster
) -> None:
    process = started(root, instance, wait=str(root / "go"))
    process.kill()
    process.wait()
    (root / "go").touch()
    until(lambda: not live(cluster), "the job ends")
    result = run(wait=str(root / "go"))
    assert made(instance, result.run_id) == {"a": 1}
    assert "its result is taken" in told(instance, result)


def test_a_result_whose_file_was_written_anew_since_is_not_taken(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult], cluster: LocalCluster
) -> None:
    process = started(root, instance, wait=str(root / "go"))
    process.kill()
    process.wait()
    (root / "go").touch()
    until(lambda: not live(cluster), "the job ends")
    later = time.time() + 60
    os.utime(root / "a.txt", (later, later))
    assert made(instance, run(wait=str(root / "go")).run_id) == {"a": 2}


def test_a_submission_whose_id_nobody_noted_is_found_by_its_name(root: Path, instance: dg.DagsterInstance) -> None:
    process = started(root, instance, wait=str(root / "go"))
    process.kill()
    process.wait()
    (folder,) = folders(root)
    submission = folder.submission()
    assert submission is not None
    folder.write_submission(replace(submission, id=""))
    process = started(root, instance, wait=str(root / "go"))
    (root / "go").touch()
    assert process.wait(LONG_S) == 0
    (record, _) = instance.get_runs()
    assert jobs_of(instance, record.run_id) == [submission.id]
    assert made(instance, record.run_id) == {"a": 1}


@pytest.mark.parametrize("by_person", [True, False])
def test_only_a_person_who_terminates_the_run_ends_the_job(
    by_person: bool, root: Path, instance: dg.DagsterInstance, cluster: LocalCluster
) -> None:
    process = started(root, instance, wait=str(root / "go"))
    (record,) = instance.get_runs()
    (job,) = live(cluster)
    if by_person:
        instance.report_run_canceling(record)  # as the UI does before it signals
    process.send_signal(signal.SIGINT)
    assert process.wait(LONG_S) == 1
    if by_person:
        until(lambda: not live(cluster), "the job is cancelled")
        assert not (root / "a.txt").exists()
    else:
        assert live(cluster) == [job]


def test_the_signal_ahead_of_the_time_limit_has_a_job_save_end_and_resume(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult], cluster: LocalCluster
) -> None:
    process = started(root, instance, wait=str(root / "go"))
    (job,) = live(cluster)
    cluster.call("scancel", "--signal=USR1", "--batch", job)
    until(lambda: "Restarts=1" in cluster.call("scontrol", "show", "job", job), "Slurm requeues the job")
    process.kill()  # the job resumes whether or not anybody waits
    process.wait()
    (root / "go").touch()
    until(lambda: (root / "a.txt").exists(), "the job resumes")
    result = run(wait=str(root / "go"))
    assert jobs_of(instance, result.run_id) == [job]
    assert made(instance, result.run_id) == {"a": 2}


def test_a_killed_job_is_told_with_its_memory_and_the_others_are_not_done_again(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    result = run("a", "b", fault="killed once")
    assert not result.success
    text = told(instance, result)
    assert (
        "was killed (signal 9) on n" in text
        and "most likely because it ran out of memory: it had requested 500M" in text
    )
    assert "b begins" in text.rpartition("Its log: ")[2]  # the end of the job's log
    assert made(instance, result.run_id) == {"a": 1}


def test_a_job_whose_input_is_wrong_fails_with_its_own_words(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    result = run("a", "b", fault="wrong")
    assert "b: row 3 is wrong" in told(instance, result)
    assert made(instance, result.run_id) == {"a": 1}


def test_a_job_that_was_cancelled_from_outside_is_not_done(
    root: Path, instance: dg.DagsterInstance, cluster: LocalCluster
) -> None:
    process = started(root, instance, wait=str(root / "go"))
    cluster.call("scancel", *live(cluster))
    assert process.wait(LONG_S) == 1
    (record,) = instance.get_runs()
    failures = instance.get_records_for_run(record.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    assert "was cancelled, but not by this run" in str(failures[0].event_log_entry.dagster_event)


def test_a_job_that_slurm_has_forgotten_without_a_result_is_lost(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult], cluster: LocalCluster
) -> None:
    process = started(root, instance, wait=str(root / "go"))
    process.kill()
    process.wait()
    cluster.call("scancel", *live(cluster))
    (folder,) = folders(root)
    submission = folder.submission()
    assert submission is not None
    folder.write_submission(replace(submission, id="999999"))  # as after MinJobAge
    until(lambda: not live(cluster), "the job is cancelled")
    (root / "go").touch()
    result = run(wait=str(root / "go"))
    assert f"Job 999999, submitted by run {submission.run}, is unknown to Slurm and left no result" in told(
        instance, result
    )
    assert made(instance, result.run_id) == {"a": 2}


def test_a_controller_that_is_away_costs_nothing_but_time(
    root: Path, instance: dg.DagsterInstance, cluster: LocalCluster
) -> None:
    process = started(root, instance, wait=str(root / "go"))
    (record,) = instance.get_runs()
    cluster.stop("slurmctld")
    try:
        until(
            lambda: any(
                "gets no answer from Slurm" in entry.user_message for entry in instance.all_logs(record.run_id)
            ),
            "the run says that Slurm is away",
        )
        (root / "go").touch()
        assert process.wait(LONG_S) == 0  # the job's own messages tell that it is done
    finally:
        cluster.start_controller()
        until(lambda: "idle" in cluster.call("sinfo", "-h", "-o", "%t"), "the cluster is back")
    assert made(instance, record.run_id) == {"a": 1}


def test_a_preempted_job_resumes(
    root: Path, instance: dg.DagsterInstance, cluster: LocalCluster, while_it_runs: Callable[..., Any]
) -> None:
    def preempt() -> None:
        urgent = ["--partition=urgent", "--cpus-per-task=8", "--mem=100M", "--output=/dev/null", "--chdir=/"]
        for _ in range(2):  # one a node
            cluster.call("sbatch", *urgent, "--wrap=sleep 1")
        until(lambda: begun(root / "a.txt") == 2, "the job begins again")

    result = while_it_runs(preempt)
    assert result.success
    assert made(instance, result.run_id) == {"a": 2}


def test_a_lost_node_has_its_job_begin_elsewhere_but_not_beside_the_first(
    root: Path, instance: dg.DagsterInstance, cluster: LocalCluster, while_it_runs: Callable[..., Any]
) -> None:
    """The job's process on the lost node lives, as after the death of slurmd alone."""

    def lose() -> None:
        cluster.processes["n1"].kill()
        cluster.stop("n1")
        cluster.call("scontrol", "update", "nodename=n1", "state=down", "reason=test")  # as after SlurmdTimeout
        until(lambda: "Restarts=1" in cluster.call("scontrol", "show", "job", *live(cluster)), "Slurm requeues the job")
        log = next(root.glob("jobs/echoes-*/*.log"))
        until(lambda: "Waiting for another process" in log.read_text(), "it waits for the first")

    try:
        result = while_it_runs(lose)
    finally:
        cluster.start_n1()
        bring_back(cluster, "n1")
    assert result.success, told(instance, result)
    assert made(instance, result.run_id) == {"a": 1}


def test_more_memory_than_asked_for_is_told_with_the_figure(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    text = told(instance, run(fault="hungry", faulty="a"))
    assert "out of memory: it had requested 500M. Raise `memory` for this task." in text
    found = re.search(r"Its last recorded peak was ([\d,]+) MiB", text)
    assert found is not None, text
    assert int(found[1].replace(",", "")) >= 350


def test_of_a_log_of_gigabytes_the_end_is_told(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    text = told(instance, run(fault="talkative", faulty="a"))
    assert "died on n" in text and "last words" in text
    assert next(root.glob("jobs/echoes-*/*.log")).stat().st_size > 3 * 2**30
    assert len(text) < 100_000


def test_a_partition_that_takes_no_jobs_is_waited_for(
    root: Path, instance: dg.DagsterInstance, run: Callable[..., dg.ExecuteInProcessResult], cluster: LocalCluster
) -> None:
    cluster.call("scontrol", "update", "partitionname=main", "state=drain")

    def told_of() -> bool:
        (record,) = instance.get_runs()
        return any("accepts no jobs at the moment" in entry.user_message for entry in instance.all_logs(record.run_id))

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run)
        try:
            until(lambda: instance.get_runs() and told_of(), "the run says so")
        finally:
            cluster.call("scontrol", "update", "partitionname=main", "state=up")
        assert result.result().success


def test_a_result_that_is_seen_late_is_waited_for(
    root: Path,
    instance: dg.DagsterInstance,
    run: Callable[..., dg.ExecuteInProcessResult],
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on NFS, whose clients ask the server for what is new only now and then."""
    read, ended = Messages.read, []

    def late(messages: Messages) -> list[dict[str, Any]]:
        if (root / "a.txt").exists() and not live(cluster):
            ended.append(time.monotonic())
        return read(messages) if ended and time.monotonic() > ended[0] + 3 else []

    monkeypatch.setattr(Messages, "read", late)
    assert run(changed={"grace_s": 60.0}).success


def test_more_jobs_than_an_array_may_have_are_several_arrays(
    root: Path,
    instance: dg.DagsterInstance,
    run: Callable[..., dg.ExecuteInProcessResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_module, "MAX_ARRAY", 2)
    result = run("a", "d")
    assert made(instance, result.run_id) == dict.fromkeys("abcd", 1)
    assert [job.partition("_")[2] for job in jobs_of(instance, result.run_id)] == ["0", "1", "0", "1"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"size": {"partition": "nope"}}, "Slurm refused the job: invalid partition specified: nope"),
        ({"size": {"gres": "gpu:3"}}, "Requested node configuration is not available. Requested:"),
        ({"size": {"partition": "short"}}, "it can never start (PartitionTimeLimit)"),
        ({"python": "/no/python"}, "/no/python: No such file or directory"),
    ],
)
def test_settings_that_the_cluster_does_not_have(
    changed: dict[str, Any],
    words: str,
    root: Path,
    instance: dg.DagsterInstance,
    run: Callable[..., dg.ExecuteInProcessResult],
) -> None:
    result = run(changed=changed)
    assert words in told(instance, result)
    assert made(instance, result.run_id) == {}


def test_an_account_that_does_not_exist(
    root: Path,
    instance: dg.DagsterInstance,
    run: Callable[..., dg.ExecuteInProcessResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slurm knows accounts by its database; without one, as here, it has none, and refuses each if it enforces them."""
    enforced = "accounting_storage/slurmdbd\nAccountingStoragePort=1\nAccountingStorageEnforce=associations"
    with local_cluster() as other:  # which is spoilt by that for the other tests
        monkeypatch.setenv("SLURM_CONF", str(other.config))
        other.stop("slurmctld")
        other.config.write_text(other.config.read_text().replace("accounting_storage/none", enforced))
        other.start_controller()
        until(lambda: "is UP" in other.call("scontrol", "ping"), "the controller is back")
        text = told(instance, run(changed={"account": "nope"}))
    assert "Slurm refused the job: Batch job submission failed: Invalid account or account/partition" in text
    assert "--account=nope" in text


def test_nodes_that_do_not_see_the_data_root(cluster: LocalCluster, root: Path, instance: dg.DagsterInstance) -> None:
    chosen = settings(cluster.hidden, size={"partition": "blind"})
    result = execute(instance, chosen, {}, "a", "a")
    assert f"found no {cluster.hidden / 'jobs'} on " in told(instance, result)


def test_a_node_with_another_version_refuses_the_work(
    root: Path,
    instance: dg.DagsterInstance,
    run: Callable[..., dg.ExecuteInProcessResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_module, "version", lambda: "9.9+other")
    assert "the Dagster side has 9.9+other: install the same version on both" in told(instance, run())
    assert begun(root / "a.txt") == 0
