"""Jobs on a real Slurm cluster of two nodes, and what happens when Dagster, Slurm or the job itself dies."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from drive_assets.resources.cluster import slurm as slurm_module
from drive_assets.wire import Messages
from drive_assets_tests.cluster.graph import execute, settings
from drive_assets_tests.cluster.lab import Lab
from drive_assets_tests.cluster.slurm import LocalCluster, local_cluster
from drive_assets_tests.cluster.worker import begun
from drive_assets_tests.waiting import until


def restart_controller(cluster: LocalCluster) -> None:
    cluster.start_controller()
    until(lambda: "idle" in cluster.call("sinfo", "-h", "-o", "%t"), "the cluster is back")


def test_partitions_of_a_run_are_an_array_with_several_per_task(lab: Lab) -> None:
    assert lab.run("a", "d", {"size": {"per_task": 2}}).success, lab.log()
    assert lab.made() == dict.fromkeys("abcd", 1)
    array = lab.job_ids()[0].partition("_")[0]
    assert lab.job_ids() == [f"{array}_0", f"{array}_1"]
    processes = {key: (lab.root / f"{key}.begun").read_text() for key in "abcd"}
    assert processes["a"] == processes["c"] != processes["b"] == processes["d"]
    assert all(f"{key} begins" in lab.log() for key in "abcd")
    assert [(lab.root / f"{key}.txt").read_text() for key in "abcd"] == list("abcd")
    assert list((lab.root / "jobs").rglob("*.env")) == []  # they may hold secrets
    lab.run("a", "b")
    assert lab.made() == {"a": 2, "b": 2}  # a result is taken once: a new request does the work again


def test_a_partition_is_recorded_when_it_is_done_and_not_done_again_if_the_run_is_killed(lab: Lab) -> None:
    waiting = {"wait": True, "fault": "slow", "faulty": "a"}
    process = lab.start("c", **waiting)
    until(lambda: lab.made() == {"b": 1, "c": 1}, "the quick ones are recorded")
    assert process.poll() is None
    process.kill()
    process.wait()
    lab.go.touch()
    lab.run("a", "c", **waiting)
    assert lab.made() == {"a": 1, "b": 1, "c": 1}


def test_the_next_run_adopts_the_jobs_of_a_run_that_died(lab: Lab) -> None:
    lab.killed("b", wait=True)
    until(lambda: begun(lab.root / "b.txt"), "the other job begins")
    jobs = lab.live_jobs()
    lab.go.touch()
    assert lab.run("a", "b", wait=True).success
    assert lab.job_ids() == jobs
    assert lab.made() == {"a": 1, "b": 1}


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_result_that_came_while_no_run_was_there_is_taken_unless_its_file_was_rewritten(
    rewritten: bool, lab: Lab
) -> None:
    lab.killed(wait=True)
    lab.go.touch()
    until(lambda: not lab.live_jobs(), "the job ends")
    if rewritten:
        later = time.time() + 60
        os.utime(lab.root / "a.txt", (later, later))
    lab.run(wait=True)
    assert lab.made() == {"a": 2 if rewritten else 1}
    assert ("its result is taken" in lab.log()) == (not rewritten)


def test_a_complete_result_is_taken_while_slurm_is_away(lab: Lab) -> None:
    lab.killed(wait=True)
    lab.go.touch()
    until(lambda: not lab.live_jobs(), "the job ends")
    lab.cluster.stop("slurmctld")
    try:
        assert lab.run(changed={"patience_s": 0.0}, wait=True).success, lab.log()
    finally:
        restart_controller(lab.cluster)
    assert lab.made() == {"a": 1}


def test_a_submission_without_an_id_is_found_by_its_name(lab: Lab) -> None:
    lab.killed(wait=True)
    folder, submission = lab.submission()
    folder.write_submission(replace(submission, id=""))
    process = lab.start(wait=True)
    lab.go.touch()
    assert process.wait(150) == 0
    assert lab.job_ids() == [submission.id]
    assert lab.made() == {"a": 1}


@pytest.mark.parametrize("by_person", [True, False])
def test_only_a_person_who_terminates_the_run_ends_the_job(by_person: bool, lab: Lab) -> None:
    process = lab.start(wait=True)
    jobs = lab.live_jobs()
    if by_person:
        lab.instance.report_run_canceling(lab.instance.get_runs()[0])  # as the UI does before it signals
    process.send_signal(signal.SIGINT)
    assert process.wait(150) == 1
    if by_person:
        until(lambda: not lab.live_jobs(), "the job is cancelled")
        assert not (lab.root / "a.txt").exists()
    else:
        assert lab.live_jobs() == jobs


def test_a_job_saves_ends_and_resumes_at_the_signal_before_its_time_limit(lab: Lab) -> None:
    process = lab.start(wait=True)
    (job,) = lab.live_jobs()
    lab.cluster.call("scancel", "--signal=USR1", "--batch", job)
    until(lambda: "Restarts=1" in lab.job_details(), "Slurm requeues the job")
    process.kill()  # the job resumes whether or not a run waits for it
    process.wait()
    lab.go.touch()
    until(lambda: (lab.root / "a.txt").exists(), "the job resumes")
    lab.run(wait=True)
    assert lab.job_ids() == [job]
    assert lab.made() == {"a": 2}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("killed once", "most likely because it ran out of memory: it had requested 500M"),
        ("hungry", "ran out of memory: it had requested 500M. Raise `memory` for this task."),
        ("wrong", "b: row 3 is wrong"),
    ],
)
def test_a_job_that_fails_is_reported_with_the_end_of_its_log_and_the_others_are_not_repeated(
    fault: str, words: str, lab: Lab
) -> None:
    assert not lab.run("a", "b", fault=fault).success
    assert words in lab.log()
    assert fault == "wrong" or "b begins" in lab.log().rpartition("Its log: ")[2]
    assert lab.made() == {"a": 1}


def test_a_job_that_somebody_cancelled_is_not_done(lab: Lab) -> None:
    process = lab.start(wait=True)
    lab.cluster.call("scancel", *lab.live_jobs())
    assert process.wait(150) == 1
    assert "was cancelled, but not by this run" in lab.log()


def test_a_job_that_slurm_has_forgotten_without_a_result_is_lost(lab: Lab) -> None:
    lab.killed(wait=True)
    lab.cluster.call("scancel", *lab.live_jobs())
    folder, submission = lab.submission()
    folder.write_submission(replace(submission, id="999999"))  # as after MinJobAge
    until(lambda: not lab.live_jobs(), "the job is cancelled")
    lab.go.touch()
    lab.run(wait=True)
    lost = f"Job 999999, submitted by run {submission.run}, is unknown to Slurm and left no result"
    assert lost in lab.log()
    assert lab.made() == {"a": 2}


def test_a_controller_that_is_away_costs_only_time(lab: Lab) -> None:
    process = lab.start(wait=True)
    lab.cluster.stop("slurmctld")
    try:
        until(lambda: "gets no answer from Slurm" in lab.log(), "the run logs that Slurm is away")
        lab.go.touch()
        assert process.wait(150) == 0  # the job's own messages show that it is done
    finally:
        restart_controller(lab.cluster)
    assert lab.made() == {"a": 1}


def test_a_preempted_job_resumes(lab: Lab) -> None:
    def preempt() -> None:
        urgent = ["--partition=urgent", "--cpus-per-task=8", "--mem=100M", "--output=/dev/null", "--chdir=/"]
        for _ in range(2):  # one per node
            lab.cluster.call("sbatch", *urgent, "--wrap=sleep 1")
        until(lambda: begun(lab.root / "a.txt") == 2, "the job begins again")

    assert lab.run_while(preempt).success
    assert lab.made() == {"a": 2}


def test_the_job_of_a_lost_node_begins_elsewhere_but_not_beside_the_first(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's process on the lost node lives, as after the death of slurmd alone."""

    def lose() -> None:
        other.lose_node("test")
        until(lambda: "Restarts=1" in lab.job_details(), "Slurm requeues the job")
        log = next(lab.root.glob("jobs/echoes-*/*.log"))
        until(lambda: "Waiting for another process" in log.read_text(), "it waits for the first")

    with local_cluster() as other:  # of which the other tests could not use n1
        monkeypatch.setenv("SLURM_CONF", str(other.config))
        lab.cluster = other
        assert lab.run_while(lose).success, lab.log()
    assert lab.made() == {"a": 1}


def test_a_run_waits_for_a_partition_that_takes_no_jobs(lab: Lab) -> None:
    lab.cluster.call("scontrol", "update", "partitionname=main", "state=drain")
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(lab.run)
        try:
            until(lambda: lab.instance.get_runs() and "accepts no jobs at the moment" in lab.log(), "the run logs it")
        finally:
            lab.cluster.call("scontrol", "update", "partitionname=main", "state=up")
        assert result.result().success


def test_a_run_waits_for_a_result_that_it_sees_late(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, whose clients do not always ask the server."""
    read, ended = Messages.read, []

    def late(messages: Messages) -> list[dict[str, Any]]:
        if (lab.root / "a.txt").exists() and not lab.live_jobs():
            ended.append(time.monotonic())
        return read(messages) if ended and time.monotonic() > ended[0] + 3 else []

    monkeypatch.setattr(Messages, "read", late)
    assert lab.run(changed={"grace_s": 60.0}).success


def test_more_jobs_than_an_array_may_have_are_several_arrays(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_module, "MAX_ARRAY", 2)
    lab.run("a", "d")
    assert lab.made() == dict.fromkeys("abcd", 1)
    assert [job.partition("_")[2] for job in lab.job_ids()] == ["0", "1", "0", "1"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"size": {"partition": "nope"}}, "Slurm refused the job: invalid partition specified: nope"),
        ({"size": {"gres": "gpu:3"}}, "Requested node configuration is not available. Requested:"),
        ({"size": {"partition": "short"}}, "it can never start (PartitionTimeLimit)"),
        ({"python": "/no/python"}, "/no/python: No such file or directory"),
    ],
)
def test_settings_that_the_cluster_does_not_have(changed: dict[str, Any], words: str, lab: Lab) -> None:
    lab.run(changed=changed)
    assert words in lab.log()
    assert lab.made() == {}


def test_nodes_that_do_not_see_the_data_root(lab: Lab) -> None:
    hidden = lab.cluster.hidden
    execute(lab.instance, settings(hidden, size={"partition": "blind"}), {}, "a", "a")
    assert f"found no {hidden / 'jobs'} on " in lab.log()


def test_a_node_with_another_version_refuses_the_work(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_module, "version", lambda: "9.9+other")
    lab.run()
    assert "the Dagster side has 9.9+other: install the same version on both" in lab.log()
    assert begun(lab.root / "a.txt") == 0
