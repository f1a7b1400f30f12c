"""The client on real local stores: first use, faults, secrets, and a data root that moves."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest
from dagster._core.utils import make_new_run_id
from mlflow import MlflowClient

from drive_assets.resources.mlflow.address import scrubbed, tracking_uri
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.store import store_errors
from drive_assets.resources.mlflow.tracking import (
    GROUP,
    TRAINING_KEY,
    EpochLog,
    TrackedRun,
    UsedData,
    open_run,
)
from model.common.errors import DataError, PassingError

CODE = """
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import TrackedRun
store = Mlflow.from_environment()
print(store.complete(TrackedRun(store.prepared(), "key/{0}", "name", {{"epochs": 1}}), [], 0))
"""


@pytest.fixture
def store(data_root: Path) -> Mlflow:
    return Mlflow.from_environment()


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def opened(store: Mlflow, key: str, dagster_run: str = "dagster run") -> str:
    """The id of a running MLflow run, as a worker opens it."""
    run = TrackedRun(store.prepared(), key, "name", tags={"dagster.run_id": dagster_run})
    return open_run(MlflowClient(tracking_uri()), run, 0, 0.0).info.run_id


def test_two_processes_that_start_at_once_share_one_store(data_root: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", CODE.format(number)], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    ids = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(ids) == 2
    assert {run.info.run_id for run in client(data_root).search_runs(["1"])} == ids
    assert not list(data_root.glob(".mlflow.*.db"))


KILLED = """
import os, sqlalchemy
from drive_assets.resources.mlflow.client import Mlflow
left = iter(range(60))
def die(connection, cursor, statement, *_):
    if statement.lstrip().startswith(("CREATE", "DROP", "ALTER", "INSERT", "UPDATE")) and next(left, None) is None:
        os.kill(os.getpid(), 9)
sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", die)
Mlflow.from_environment().prepared()
"""
"""First use, killed at the sixtieth change of the database."""


def test_a_first_use_that_is_killed_leaves_no_store(store: Mlflow, data_root: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (data_root / "mlflow.db").exists()
    assert opened(store, "key") == store.find("key")


def of_another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'other'")


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


@pytest.mark.parametrize(
    ("damage", "advice"),
    [
        (of_another_version, r"Copy the file, then run `mlflow db upgrade sqlite:///.*mlflow\.db`"),
        (no_database, "Put a backup in its place, or move the file away"),
    ],
)
def test_a_damaged_store_is_left_as_it_is_and_named(
    store: Mlflow, data_root: Path, damage: Callable[[Path], None], advice: str
) -> None:
    path = data_root / "mlflow.db"
    data_root.mkdir()
    MlflowClient(f"sqlite:///{data_root / 'other.db'}").search_experiments()
    shutil.copy(data_root / "other.db", path)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(DataError, match=rf"mlflow\.db cannot be opened \(.*\)\. {advice}") as raised:
        store.prepared()
    assert not isinstance(raised.value, PassingError)
    assert path.read_bytes() == before


def test_a_store_that_another_process_locks_may_pass(store: Mlflow, data_root: Path) -> None:
    with pytest.raises(PassingError, match=r"store \(sqlite\) failed: .*locked.*run it again"), store_errors():
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


def test_the_next_training_ends_runs_of_killed_processes(store: Mlflow, data_root: Path) -> None:
    with dg.instance_for_test() as instance:
        states = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED)
        ours = [dg.DagsterRun(job_name="job", run_id=make_new_run_id(), status=status) for status in states]
        for run in ours:
            instance.add_run(run)
        store.end_killed(instance)
        assert not (data_root / "mlflow.db").exists()
        ids = [opened(store, run_id, run_id) for run_id in (*(run.run_id for run in ours), "of another instance")]
        store.end_killed(instance)
    found = [client(data_root).get_run(run_id).info.status for run_id in ids]
    assert found == ["KILLED", "RUNNING", "RUNNING"]


def test_a_training_is_logged_and_missing_epochs_follow_at_the_end(
    store: Mlflow, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = TrackedRun(store.prepared(), "key", "name"), list[str]()
    areas = (0.7, 0.6, 1.0, 0.7)
    epochs = [
        {"epoch": number, "lr": 0.1, "train_loss": 1.0625, "val_loss": 1.25, "val_pr_auc_mean": area}
        for number, area in enumerate(areas)
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    with EpochLog(run, 40, lines.append, "net").closed() as log:
        log.begin([])
        log(epochs[0])
    with EpochLog(run, 40, lines.append, "net").closed() as log:
        log.begin(epochs[:1])
        log(epochs[0])
        log(epochs[1])
        monkeypatch.setattr(log._client, "log_batch", None)  # as if the server were gone
        log(epochs[2])
        log(epochs[3])
    assert lines[0].startswith("net epoch 1/40  loss 1.06/1.25  PR-AUC .700 best  ") and lines[0].endswith(" left")
    assert "  PR-AUC .600  " in lines[3] and "  PR-AUC 1.000 best  " in lines[4]
    assert lines[1] == "net resumes after epoch 1 of 40"
    assert [line for line in lines if "MLflow" in line] == [
        "MLflow failed (TypeError); training continues, and its metrics are logged when the run ends."
    ]
    run_id = store.complete(run, epochs, 1)
    assert [metric.step for metric in client(data_root).get_metric_history(run_id, "lr")] == [1, 2, 3, 4]
    assert client(data_root).get_run(run_id).info.status == "FINISHED"
    assert store.complete(run, epochs, 4) == run_id == store.find("key")
    assert len(client(data_root).search_runs(["1"])) == 1


def test_missing_parameters_and_data_of_a_killed_process_are_logged(store: Mlflow, data_root: Path) -> None:
    data = UsedData("multimodal", "1", "here", {})
    bare = client(data_root).create_run(store.prepared(), tags={TRAINING_KEY: "key"}).info.run_id
    run = TrackedRun(store.prepared(), "key", "name", {"epochs": 3, "seed": 0}, {}, data)
    for parameters in ({"epochs": 3}, {"epochs": 3, "seed": 0}):
        assert store.complete(replace(run, parameters=parameters), [], 1) == bare
    found = client(data_root).get_run(bare)
    assert found.data.params == {"epochs": "3", "seed": "0"}
    assert [each.dataset.name for each in found.inputs.dataset_inputs] == ["multimodal"]


def test_a_group_has_the_figures_of_its_best_training(store: Mlflow, data_root: Path) -> None:
    group = store.group(TrackedRun(store.prepared(), "group", "best on v1"))
    for name, value in (("a", 0.5), ("b", 0.7), ("c", 0.6)):
        run = TrackedRun(store.prepared(), name, name, tags={GROUP: group, "architecture": name})
        store.log_best(run, store.complete(run, [], 0), {"epoch": 3, "val_pr_auc_mean": value, "val_loss": None})
    found = client(data_root).get_run(group).data
    assert (found.metrics, found.tags["best_architecture"]) == ({"best_val_pr_auc_mean": 0.7}, "b")


def test_a_training_that_starts_over_gets_a_new_run_unless_no_epoch_was_logged(store: Mlflow, data_root: Path) -> None:
    first = opened(store, "key", "killed")
    assert opened(store, "key", "next") == first
    client(data_root).log_metric(first, "epoch", 0, step=0)
    assert opened(store, "key", "next") == first
    again = opened(store, "key", "again")
    assert again != first and store.find("key") == again


@pytest.mark.parametrize("transfer", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_data_root_gets_a_new_experiment_and_keeps_the_former(
    store: Mlflow, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: Callable[..., object]
) -> None:
    former = opened(store, "key")
    store.log_page(former, "page", "report.html")
    moved = tmp_path / "moved"
    transfer(data_root, moved)
    before = {path for path in data_root.rglob("*") if path.suffix != ".lock"}
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(moved))
    there = Mlflow.from_environment()
    assert there.find("key") is None
    run = TrackedRun(there.prepared(), "key", "name")
    run_id = there.complete(run, [{"epoch": 0}], 0)
    there.log_page(run_id, "page", "report.html")
    assert (moved / "mlflow_artifacts" / run_id / "artifacts" / "report.html").is_file()
    assert there.prepared() == run.experiment == client(moved).get_experiment_by_name("drive-assets").experiment_id
    assert (
        client(moved)
        .get_experiment(client(moved).get_run(former).info.experiment_id)
        .name.startswith("drive-assets until ")
    )
    assert {path for path in data_root.rglob("*") if path.suffix != ".lock"} == before


def test_an_unreachable_server_is_reported_without_its_password(
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


def test_a_server_that_refuses_its_own_name_is_reported_with_the_setting_that_helps(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(403, explain="Invalid Host header - possible DNS rebinding attack detected")

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(PassingError, match="Start the server with its name in MLFLOW_SERVER_ALLOWED_HOSTS"):
            Mlflow.from_environment().prepared()
        server.shutdown()


def test_scrubbing_removes_the_password_in_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:p%40ss@db/mlflow")
    assert scrubbed("no route to postgresql://me:p%40ss@db/mlflow") == "no route to ***"
    assert scrubbed("password p@ss or p%40ss refused; http://a:b@c/d") == "password *** or *** refused; http://***@c/d"
