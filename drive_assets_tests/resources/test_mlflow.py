"""The client on real local stores: first use, faults, secrets, and a data root that moves."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from drive_assets.resources.mlflow import Mlflow, scrubbed
from model.common.errors import PassingError

CODE = """
from drive_assets.resources.mlflow import Mlflow
print(Mlflow.from_environment().open("key/{0}", "name", {{"epochs": 1}}, {{"dagster.run_id": "lost"}}))
"""

AFTER_THE_MOVE = """
import sys
from pathlib import Path
from drive_assets.resources.mlflow import Mlflow
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
    assert store.open("key", "name", {}, {})
    assert store.find("key") is not None


def test_a_deleted_experiment_is_restored(store: Mlflow, data_root: Path) -> None:
    run_id = store.open("key", "name", {}, {})
    client(data_root).delete_experiment("1")
    assert store.open("other", "name", {}, {}) != run_id
    assert client(data_root).get_experiment("1").lifecycle_stage == "active"


def test_runs_of_killed_commands_are_ended(store: Mlflow, data_root: Path) -> None:
    lost, alive = (store.open(name, name, {}, {"dagster.run_id": name}) for name in ("lost", "alive"))
    store.end_lost({"lost"})
    assert client(data_root).get_run(lost).info.status == "KILLED"
    assert client(data_root).get_run(alive).info.status == "RUNNING"


def test_a_moved_data_root_takes_its_artifacts_along(
    store: Mlflow, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = store.open("key", "name", {}, {})
    (tmp_path / "best_model.pt").write_bytes(b"weights")
    store.log_files(run_id, [tmp_path / "best_model.pt"], "checkpoint")
    assert store.register_best("drive-assets", run_id, tmp_path / "best_model.pt", "first") == "1"
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


def test_scrubbing_finds_the_password_in_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:p%40ss@db/mlflow")
    assert scrubbed("no route to postgresql://me:p%40ss@db/mlflow") == "no route to ***"
    assert scrubbed("password p@ss or p%40ss refused; http://a:b@c/d") == "password *** or *** refused; http://***@c/d"
