"""The folder of a cluster job, without a cluster."""

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

from dagster_pipes import decode_param

from drive_assets.resources.cluster import script
from drive_assets.resources.cluster.job_folder import JobFolder, Submission
from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.resources.compute import COMMAND
from drive_assets.tasks import RESUME_STATUS
from drive_assets.wire import Messages, Report, Work, hand_over, reports_of, to_wire
from drive_assets_tests.waiting import until
from model.common.files import locked


def line(report: Report) -> str:
    return json.dumps({"method": "report_custom_message", "params": {"payload": to_wire(report)}}) + "\n"


def test_a_message_counts_once_its_line_is_complete_and_a_line_cut_by_a_kill_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    messages = Messages(path)
    assert messages.read() == []
    path.write_text('{"method": "opened"}\n{"method": "lo')
    assert messages.read() == [{"method": "opened"}]
    assert messages.read() == []
    with path.open("a") as stream:
        stream.write('\n{"method": "closed"}\n')  # the next attempt ends the line before it writes its own
    assert messages.read() == [{"method": "closed"}]
    assert Messages(path).read() == [{"method": "opened"}, {"method": "closed"}]


def test_a_worker_gets_its_work_the_finished_jobs_and_its_secrets(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "checkpoint-1")
    first, second = Submission("n1", 0, "run1", "7_0"), Submission("n2", 3, "run2")
    assert folder.submission() is None
    folder.prepare(first, Work("train", [1, 2]), {}, [])
    with folder.messages("n1").open("a") as stream:
        stream.write(line(Report(0, value="done")) + line(Report(1, "row 3 is wrong")))
    folder.log("n1").write_text("begins\n")
    assert folder.reports() == {0: Report(0, value="done"), 1: Report(1, "row 3 is wrong")}

    folder.prepare(second, Work("train", [1, 2]), {"URI": "it's; $secret"}, [folder.reports()[0]])
    assert folder.submission() == second
    assert folder.reports() == {0: Report(0, value="done")}
    path = folder.environment("n2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    command = ["bash", "-c", f'. {path}; echo "$URI"; echo $DAGSTER_PIPES_CONTEXT; echo $DAGSTER_PIPES_MESSAGES']
    secret, context, messages = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert secret == "it's; $secret"
    assert decode_param(messages) == {"path": str(folder.messages("n2"))}
    given = json.loads(Path(decode_param(context)["path"]).read_text())
    assert given["extras"] == to_wire(Work("train", [1, 2], reports=str(folder.messages("n2"))))
    assert sorted(p.name for p in folder.path.iterdir() if p.name.startswith("n1")) == ["n1.log"]

    folder.take(first, "run1")  # which has only learnt now that its job has ended
    assert folder.submission() == second
    assert path.exists()

    folder.take(second, "root")
    assert folder.submission() == Submission("n2", 3, "run2", taken_by="root")
    assert not path.exists()


def test_a_failure_that_an_earlier_version_reported_is_not_taken_for_a_success() -> None:
    payloads = [{"job": 0, "failed": {"error": "row 3 is wrong"}, "value": None}, {"job": 1, "value": "done"}]
    messages = [{"method": "report_custom_message", "params": {"payload": payload}} for payload in payloads]
    assert reports_of(messages) == {1: Report(1, value="done")}


def test_a_worker_that_waits_for_a_lost_node_ends_at_the_signal_before_its_time_limit(tmp_path: Path) -> None:
    messages = tmp_path / "messages"
    paths = hand_over(Work("train", [], reports=str(messages)), tmp_path / "context", messages)
    with (
        locked(tmp_path / ".lock"),
        subprocess.Popen(COMMAND, env=os.environ | paths, stdout=subprocess.DEVNULL) as worker,
    ):
        try:
            until(lambda: messages.exists() and "Waiting for another process" in messages.read_text(), "it waits", 60)
            worker.send_signal(signal.SIGUSR1)
            assert worker.wait(10) == RESUME_STATUS
        finally:
            worker.kill()


def test_only_the_end_of_a_log_of_gigabytes_is_read(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert folder.log_tail("n") == ""
    with folder.log("n").open("wb") as stream:
        stream.seek(20 * 2**30)  # sparse
        stream.write(b"\nlast words\xff\n")
    assert folder.log_tail("n").endswith("last words\ufffd")
    assert len(folder.log_tail("n")) < 5000


def test_a_job_that_slurm_runs_again_after_its_result_was_taken_ends_without_a_worker(tmp_path: Path) -> None:
    settings = SlurmCompute(data_root=str(tmp_path), python="/no/python")
    command = ["bash", "-c", script._script(settings, "n", [tmp_path])]
    assert subprocess.run(command).returncode == 0
    (tmp_path / "n.env").touch()
    assert subprocess.run(command).returncode == 127
