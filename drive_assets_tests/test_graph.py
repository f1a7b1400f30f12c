"""The whole graph by the command, on a real Dagster instance with a real MLflow store, in scenarios."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import h5py
import numpy as np
import psutil
import pytest
import sqlalchemy
from mlflow import MlflowClient
from starlette.testclient import TestClient

from drive_assets import cli
from drive_assets.commands import recordings
from drive_assets.definitions import defs
from drive_assets.reports.links import base_url
from drive_assets.reports.server import Reports
from drive_assets.resources.mlflow.tracking import GROUP
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import UNFINISHED, open_instance
from drive_assets_tests.drives import write_drive
from drive_assets_tests.waiting import until
from model.dataset.split_file import read_split
from model.detection.detector import BUNDLED
from model.recording.annotations import Annotations, write_annotations

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 5)]
TWO = ["simple_concat_lstm", "attention_cross_attention_transformer"]
CONFIG = """
annotations: {image_size: 320, backend: torch}
split_manifest: {window: {stride: 1}}
checkpoint: {epochs: 2, batch_size: 32, warmup_epochs: 0, learning_rate: 0.001, embedding_dim: 16, hidden_dim: 16,
  attention_num_heads: 4, decoder_num_layers: 1}
evaluation: {bootstrap_samples: 20}
"""


COMMAND = """
import atexit, sys
atexit.register(lambda: print("heavy:", [name for name in ("torch", "ultralytics") if name in sys.modules]))
from drive_assets.cli import main
main()
"""


def drive_assets(*arguments: str) -> tuple[int, str]:
    """Run the command as a user does; its exit status and all that it printed, last the heavy modules it imported."""
    command = [sys.executable, "-c", COMMAND, *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return ended.returncode, ended.stdout


SPLITS_ONLY = ("--select", "future_labels,split_manifest,h5_split")
TRAINED = ("--select", "checkpoint", "--architectures")


@pytest.fixture(scope="module")
def with_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of four recordings that are annotated, labelled and split."""
    root = tmp_path_factory.mktemp("splits") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVE_ASSETS_DATA", str(root))
        patch.setenv("DAGSTER_HOME", str(root / "dagster"))
        for seed, name in enumerate(NAMES):
            write_drive(root / "inbox" / name, seed=seed)
        status, told = drive_assets("ingest", str(root / "inbox"))
        assert status == 0, told
        for name in NAMES:
            annotate(root / "recordings" / name)
        (root / "config.yaml").write_text(CONFIG)
        status, told = drive_assets("run", *SPLITS_ONLY, "--config", str(root / "config.yaml"))
        assert status == 0, told
    return root


@pytest.fixture
def splits(with_splits: Path, data_root: Path) -> Path:
    """A copy of it, to train in."""
    shutil.copytree(with_splits, data_root)
    return data_root


def annotate(folder: Path) -> None:
    """Annotations of one vehicle a frame, as if a detector had made them."""
    times = sorted(path.stem for path in folder.glob("*.jpg"))
    box = np.array([[10, 10, 500, 300, 0.9, 0]], np.float32)
    write_annotations(
        folder / "annotations.csv",
        Annotations.from_frames(times, [f"{time}.jpg" for time in times], [box] * len(times)),
    )


@pytest.mark.timeout(600)
def test_drives_are_annotated_and_labelled_and_nothing_is_redone(data_root: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        write_drive(tmp_path / "given" / name, rows=24)
    assert drive_assets("ingest", str(tmp_path / "given"))[0] == 0
    (tmp_path / "config.yaml").write_text(CONFIG)
    chosen = ["--weights", str(BUNDLED), "--config", str(tmp_path / "config.yaml")]
    status, told = drive_assets("run", "--select", "annotations,future_labels", *chosen)
    assert status == 0, told
    assert told.endswith("heavy: []\n")  # GPU work and its libraries live in the worker
    assert f"  {NAMES[0]}: " in told and "vehicles a frame in 24 frames" in told
    with open_instance() as instance:
        for asset in ("recording", "annotations", "future_labels"):
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(NAMES[:2])
        shown = {}
        for asset in ("annotations", "future_labels"):
            wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[NAMES[1]])
            event = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
            assert event is not None
            shown[asset] = event.metadata
        assert {"report", "brake_1s_rate"} <= set(shown["future_labels"])
        preview = str(shown["annotations"]["preview"].value)
        assert preview.startswith("![](data:image/jpeg;base64,") and len(preview) < 100_000
        assert shown["annotations"]["trained_on"].value == "simulated"
    made = data_root / "recordings" / NAMES[0] / "annotations.csv"
    before = made.read_bytes()
    status, told = drive_assets("run", "--select", "annotations", *chosen)
    assert status == 0, told
    assert made.read_bytes() == before


@pytest.mark.timeout(600)
def test_from_splits_to_the_comparison(splits: Path) -> None:
    rest = "checkpoint,evaluation,model_comparison"
    chosen = ["--architectures", *TWO, "--config", str(splits / "config.yaml")]
    status, told = drive_assets("run", "--select", rest, *chosen)
    assert status == 0, told
    assert "  model_comparison: " in told and "left out: " in told
    assert told.endswith("heavy: []\n")

    manifest = json.loads((splits / "datasets" / "multimodal" / "dataset_config.json").read_text())
    parts = [read_split(splits / "datasets" / "multimodal" / f"{name}.h5") for name in ("train", "val", "test")]
    assert sorted(name for part in parts for name in set(part.recordings)) == NAMES
    assert all(part.fingerprint == manifest["fingerprint"] for part in parts)
    comparison = json.loads((splits / "evaluation" / "comparison.json").read_text())
    assert {row["architecture"] for row in comparison["variants"]} == set(TWO)
    page = (splits / "evaluation" / "comparison.html").read_text()
    assert all(name in page for name in TWO)
    with open_instance() as instance:
        for asset in ("checkpoint", "evaluation"):
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(TWO)
        event = instance.get_latest_materialization_event(dg.AssetKey("model_comparison"))
        assert event is not None and event.asset_materialization is not None
        assert {"best", "table", "report", "verdict", "no_better_than_a_baseline"} <= set(
            event.asset_materialization.metadata
        )
    assert [row["architecture"] for row in comparison["baselines"]][-1] == "random"
    _check_mlflow(splits)

    # The same again: MLflow gets no second run a training, and what was removed is made anew.
    shutil.rmtree(splits / "evaluation")
    status, told = drive_assets("run", "--select", "evaluation,model_comparison", *chosen)
    assert status == 0, told
    assert (splits / "evaluation" / "comparison.csv").is_file()
    _check_mlflow(splits)


def test_a_data_root_can_be_moved(splits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = splits.with_name("elsewhere")
    splits.rename(moved)
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(moved))
    monkeypatch.setenv("DAGSTER_HOME", str(moved / "dagster"))
    status, told = drive_assets("status")
    assert (status, "out of date" in told, "future_labels      4 of 4 materialised" in told) == (0, False, True), told
    status, told = drive_assets("run", "--select", "recording,future_labels", "--recordings", NAMES[0])
    assert status == 0, told
    with open_instance() as instance:
        made = instance.get_latest_materialization_event(dg.AssetKey("future_labels"))
        assert made is not None and made.asset_materialization is not None
        link = str(made.asset_materialization.metadata["report"].value)
        assert made.asset_materialization.metadata["path"].value == str(
            moved / "recordings" / NAMES[0] / "future_labels.csv"
        )
        pages = TestClient(
            Reports(Storage.from_environment(), instance, defs.resolve_asset_graph()).app(), base_url=base_url()
        )
        for page in (link, f"{base_url()}/h5_split/train", f"{base_url()}/split_manifest"):
            assert pages.get(page).status_code == 200


def test_splits_that_were_changed_are_not_trained_on(splits: Path) -> None:
    with h5py.File(splits / "datasets" / "multimodal" / "train.h5", "a") as file:
        file.attrs["fingerprint"] = "older"
    status, told = drive_assets("run", *TRAINED, TWO[0], "--config", str(splits / "config.yaml"))
    assert (status, "train.h5 is damaged" in told) == (1, True), told


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_ends_with_its_worker_at_once(splits: Path, how: signal.Signals) -> None:
    """Though the asset's policy retries failures; and the run does not seem to go on for ever."""
    config, log = splits / "long.yaml", splits / "long.log"
    config.write_text(CONFIG.replace("epochs: 2", "epochs: 5000, early_stop_patience: 5000"))
    command = [sys.executable, "-c", COMMAND, "run", *TRAINED, TWO[0], "--config", str(config)]
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream) as run:
        try:
            until(lambda: f"{TWO[0]} epoch " in log.read_text(), "the first epoch ends", 500)
            children = psutil.Process(run.pid).children(recursive=True)
            workers = [process for process in children if "drive_assets.worker" in process.cmdline()]
            assert len(workers) == 1
            run.send_signal(how)
            status = run.wait(120)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{how.name} is not heard: {log.read_text()[-5000:]}") from None
        finally:
            run.kill()
    _, alive = psutil.wait_procs(workers, 30)
    assert not alive
    if how != signal.SIGKILL:
        assert (status, "The run was terminated" in log.read_text()) == (130, True)
    with open_instance() as instance:
        unfinished = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        assert unfinished == []
        (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": TWO[0]}), limit=1)
        assert run.status.value == ("FAILURE" if how == signal.SIGKILL else "CANCELED")
        assert run.asset_selection == {dg.AssetKey("checkpoint")}
        assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0
    tracked = MlflowClient(f"sqlite:///{splits / 'mlflow.db'}").search_runs(["1"])
    assert {run.info.run_name.split(" on ")[0] for run in tracked} == {
        f"{TWO[0]}, best changed",
        "best changed",
    }
    assert [run.info.status for run in tracked] == ["KILLED"] * 2  # the training, and its group


def _check_mlflow(data_root: Path) -> None:
    client = MlflowClient(f"sqlite:///{data_root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("drive-assets")
    found = client.search_runs([experiment.experiment_id])
    runs = {run.info.run_name: run for run in found if GROUP in run.data.tags}
    assert len(found) == len(runs) + 1
    assert set(runs) == {f"{name}, best changed" for name in TWO}
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 2
        assert run.data.params["batch_size"] == "32"
        assert {"test_mean_pr_auc", "test_pr_auc_brake_1s"} <= set(run.data.metrics)
        assert run.inputs.dataset_inputs[0].dataset.name == "multimodal"
        folders = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert {"checkpoint", "evaluation"} <= folders
    assert not client.search_registered_models()  # two epochs do not beat the baselines


@pytest.mark.parametrize(
    ("arguments", "config", "status", "words"),
    [
        (("--architectures", "simple_concat_gru"), "", 2, "Unknown architecture: simple_concat_gru"),
        (("--select", "annotations", "--recordings", NAMES[0]), "", 2, "Unknown recording"),
        ((), "checkpoints: {epochs: 3}", 2, "no such asset. Did you mean checkpoint?"),
        ((), "checkpoint: {epoch: 3}", 2, 'unexpected config entry "epoch"'),
        ((), "checkpoint: {epochs: 0}", 2, "epochs 0: expected greater than or equal to 1."),
        (("--architectures", TWO[0]), "", 1, "materialise split_manifest first"),
    ],
)
def test_invalid_input_ends_with_one_sentence(
    data_root: Path, tmp_path: Path, arguments: tuple[str, ...], config: str, status: int, words: str
) -> None:
    (tmp_path / "config.yaml").write_text(config)
    given = ("--select", "checkpoint", *arguments, "--config", str(tmp_path / "config.yaml"))
    ended, told = drive_assets("run", *given)
    assert (ended, words in told, "Traceback" in told) == (status, True, False), told


def test_a_data_root_that_cannot_be_written(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(tmp_path / "file" / "data"))
    monkeypatch.delenv("DAGSTER_HOME")
    status, told = drive_assets("ingest", str(tmp_path))
    assert (status, "data cannot be written: Not a directory" in told) == (2, True)


def test_a_full_disk_under_dagsters_records_is_one_sentence(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: object) -> bool:
        raise sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(recordings, "ingest", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main(["ingest", "x"])
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (1, 1)
    assert f"records in {data_root / 'dagster'} cannot be used" in told and "MB are free" in told
