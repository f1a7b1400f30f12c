"""The client on real local stores: first use, faults, secrets, and a data root that moves."""

import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.utils import make_new_run_id
from mlflow import MlflowClient

from drive_assets.resources.mlflow.address import scrubbed, tracking_uri
from drive_assets.resources.mlflow.client import Mlflow, told
from drive_assets.resources.mlflow.tracking import TRAINING_KEY, EpochLog, TrackedRun, UsedData, duration, take_run
from drive_assets.running.instance import open_instance
from model.common.errors import PassingError

CODE = """
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import TrackedRun
store = Mlflow.from_environment()
print(store.complete(TrackedRun(store.prepared(), "key/{0}", "name", {{"epochs": 1}}), [], 0))
"""

AFTER_THE_MOVE = """
import sys
from pathlib import Path
from drive_assets.resources.mlflow.client import Mlflow
store = Mlflow.from_environment()
run_id = store.find("key")
store.log_files(run_id, [Path(sys.argv[1])], "again")
print(run_id)
"""
"""In a process of its own: MLflow keeps a run's address for as long as a process lives."""


@pytest.fixture
def store(data_root: Path) -> Mlflow:
    return Mlflow.from_environment()


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def opened(store: Mlflow, key: str, dagster_run: str = "dagster run") -> str:
    """An MLflow run that goes on, as a worker opens it."""
    run = TrackedRun(store.prepared(), key, "name", tags={"dagster.run_id": dagster_run})
    return take_run(MlflowClient(tracking_uri()), run, 0, 0.0).info.run_id


def test_two_that_begin_at_once_get_one_whole_store(data_root: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", CODE.format(number)], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    ids = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(ids) == 2
    assert {run.info.run_id for run in client(data_root).search_runs(["1"])} == ids
    assert not list(data_root.glob(".mlflow.*.db"))


def test_a_first_use_that_was_killed_leaves_nothing_in_the_way(store: Mlflow, data_root: Path) -> None:
    data_root.mkdir()
    with sqlite3.connect(data_root / ".mlflow.0123456789ab.db") as half:
        half.execute("CREATE TABLE _alembic_tmp_experiments (x)")
    assert opened(store, "key")
    assert store.find("key") is not None


HALF = """
import os, sys
from mlflow import MlflowClient
import sqlalchemy
left = iter(range(60))
def die(connection, cursor, statement, *_):
    if statement.lstrip().startswith(("CREATE", "DROP", "ALTER", "INSERT", "UPDATE")) and next(left, None) is None:
        os.kill(os.getpid(), 9)
sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", die)
MlflowClient(sys.argv[1]).search_experiments()
"""
"""First use, killed at the sixtieth change of the database."""


def test_a_store_that_was_half_made_in_place_is_made_anew(store: Mlflow, data_root: Path) -> None:
    data_root.mkdir()
    killed = subprocess.run([sys.executable, "-c", HALF, f"sqlite:///{data_root / 'mlflow.db'}"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    run_id = opened(store, "key")
    assert store.find("key") == run_id
    assert [path.name for path in data_root.iterdir() if "lock" not in path.name] == ["mlflow.db"]


def test_a_store_that_holds_runs_is_never_made_anew(store: Mlflow, data_root: Path) -> None:
    opened(store, "key")
    with closing(sqlite3.connect(data_root / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'future'")
    before = (data_root / "mlflow.db").read_bytes()
    found = subprocess.run([sys.executable, "-c", CODE.format(1)], stderr=subprocess.PIPE, text=True)
    assert "mlflow.db cannot be opened" in found.stderr and "It holds 1 experiments, 1 runs" in found.stderr
    assert (data_root / "mlflow.db").read_bytes() == before
    (data_root / "mlflow.db").write_bytes(b"no database at all" * 100)
    found = subprocess.run([sys.executable, "-c", CODE.format(1)], stderr=subprocess.PIPE, text=True)
    assert "mlflow.db is no database" in found.stderr


def test_a_store_that_another_process_holds_is_said_and_may_pass(store: Mlflow, data_root: Path) -> None:
    with pytest.raises(PassingError, match=r"The MLflow store \(sqlite\) failed: .*locked.*run it again"), told():
        store.prepared()
        path = data_root / "mlflow.db"
        with closing(sqlite3.connect(path)) as other, closing(sqlite3.connect(path, timeout=0)) as ours:
            other.execute("BEGIN EXCLUSIVE")
            ours.execute("DELETE FROM tags")


def test_a_deleted_experiment_is_restored(store: Mlflow, data_root: Path) -> None:
    run_id = opened(store, "key")
    client(data_root).delete_experiment("1")
    assert opened(store, "other") != run_id
    assert client(data_root).get_experiment("1").lifecycle_stage == "active"


def test_runs_of_killed_commands_are_ended(store: Mlflow, data_root: Path) -> None:
    store.end({"lost"})
    assert not (data_root / "mlflow.db").exists()  # a store is not made for this
    lost, alive = (opened(store, name, name) for name in ("lost", "alive"))
    store.end({"lost"})
    assert client(data_root).get_run(lost).info.status == "KILLED"
    assert client(data_root).get_run(alive).info.status == "RUNNING"


def test_runs_of_a_killed_process_of_the_ui_are_ended_by_the_next(store: Mlflow, data_root: Path) -> None:
    with dg.instance_for_test() as instance:
        states = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED)
        ours = [dg.DagsterRun(job_name="job", run_id=make_new_run_id(), status=status) for status in states]
        for run in ours:
            instance.add_run(run)
        ids = [opened(store, run_id, run_id) for run_id in (*(run.run_id for run in ours), "of another instance")]
        store.end_killed(instance)
    found = [client(data_root).get_run(run_id).info.status for run_id in ids]
    assert found == ["KILLED", "RUNNING", "RUNNING"]


def test_a_training_is_told_and_what_the_worker_could_not_log_is_made_up_for(
    store: Mlflow, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = TrackedRun(store.prepared(), "key", "name"), list[str]()
    epochs = [{"epoch": number, "lr": 0.1} for number in range(4)]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    with EpochLog(run, 40, lines.append, "net").closed() as log:
        log.begin(0)
        log(epochs[0])
    with EpochLog(run, 40, lines.append, "net").closed() as log:
        log.begin(1)
        log(epochs[0])
        log(epochs[1])
        monkeypatch.setattr(log._client, "log_batch", None)  # as if the server were gone
        log(epochs[2])
        log(epochs[3])
    assert lines[0].startswith("net epoch 1 of 40, ") and lines[0].endswith(" left: lr 0.1")
    assert lines[1] == "net resumes after epoch 1 of 40"
    assert [line for line in lines if "MLflow" in line] == [
        "MLflow cannot be reached (TypeError); training continues, its figures follow in the end."
    ]
    run_id = store.complete(run, epochs, 1)
    assert [metric.step for metric in client(data_root).get_metric_history(run_id, "lr")] == [0, 1, 2, 3]
    assert client(data_root).get_run(run_id).info.status == "FINISHED"
    assert store.complete(run, epochs, 4) == run_id == store.find("key")
    assert len(client(data_root).search_runs(["1"])) == 1


def test_what_a_run_is_of_is_made_up_for_where_its_maker_was_killed_just_then(store: Mlflow, data_root: Path) -> None:
    data = UsedData("multimodal", "1", "here", {})
    bare = client(data_root).create_run(store.prepared(), tags={TRAINING_KEY: "key"}).info.run_id
    run = TrackedRun(store.prepared(), "key", "name", {"epochs": 3, "seed": 0}, {}, data)
    for parameters in ({"epochs": 3}, {"epochs": 3, "seed": 0}):
        assert store.complete(replace(run, parameters=parameters), [], 1) == bare
    found = client(data_root).get_run(bare)
    assert found.data.params == {"epochs": "3", "seed": "0"}
    assert [each.dataset.name for each in found.inputs.dataset_inputs] == ["multimodal"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_signal_waits_until_a_local_store_is_let_go_of(store: Mlflow, fails: bool) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), told():
        signal.raise_signal(signal.SIGINT)
        done.append(True)
        if fails:
            raise RuntimeError("the store failed just then")
    assert done == [True]


def test_a_training_from_the_start_has_a_run_of_its_own_and_one_that_was_killed_before_its_first_epoch_goes_on(
    store: Mlflow, data_root: Path
) -> None:
    first = opened(store, "key", "killed")
    assert opened(store, "key", "next") == first
    client(data_root).log_metric(first, "epoch", 0, step=0)
    assert opened(store, "key", "next") == first
    anew = opened(store, "key", "anew")
    assert anew != first and store.find("key") == anew


@pytest.mark.parametrize(("seconds", "told"), [(12.4, "12 s"), (420, "7 min"), (7500, "2 h 05 min")])
def test_a_duration_as_a_person_says_it(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_moved_data_root_takes_its_artifacts_along(
    store: Mlflow, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = opened(store, "key")
    (tmp_path / "best_model.pt").write_bytes(b"weights")
    store.log_files(run_id, [tmp_path / "best_model.pt"], "checkpoint")
    source = f"{client(data_root).get_run(run_id).info.artifact_uri}/checkpoint/best_model.pt"
    client(data_root).create_registered_model("drive-assets")
    version = client(data_root).create_model_version("drive-assets", source, run_id).version
    client(data_root).set_registered_model_alias("drive-assets", "best", version)
    moved = tmp_path / "moved"
    shutil.move(data_root, moved)
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(moved))
    command = [sys.executable, "-c", AFTER_THE_MOVE, str(tmp_path / "best_model.pt")]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip() == run_id
    assert {item.path for item in client(moved).list_artifacts(run_id)} == {"checkpoint", "again"}
    source = client(moved).get_model_version_by_alias("drive-assets", "best").source
    assert source == f"{(moved / 'mlflow_artifacts').as_uri()}/{run_id}/artifacts/checkpoint/best_model.pt"
    assert not data_root.exists()


def test_a_server_that_is_not_there_is_told_soon_and_without_its_password(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:s3cr%40t@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Mlflow.from_environment()
    with pytest.raises(PassingError, match=r"The MLflow store \(http\) failed") as raised:
        store.find("key")
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    shown = f"{raised.value} {store!r} {store.model_dump()}"
    assert "s3cr" not in shown
    assert "user:" not in shown


def test_a_run_whose_server_does_not_answer_ends_at_once_when_it_is_terminated(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent, open_instance():
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")
        command = [sys.executable, "-m", "drive_assets.cli", "run", "--select", "boxy_detector"]
        (data_root / "datasets" / "boxy_yolo").mkdir(parents=True)
        (data_root / "datasets" / "boxy_yolo" / "dataset.yaml").write_text("names: {0: vehicle}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            asked, _ = silent.accept()
            run.terminate()
            told, _ = run.communicate()
            asked.close()
    assert (run.returncode, "The run was terminated" in told) == (130, True)


def test_scrubbing_finds_the_password_in_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:p%40ss@db/mlflow")
    assert scrubbed("no route to postgresql://me:p%40ss@db/mlflow") == "no route to ***"
    assert scrubbed("password p@ss or p%40ss refused; http://a:b@c/d") == "password *** or *** refused; http://***@c/d"
